"""The meter: odd bodies, lies about them, and limits."""

from __future__ import annotations

import gzip
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.meter import meter as limits
from lastchunk.meter.meter import Meter
from lastchunk.meter.phases import Phase
from lastchunk.simulator import Script, draw_script, render
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest

SSE = "text/event-stream"
ASKED = {
    "model": "gpt-4o",
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [{"role": "user", "content": "hi"}],
}
BODY = render(Script(), ASKED).body


def new_meter(*, stream: bool = True, choices: int = 1, dialect: Dialect = Dialect.CHAT) -> Meter:
    request = CallRequest(dialect, "gpt-4o", stream, True, "h", 10, choices=choices)
    return Meter(request)


def read(meter: Meter, *pieces: bytes) -> Meter:
    for piece in pieces:
        meter.receive(piece, 5)
    meter.finish()
    return meter


def chunk(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def said(text: str, choice: int = 0, **fields: object) -> bytes:
    return chunk(choices=[{"index": choice, "delta": {"content": text}, **fields}])


def finish(choice: int = 0, **fields: object) -> bytes:
    return chunk(choices=[{"index": choice, "delta": {}, "finish_reason": "stop"}], **fields)


def usage(tokens: int) -> dict[str, object]:
    return {"usage": {"prompt_tokens": 1, "completion_tokens": tokens}}


@pytest.mark.parametrize("kind", [SSE, "Text/Event-Stream; charset=utf-8", "text/plain", None])
def test_a_stream_is_read_under_any_content_type(kind):
    meter = new_meter()
    meter.headed(200, kind, None)
    assert read(meter, BODY).observe(9).reported_is_final


def test_a_stream_under_json_as_content_type_is_read_at_its_end():
    meter = new_meter()
    meter.headed(200, "application/json", None)
    assert read(meter, BODY[:100], BODY[100:]).observe(9).phase is Phase.TERMINATED


def test_an_answer_in_one_piece_to_a_stream_request_is_read():
    whole = render(Script(), {**ASKED, "stream": False}).body
    meter = new_meter()
    meter.headed(200, None, None)
    seen = read(meter, whole[:7], whole[7:]).observe(9)
    assert seen.phase is Phase.TERMINATED
    assert seen.reported is not None


@pytest.mark.parametrize("encoding", ["gzip", "br", "no-such"])
def test_a_lie_about_the_encoding_costs_the_basis_and_is_noted(encoding):
    meter = new_meter()
    meter.headed(200, SSE, encoding)
    seen = read(meter, BODY[:50], BODY[50:]).observe(9)
    assert seen.faults == ("undecodable_encoding",)
    assert seen.bytes == len(BODY)
    assert seen.phase is Phase.SENT


def test_gzip_is_undone_on_a_copy():
    packed = gzip.compress(BODY)
    meter = new_meter()
    meter.headed(200, SSE, "gzip")
    pieces = [packed[i : i + 11] for i in range(0, len(packed), 11)]
    seen = read(meter, *pieces).observe(9)
    assert seen.phase is Phase.TERMINATED
    assert seen.bytes == len(packed)


def test_garbage_between_frames_is_counted_as_unreadable_and_passed_over():
    meter = new_meter()
    meter.headed(200, SSE, None)
    seen = read(meter, said("a"), b"data: {half\n\n", b"data: \xff\xfe\n\n", said("b")).observe(9)
    assert seen.unreadable == 2
    assert [text.text for text in meter.take_texts()] == ["a", "b"]


def test_a_frame_cut_short_at_the_end_is_nobodys_fault():
    meter = new_meter()
    meter.headed(200, SSE, None)
    assert read(meter, said("a"), said("b")[:20]).observe(9).unreadable == 0


def test_a_finish_of_one_choice_of_two_is_no_finish():
    meter = new_meter(choices=2)
    meter.headed(200, SSE, None)
    meter.receive(said("a") + said("b", 1) + finish(0), 1)
    assert not meter.awaits_usage
    meter.receive(finish(1), 2)
    assert meter.awaits_usage


def test_running_usage_is_final_only_when_all_has_finished():
    meter = new_meter()
    meter.headed(200, SSE, None)
    meter.receive(chunk(choices=[{"index": 0, "delta": {"content": "a"}}], **usage(1)), 1)
    meter.read()
    assert not meter.observe(1).reported_is_final
    meter.receive(finish(**usage(7)), 2)
    seen = meter.observe(2)
    assert (seen.reported_is_final, seen.reported.output_tokens) == (True, 7)
    assert not meter.is_conclusive  # some servers correct it in a chunk of its own


def test_usage_told_again_replaces_and_never_adds():
    meter = new_meter()
    meter.headed(200, SSE, None)
    seen = read(meter, said("a"), finish(**usage(7)), chunk(choices=[], **usage(8))).observe(3)
    assert seen.reported.output_tokens == 8


@pytest.mark.parametrize("whole", [True, False])
def test_a_usage_chunk_before_the_finish_concludes_nothing(whole):
    """A server may tell running usage in chunks of its own."""
    meter = new_meter()
    meter.headed(200, SSE, None)
    pieces = [said("a"), chunk(choices=[], **usage(1)), said("b"), finish()]
    for piece in [b"".join(pieces)] if whole else pieces:
        meter.receive(piece, 1)
        assert not meter.is_conclusive
    meter.receive(chunk(choices=[], **usage(2)), 2)
    assert meter.is_conclusive
    assert meter.observe(2).reported.output_tokens == 2


def test_text_after_usage_takes_its_finality_back():
    meter = new_meter()
    meter.headed(200, SSE, None)
    seen = read(meter, said("a"), chunk(choices=[], **usage(1)), said("b")).observe(3)
    assert not seen.reported_is_final
    assert seen.phase is Phase.STREAMING


def test_an_id_is_kept_as_first_given_and_a_model_as_last():
    meter = new_meter()
    meter.headed(200, SSE, None)
    read(meter, chunk(id="", model="", choices=[]), chunk(id="a", model="m1", choices=[]))
    seen = new_meter()
    seen.headed(200, SSE, None)
    read(seen, chunk(id="a", model="m1", choices=[]), chunk(id="b", model="m2", choices=[]))
    assert (meter.observe(1).response_id, meter.observe(1).model_served) == ("a", "m1")
    assert (seen.observe(1).response_id, seen.observe(1).model_served) == ("a", "m2")


def test_output_beyond_the_limit_is_measured_not_kept(monkeypatch):
    monkeypatch.setattr(limits, "KEPT_CHARS_LIMIT", 10)
    meter = new_meter()
    meter.headed(200, SSE, None)
    seen = read(meter, said("12345678"), said("abcd"), said("xy")).observe(1)
    assert seen.uncounted_chars == 4
    assert [text.text for text in meter.take_texts()] == ["12345678", "xy"]


def test_of_an_answer_beyond_the_limit_the_end_is_kept(monkeypatch):
    monkeypatch.setattr(limits, "BODY_BYTES_LIMIT", 1000)
    monkeypatch.setattr(limits, "UNREAD_BYTES_LIMIT", 100)
    meter = new_meter(stream=False)
    meter.headed(200, "application/json", None)
    for _ in range(50):
        meter.receive(b"x" * 100, 1)
        assert meter.backlog <= 1100
    meter.finish()
    assert meter.observe(1).faults == ("body_over_limit",)


def test_reading_twice_changes_nothing():
    meter = new_meter()
    meter.headed(200, SSE, None)
    read(meter, BODY)
    before = meter.observe(9)
    meter.finish()
    meter.read()
    assert meter.observe(9) == before


@given(st.lists(st.binary(max_size=40), max_size=8), st.sampled_from(Dialect), st.booleans())
def test_no_bytes_raise(pieces, dialect, stream):
    meter = new_meter(stream=stream, dialect=dialect)
    meter.headed(200, SSE if stream else "application/json", None)
    seen = read(meter, *pieces).observe(1)
    assert seen.bytes == sum(map(len, pieces))


@given(st.integers(0, 400), st.lists(st.integers(0, 60_000), max_size=5))
def test_when_it_is_read_does_not_matter(number, places):
    """Asking for what is known in between leads to the same account as asking at the end."""
    body = render(draw_script(11, number), ASKED).body
    marks = sorted({min(place, len(body)) for place in places} | {0, len(body)})
    lazy, eager = new_meter(), new_meter()
    for meter in (lazy, eager):
        meter.headed(200, SSE, None)
        for start, end in itertools.pairwise(marks):
            meter.receive(body[start:end], 1)
            if meter is eager:
                meter.read()
        meter.finish()
        meter.read()  # of a settled account the rest is left unread
    assert lazy.observe(2) == eager.observe(2)
    assert lazy.take_texts() == eager.take_texts()


@pytest.mark.parametrize("size", [1, 7, 16, 61, 200])
def test_the_finish_is_seen_as_soon_as_its_frame_is_whole_however_it_is_cut(size):
    meter = new_meter()
    meter.headed(200, SSE, None)
    frame = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    body = said("a") + said("b") + frame
    for start in range(0, len(body), size):
        meter.receive(body[start : start + size], 5)
    assert meter.awaits_usage


@pytest.mark.parametrize("size", [1, 7, 16, 61, 200])
def test_a_call_is_settled_by_its_usage_however_it_is_cut(size):
    meter = new_meter()
    meter.headed(200, SSE, None)
    finish = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    body = said("a") + said("b") + finish + chunk(choices=[], **usage(2))
    for start in range(0, len(body), size):
        meter.receive(body[start : start + size], 5)
    assert meter.is_conclusive
