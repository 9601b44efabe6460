from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_running import Cli
from made_calls import START_MS, FixedClock, a_day_of_calls

from lastchunk.ledger import Ledger


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START_MS)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own, with none of the developer's settings."""
    for name in ("LASTCHUNK_LEDGER", "LASTCHUNK_PRICES", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli() -> Cli:
    return Cli()


@pytest.fixture
def ledger(elsewhere: Path, clock: FixedClock) -> Iterator[Ledger]:
    """An empty ledger, open for writing, where the commands look for theirs."""
    with Ledger.open(str(elsewhere / "lastchunk.db"), clock=clock) as opened:
        yield opened


@pytest.fixture
def a_day(elsewhere: Path, clock: FixedClock) -> Path:
    """A ledger with a day of varied calls, where the commands look for theirs."""
    return a_day_of_calls(elsewhere / "lastchunk.db", clock)
