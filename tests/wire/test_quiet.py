"""A quiet piece is one that nobody who looks closer would find anything in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.meter.meter import Meter
from lastchunk.meter.phases import Phase
from lastchunk.simulator import Script, render
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.hide import UsageFrameHider
from lastchunk.wire.hide_running import RunningUsageHider
from lastchunk.wire.quiet import is_quiet
from lastchunk.wire.request import read_request

ASKED = {"model": "gpt-4o", "stream": True, "stream_options": {"include_usage": True}}


def frame(**members: object) -> bytes:
    return f"data: {json.dumps(members)}\n\n".encode()


def test_all_but_the_ends_of_a_stream_is_quiet() -> None:
    frames = render(Script(output_tokens=30), {**ASKED, "messages": []}).frames
    assert [is_quiet(one) for one in frames] == [True] * (len(frames) - 3) + [False] * 3


@pytest.mark.parametrize(
    "piece",
    [
        b'data: {"usage":{"total_tokens":1}}\n\n',
        b'data: {"usage" : {"total_tokens":1}}\n\n',
        b'data: {"usage":null}\n\ndata: {"usage": {"total_tokens":1}}\n\n',
        b'data: {"usage":{"total_tokens":1}}\n\ndata: {"usage":null}\n\n',
        b'data: {"choices":[{"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"finish_reason": "stop"}]}\n\ndata: {"finish_reason":null}\n\n',
        b"data: [DONE]\n\n",
        b'data: {"choices":[]}\n',
        b"data: {",
        b"",
    ],
)
def test_what_somebody_must_look_at_is_not(piece: bytes) -> None:
    assert not is_quiet(piece)


texts = st.text(st.sampled_from('ausge":{}[]\\ \nDONE'), max_size=40)
values = st.sampled_from([None, None, None, {}, {"total_tokens": 3}])
finishes = st.sampled_from([None, None, None, "stop"])


@given(st.lists(st.tuples(texts, values, finishes), min_size=1, max_size=3))
def test_hiders_and_the_meter_find_nothing_in_a_quiet_piece(
    told: list[tuple[str, object, str | None]],
) -> None:
    piece = b"".join(
        frame(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": end}], usage=usage)
        for text, usage, end in told
    )
    for hider in (UsageFrameHider(), RunningUsageHider(caller_asked=False)):
        if is_quiet(piece):
            assert hider.feed(piece) == piece
            assert hider.is_between_frames
    request = read_request(Dialect.CHAT, ASKED, upstream="api.openai.com", body_bytes=0)
    meter = Meter(request)
    meter.headed(200, "text/event-stream", None)
    meter.receive(piece, 0)
    meter.finish()
    if is_quiet(piece):
        assert meter.observe(0).phase <= Phase.STREAMING
    else:
        assert any(usage is not None or end for _, usage, end in told)
