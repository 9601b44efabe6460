"""How long a reservation takes to be durable, how long an ending takes, on SQLite."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.provider import MODEL, frames_of
from benchmarks.results import Timed, timed
from lastchunk.bookkeeper import Bookkeeper, Caller
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.settings import load_settings
from lastchunk.startup import open_books
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import read_body

RAW = (
    b'{"model":"%s","stream":true,"messages":[{"role":"user","content":"hello"}]}' % MODEL.encode()
)
CALLS, CALLERS, EACH = 400, 50, 20


def measure() -> list[Timed]:
    frame = frames_of(3, usage=False)[1].split(b"\r\n")[1] + b"\n\n"
    with tempfile.TemporaryDirectory() as folder:
        books = open_books(load_settings(ledger=str(Path(folder) / "ledger.db")))
        opened, ended, settled = [], [], []
        for _ in range(CALLS):
            call, seconds = _open(books)
            opened.append(seconds)
            call.headed(200, "text/event-stream", None)
            call.receive(frame)
            began = time.perf_counter()
            call.end(Stop.CALLER_LEFT)
            ended.append(time.perf_counter() - began)
            call.settled.result(10)
            settled.append(time.perf_counter() - began)
        crowd = _crowd(books)
        books.close()
    return [
        timed("open() until durable, one caller", opened),
        timed(f"open() until durable, {CALLERS} callers at once", crowd),
        timed("end(), what its caller waits for", ended),
        timed("end() until the settlement is durable", settled),
    ]


def _open(books: Bookkeeper) -> tuple[MeteredCall, float]:
    body = read_body(RAW)
    assert body is not None
    began = time.perf_counter()
    call = books.open(
        Dialect.CHAT, RAW, body, upstream="bench", path="/v1", caller=Caller("bench", "python")
    )
    call.reserved.result(10)
    return call, time.perf_counter() - began


def _crowd(books: Bookkeeper) -> list[float]:
    def work(_: int) -> list[float]:
        found = []
        for _ in range(EACH):
            call, seconds = _open(books)
            call.end(Stop.CALLER_LEFT)
            found.append(seconds)
        return found

    with ThreadPoolExecutor(CALLERS) as pool:
        return [seconds for found in pool.map(work, range(CALLERS)) for seconds in found]
