"""A wall clock that is set while calls are open: NTP, a resumed machine, an administrator."""

import time
from pathlib import Path

import pytest
from opened import TEXT, open_call

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger, Reader, verify
from lastchunk.meter.ending import Ending, Stop
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover

HOUR_MS = 3_600_000


class SettableClock(SystemClock):
    """The machine's clock, with a face that can be set."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@pytest.mark.parametrize("leap_ms", [HOUR_MS, -HOUR_MS, 400 * 24 * HOUR_MS, -400 * 24 * HOUR_MS])
def test_an_open_call_keeps_its_own_time(tmp_path: Path, leap_ms: int) -> None:
    clock = SettableClock()
    url = str(tmp_path / "ledger.db")
    books = Bookkeeper(Ledger.open(url, clock=clock), PriceBook.load(None), clock)
    began = time.monotonic()
    call = open_call(books)
    call.headed(200, "text/event-stream", None)
    call.receive(TEXT)
    clock.ahead_ms += leap_ms
    call.receive(TEXT)
    time.sleep(1.2)  # it is written down on its way
    with Ledger.open(url, clock=clock) as other:
        assert list(recover(other, PriceBook.load(None), clock)) == []
    call.end(Stop.CALLER_LEFT)
    seen = call.settled.result(10).observation
    lasted_ms = (time.monotonic() - began) * 1000
    after = open_call(books)
    after.end(Stop.NOT_CONNECTED)
    books.close()
    opened = call.call.opened_ms
    assert seen.first_token_ms is not None
    assert seen.last_byte_ms is not None
    assert seen.observed_ms is not None
    assert opened <= seen.first_token_ms <= seen.last_byte_ms <= seen.observed_ms
    assert 1_000 <= seen.observed_ms - opened <= lasted_ms + 1
    assert abs(after.call.opened_ms - opened - leap_ms) < 60_000, "the next call has the new time"
    assert after.call_id != call.call_id
    assert verify(url).is_clean


def test_a_lost_call_is_not_recovered_before_it_began(tmp_path: Path) -> None:
    """Its process's clock was an hour ahead of the one that recovers it."""
    clock, url = SettableClock(), str(tmp_path / "ledger.db")
    clock.ahead_ms = HOUR_MS
    dead = Bookkeeper(Ledger.open(url, clock=clock), PriceBook.load(None), clock)
    opened_ms = open_call(dead).call.opened_ms
    dead.abandon()
    dead.ledger.close()
    with Ledger.open(url, clock=SystemClock()) as living:
        (settlement,) = recover(living, PriceBook.load(None), SystemClock())
    assert settlement.ending is Ending.LOST
    assert settlement.price_id is not None
    with Reader.open(url) as reader:
        (row,) = reader.calls()
    assert row.entries[1].occurred_ms >= opened_ms > row.entries[1].recorded_ms
