"""Reading one body in many cuts, and what all of them must agree on."""

from __future__ import annotations

import copy
import json
import random
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

from cut_bodies import ALL, SEED, Body

from lastchunk.meter.meter import Meter
from lastchunk.meter.observation import Observation
from lastchunk.wire.hide import UsageFrameHider

EVERY_BYTE_UP_TO = 16 * 1024
"""In a longer frame some thousand places are cut: each costs reading the frame again."""

PLACES_IN_A_FRAME = 2048
PLACES_IN_A_RUN = 300
"""Cuts of one body in an ordinary run."""

_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")


@contextmanager
def told_without_content(body: Body) -> Iterator[None]:
    """An exception on a recording names the place and the recording, and quotes nothing of it."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        raise AssertionError(f"{body!r}: {type(error).__name__} at {where}") from None


def new_meter(body: Body) -> Meter:
    meter = Meter(body.request)
    meter.headed(200, "text/event-stream", None)
    return meter


def read(body: Body, pieces: Iterable[bytes]) -> tuple[Observation, list[str] | None]:
    """All that is known at the end, without its times, and the texts that arrived.

    Once usage has settled the account, what waits and what comes may stay unread: then neither
    the texts nor what is said behind the end is compared.
    """
    meter = new_meter(body)
    for piece in pieces:
        meter.receive(piece, 1)
    meter.finish()
    if meter.is_conclusive:
        settled = {"frames": 0, "failure_code": None, "unreadable": 0, "reasoning_seen": False}
        return replace(seen_by(meter), refused_choices=0, **settled), None
    return seen_by(meter), spoken(meter)


def in_frames(data: bytes) -> list[bytes]:
    """As most servers write them: one frame a piece."""
    ends = [0, *(found.end() for found in _BOUNDARY.finditer(data)), len(data)]
    return [data[start:end] for start, end in pairwise(ends)]


def seen_by(meter: Meter) -> Observation:
    return replace(meter.observe(1), first_token_ms=None)


def spoken(meter: Meter) -> list[str]:
    """The texts that wait to be counted, joined: how they were cut into frames matters, too."""
    return [repr(text) for text in meter.take_texts()]


def characters(meter: Meter) -> int:
    """How much output is kept, without taking it away."""
    return meter._kept_chars + meter._uncounted_chars


def at_every_cut(body: Body) -> Iterator[tuple[int, Meter, Observation]]:
    """The meter after each beginning of the body, as if no more came; by copies, not anew."""
    places = iter(places_to_cut(body.data))
    wanted = next(places, None)
    meter = new_meter(body)
    start = 0
    for end in [*(found.end() for found in _BOUNDARY.finditer(body.data)), len(body.data)]:
        while wanted is not None and wanted <= end:
            cut = copy.deepcopy(meter)
            cut.receive(body.data[start:wanted], 1)
            cut.finish()
            yield wanted, cut, seen_by(cut)
            wanted = next(places, None)
        meter.receive(body.data[start:end], 1)
        meter.read()
        _forget_texts(meter)
        start = end


def _forget_texts(meter: Meter) -> None:
    """Keep their size, not the texts: a copy is cheap then."""
    meter._texts.clear()


def places_to_cut(data: bytes) -> list[int]:
    """Every byte with LASTCHUNK_TEST_ALL, else a sample with the last kilobyte's in it."""
    if not ALL:
        count = min(len(data), PLACES_IN_A_RUN)
        tail = range(max(0, len(data) - 700), len(data) + 1, 7)
        return sorted({*random.Random(SEED).sample(range(len(data)), count), *tail})
    places: set[int] = set()
    start = 0
    for end in [*(found.end() for found in _BOUNDARY.finditer(data)), len(data)]:
        size = end - start
        step = 1 if size <= EVERY_BYTE_UP_TO else max(1, size // PLACES_IN_A_FRAME)
        places.update(range(start, end + 1, step), range(max(start, end - 64), end + 1))
        start = end
    return sorted(places)


def without_usage_frames(data: bytes) -> bytes:
    """What a caller is to see who did not ask for usage: judged frame by frame, by parsing."""
    kept, start = [], 0
    for end in [*(found.end() for found in _BOUNDARY.finditer(data)), len(data)]:
        frame, start = data[start:end], end
        blank = frame[: len(frame) - len(frame.lstrip(b"\r\n"))]
        kept.append(blank if _is_usage_only(frame) else frame)
    return b"".join(kept)


def _is_usage_only(frame: bytes) -> bool:
    lines = re.split(rb"\r\n|\n|\r", frame)
    data = b"\n".join(line[5:] for line in lines if line.startswith(b"data:"))
    try:
        chunk = json.loads(data)
    except ValueError:
        return False
    return (
        isinstance(chunk, dict)
        and chunk.get("choices") == []
        and isinstance(chunk.get("usage"), dict)
    )


def hidden(pieces: Iterable[bytes]) -> bytes:
    hider = UsageFrameHider()
    return b"".join([*(hider.feed(piece) for piece in pieces), hider.rest()])
