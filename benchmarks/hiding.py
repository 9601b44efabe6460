"""CPU of one chunk in the meter and the hider: without usage in it, and with running usage."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.provider import MODEL
from benchmarks.results import Compared, compare
from lastchunk.meter.meter import Meter
from lastchunk.simulator import Script, render
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.hide import UsageFrameHider
from lastchunk.wire.hide_running import RunningUsageHider
from lastchunk.wire.request import read_request

ROUNDS = 15
REPEATS = 5
TOKENS = 400


def measure() -> list[Compared]:
    plain, running = _frames(running=False), _frames(running=True)
    return [
        _compared("hiding, chunks without usage, asked for running", plain, plain),
        _compared("hiding, chunks with running usage", plain, running),
    ]


def _frames(*, running: bool) -> tuple[bytes, ...]:
    options = {"include_usage": True, "continuous_usage_stats": running}
    request = {"model": MODEL, "stream": True, "messages": [], "stream_options": options}
    script = Script(output_tokens=TOKENS, obfuscation=False, continuous_usage="given")
    frames = render(script, request).frames
    return frames if running else tuple(f.replace(b',"usage":null', b"") for f in frames)


def _compared(what: str, before: tuple[bytes, ...], after: tuple[bytes, ...]) -> Compared:
    def today() -> UsageFrameHider:
        return UsageFrameHider()

    def asked() -> UsageFrameHider:
        return RunningUsageHider(caller_asked=False)

    pairs = [(_run(before, today), _run(after, asked)) for _ in range(ROUNDS + 1)][1:]
    plain, metered = map(list, zip(*pairs, strict=True))
    return compare(what, "event", plain, metered)


def _run(frames: tuple[bytes, ...], hider: Callable[[], UsageFrameHider]) -> float:
    """Microseconds of CPU for one chunk."""
    body = {"model": MODEL, "stream": True}
    request = read_request(Dialect.CHAT, body, upstream="bench", body_bytes=30)
    began = time.process_time()
    for _ in range(REPEATS):
        meter, hiding = Meter(request), hider()
        meter.headed(200, "text/event-stream", None)
        for at, frame in enumerate(frames):
            meter.receive(frame, at)
            hiding.feed(frame)
        meter.finish()
    return (time.process_time() - began) / (REPEATS * len(frames)) * 1e6
