"""A call that is settled late, because others are before it, has ended when it ended."""

import threading
import time
from pathlib import Path

from lastchunk.bookkeeper import Bookkeeper, Caller
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger
from lastchunk.meter.ending import Ending, Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.telemetry.observer import Difference
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import read_body

BODY = b'{"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
WHOLE = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "one"}, "finish_reason": "stop"}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 2}}\n\n'
    b"data: [DONE]\n\n"
)
LATE_SECONDS = 0.2


class Slow:
    """An observer that has the accountant wait."""

    def __init__(self) -> None:
        self.waits, self.gate = threading.Event(), threading.Event()

    def opened(self, call: OpenCall) -> None:
        pass

    def settled(self, call: OpenCall, settlement: Settlement) -> None:
        self.waits.set()
        self.gate.wait(10)

    def corrected(self, call: OpenCall, difference: Difference) -> None:
        pass


def opened(books: Bookkeeper) -> MeteredCall:
    body = read_body(BODY)
    assert body is not None
    caller = Caller("default", "python")
    path, upstream = "/v1/chat/completions", "api.openai.com"
    call = books.open(Dialect.CHAT, BODY, body, upstream=upstream, path=path, caller=caller)
    call.reserved.result(10)
    call.headed(200, "text/event-stream", None)
    return call


def test_a_call_ends_when_its_bytes_say_so_however_late_it_is_settled(tmp_path: Path) -> None:
    clock, slow = SystemClock(), Slow()
    ledger = Ledger.open(str(tmp_path / "ledger.db"), clock=clock)
    books = Bookkeeper(ledger, PriceBook.load(None), clock, observers=[slow])
    before, call = opened(books), opened(books)
    before.end(Stop.CALLER_LEFT)
    assert slow.waits.wait(10)
    call.receive(WHOLE)
    time.sleep(LATE_SECONDS)
    slow.gate.set()
    settlement = call.settled.result(10)
    books.close()
    assert settlement.ending is Ending.COMPLETED
    seen = settlement.observation
    assert seen.observed_ms == seen.last_byte_ms
