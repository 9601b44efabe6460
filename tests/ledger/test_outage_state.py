"""A stream that stands still while the ledger is away: its state is written down afterwards."""

import contextlib
import time
from pathlib import Path

from outages import PATIENCE_SECONDS, held, options, until, until_back

from lastchunk.bookkeeper import CHECKPOINT_SECONDS, Bookkeeper, Caller
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger, Reader
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.pricing.book import PriceBook
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import read_body

BODY = b'{"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
TEXT = b'data: {"choices": [{"index": 0, "delta": {"content": "one two three"}}]}\n\n'


def open_call(books: Bookkeeper) -> MeteredCall:
    body = read_body(BODY)
    assert body is not None
    caller = Caller("default", "python")
    return books.open(
        Dialect.CHAT, BODY, body, upstream="api.openai.com", path="/v1", caller=caller
    )


def test_what_came_during_an_outage_is_known_after_it_without_another_byte(
    url: str, tmp_path: Path
) -> None:
    clock = SystemClock()
    ledger = Ledger.open(url, clock=clock, spool=options(tmp_path / "spool"))
    with contextlib.closing(Bookkeeper(ledger, PriceBook.load(None), clock)) as books:
        call = open_call(books)
        call.reserved.result(PATIENCE_SECONDS)
        call.headed(200, "text/event-stream", None)
        with held(url):
            open_call(books).reserved.result(PATIENCE_SECONDS)  # it is in the spool
            call.receive(TEXT)
            until(lambda: call.uncounted == 0.0, "a checkpoint that counts")
            time.sleep(CHECKPOINT_SECONDS / 2)  # and it has been dropped
            assert ledger.health().is_away
        until_back(ledger)
        with Reader.open(url) as reader:

            def seen_bytes() -> int:
                row = next(row for row in reader.calls() if row.call_id == call.call_id)
                return row.seen.bytes if row.seen is not None else 0

            until(lambda: seen_bytes() == len(TEXT), "the state of the call in the ledger")
        call.end(Stop.CALLER_LEFT)
