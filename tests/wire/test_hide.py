"""The hidden frame: exactly the usage chunk is taken out, for every cutting, and nothing else."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lastchunk.wire.hide import HELD_BYTES_LIMIT, UsageFrameHider

USAGE = (
    b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
    b'data: {"usage" : {"prompt_tokens":3}, "choices" : [ ]}',
    b'event: message\nid: 4\ndata: {"choices":[],"usage":{"total_tokens":1}}',
    b'data:{"choices":[],"usage":{"total_tokens":1},"obfuscation":"aB"}',
)
OTHERS = (
    b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}],"usage":null}',
    b'data: {"choices":[],"prompt_filter_results":[]}',
    b'data: {"choices":[],"usage":null}',
    b'data: {"choices":[{"index":0,"usage":{"prompt_tokens":3}}],"usage":{"prompt_tokens":3}}',
    b'data: {"choices":[{"delta":{"content":"\\"usage\\":{ \\"choices\\":[]"}}]}',
    b'data: {"choices":[{"delta":{"tool":{"choices":[],"usage":{}}}}]}',
    b"data: [DONE]",
    b": keep-alive",
    b"",
    b'data: {"choices":[],"usage":{',
    b'{"choices":[],"usage":{"prompt_tokens":3}}',
)
NEWLINES = (b"\n", b"\r\n", b"\r")


def hidden(pieces: list[bytes]) -> bytes:
    hider = UsageFrameHider()
    return b"".join([*(hider.feed(piece) for piece in pieces), hider.rest()])


def framed(frame: bytes, newline: bytes) -> bytes:
    return frame.replace(b"\n", newline) + 2 * newline


@given(
    st.lists(st.sampled_from((*USAGE, *OTHERS)), max_size=12),
    st.sampled_from(NEWLINES),
    st.lists(st.integers(0, 900), max_size=10),
)
@example([USAGE[0], OTHERS[6]], b"\r\n", [82, 83, 84])
def test_exactly_the_usage_frames_are_taken_out(frames, newline, places):
    body = b"".join(framed(frame, newline) for frame in frames)
    wanted = b"".join(framed(frame, newline) for frame in frames if frame not in USAGE)
    marks = sorted({min(place, len(body)) for place in places} | {0, len(body)})
    pieces = [body[a:b] for a, b in itertools.pairwise(marks)]
    assert hidden([body]) == wanted
    assert hidden(pieces) == wanted
    assert hidden([body[i : i + 1] for i in range(len(body))]) == wanted


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("newline", NEWLINES)
def test_blank_lines_around_the_hidden_frame_are_the_providers(newline, size):
    blank = 3 * newline
    body = framed(OTHERS[0], newline) + blank + framed(USAGE[0], newline) + blank + OTHERS[6]
    wanted = framed(OTHERS[0], newline) + blank + blank + OTHERS[6]
    assert hidden([body[i : i + size] for i in range(0, len(body), size)]) == wanted


@given(st.binary(max_size=300), st.integers(1, 9))
def test_what_is_no_stream_passes_untouched(body, size):
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    assert hidden(pieces) == body


@pytest.mark.parametrize("usage", USAGE)
@pytest.mark.parametrize("newline", NEWLINES)
def test_a_body_that_breaks_off_shows_what_came_or_leaves_out_the_last_frame(usage, newline):
    """Cut anywhere, the caller gets what came, less the usage frame or its recognised beginning."""
    said = framed(OTHERS[0], newline)
    body = said + framed(usage, newline)
    for end in range(len(said), len(body) + 1):
        shown = hidden([body[:end]])
        assert shown in (said, body[:end])


def test_a_frame_is_shown_as_soon_as_it_is_whole():
    hider = UsageFrameHider()
    frame = OTHERS[0] + b"\n\n"
    assert hider.feed(frame[:30]) == b""
    assert hider.feed(frame[30:]) == frame


def test_a_frame_beyond_the_limit_is_passed_on_as_it_comes():
    hider = UsageFrameHider()
    long = b"data: " + b"x" * HELD_BYTES_LIMIT
    assert hider.feed(long) == long
    assert hider.feed(b"yy") == b"yy"
    assert hider.feed(b"\n\n" + framed(USAGE[0], b"\n")) == b"\n\n"


def test_a_long_frame_in_single_bytes_does_not_take_quadratic_time():
    frame = b"data: " + b"x" * (HELD_BYTES_LIMIT - 100) + b"\n\n"
    began = time.process_time()
    assert hidden([frame[i : i + 1] for i in range(len(frame))]) == frame
    assert time.process_time() - began < 2.0  # it was 8 s when each byte scanned all before it
