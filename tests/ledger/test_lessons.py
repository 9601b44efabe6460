from concurrent.futures import wait

import pytest
import sqlalchemy as sa
from ledger_facts import Stopwatch

from lastchunk.ledger import Ledger
from lastchunk.ledger import lessons as kept
from lastchunk.ledger.database import parse_url, writing_engine
from lastchunk.settlement.learned_reasoning import ReasoningRow
from lastchunk.settlement.residuals import ResidualRow, Side


def lesson(number: int) -> ResidualRow:
    return ResidualRow(
        side=Side.PROMPT,
        shape=f"shape{number}",
        family="chat gpt-4o",
        residual=-number,
        counted=100,
        low=90,
        high=120,
        bounded=False,
        seen_ms=number,
    )


PACE = ReasoningRow("o3", "high", silent_ms=1500, reasoning_tokens=128, seen_ms=7)


def test_lessons_come_back_in_order_to_the_next_process(url: str, clock: Stopwatch) -> None:
    with Ledger.open(url, clock=clock) as first:
        wait([first.learn([lesson(1), PACE]), first.learn([lesson(2)])])
        key = first.lessons().key
    with Ledger.open(url, clock=clock) as second:
        known = second.lessons()
    assert known.residuals == (lesson(1), lesson(2))
    assert known.paces == (PACE,)
    assert known.key == key
    assert len(key) == 32


def test_old_lessons_are_dropped(
    url: str, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.open(url, clock=clock) as ledger:
        ledger.learn([lesson(number) for number in range(30)]).result()
        monkeypatch.setattr(kept, "KEPT", 10)
        assert [row.seen_ms for row in ledger.lessons().residuals] == list(range(20, 30))
    engine = writing_engine(parse_url(url))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM residuals")) == 10
