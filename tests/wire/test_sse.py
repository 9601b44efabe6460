"""Server-sent events: the same frames for every cutting, every newline, and odd lines."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lastchunk.wire.sse import MAX_FRAME_BYTES, Frame, Oversized, SseReader

NEWLINES = (b"\n", b"\r\n", b"\r")
LINES = st.one_of(
    st.sampled_from(
        [b"", b"data", b"data:", b"data: ", b":", b": ping", b"id: 7", b"retry: 9", b"event: error"]
    ),
    st.binary(max_size=12).map(lambda raw: b"data: " + raw.translate(None, b"\r\n")),
    st.binary(max_size=12).map(lambda raw: b"data:" + raw.translate(None, b"\r\n")),
    st.binary(max_size=12).map(lambda raw: raw.translate(None, b"\r\n")),
)
BODIES = st.lists(st.tuples(LINES, st.sampled_from(NEWLINES)), max_size=30).map(
    lambda lines: b"".join(line + newline for line, newline in lines)
)


def by_the_standard(body: bytes) -> list[Frame]:
    """Line by line, as the HTML standard words it; the last event needs no blank line."""
    body = body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    frames, name, data = [], b"", []
    for line in [*body.split(b"\n"), b""]:
        if not line:
            if data:
                frames.append(Frame(name, b"\n".join(data)))
            name, data = b"", []
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return frames


def read(pieces: list[bytes]) -> list[Frame | Oversized]:
    reader = SseReader()
    found = [frame for piece in pieces for frame in reader.feed(piece)]
    rest = reader.rest()
    return found if rest is None else [*found, rest]


def cut(body: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({min(place, len(body)) for place in places} | {0, len(body)})
    return [body[start:end] for start, end in itertools.pairwise(marks)]


@given(BODIES, st.lists(st.integers(0, 400), max_size=12), st.booleans())
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10, 11], False)
@example(b"data: a\r\rdata: b\r", [8, 9], True)
@example(b"data: one\ndata: two\n\n", [3], True)
@example(b"\n\n\ndata: x\n\n\n\ndata: y", [1, 2], False)
def test_any_cutting_gives_the_frames_of_the_standard(body, places, marked):
    body = b"\xef\xbb\xbf" + body if marked else body
    wanted = by_the_standard(body)
    assert read([body]) == wanted
    assert read(cut(body, places)) == wanted
    assert read([body[i : i + 1] for i in range(len(body))]) == wanted


@pytest.mark.parametrize("newline", NEWLINES)
def test_a_frame_is_given_as_soon_as_its_blank_line_is_there(newline):
    reader = SseReader()
    assert reader.feed(b"data: 1" + newline) == []
    given_now = reader.feed(newline)
    if newline == b"\n":
        assert given_now == [Frame(b"", b"1")]
    else:  # the last CR may be half of a CRLF: it waits for the next byte
        assert given_now + reader.feed(b"d") == [Frame(b"", b"1")]


def test_a_frame_over_the_limit_is_dropped_and_the_next_one_read():
    reader = SseReader()
    piece = b"data: " + b"x" * (MAX_FRAME_BYTES // 8)
    found = []
    for _ in range(10):
        found += reader.feed(piece)
        assert len(reader._tail) <= MAX_FRAME_BYTES
    found += reader.feed(b"\n\ndata: next\n\n")
    assert found == [Oversized(10 * len(piece)), Frame(b"", b"next")]
    assert reader.rest() is None
