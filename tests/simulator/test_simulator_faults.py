"""Faults as pure data: what is left of a body."""

from typing import Any, get_args

import pytest
from sim_http import CHAT, RESPONSES, events

from lastchunk.simulator import Fault, Rendered, Script, render
from lastchunk.simulator.script import FaultKind


def chat(kind: FaultKind, at: int | str = "mid", **more: Any) -> Rendered:
    return render(Script(output_tokens=20, fault=Fault(kind, at=at), **more), CHAT)


def responses(kind: FaultKind, at: int | str = "mid") -> Rendered:
    script = Script(output_tokens=20, fault=Fault(kind, at=at))
    return render(script, RESPONSES, endpoint="responses")


def delivered(rendered: Rendered) -> int:
    return rendered.billed_at(len(rendered.body)).delivered_tokens


@pytest.mark.parametrize(
    ("at", "tokens"),
    [
        (0, 0),
        ("headers", 0),
        ("first_chunk", 1),
        ("tokens:7", 7),
        ("mid", 10),
        ("mid_frame", 10),
        ("after_finish", 20),
        ("after_usage", 20),
        ("after_done", 20),
        (10**9, 20),
    ],
)
def test_a_cut_strikes_where_it_was_told_to(at: int | str, tokens: int) -> None:
    assert delivered(chat("eof", at)) == tokens
    assert delivered(responses("eof", at)) == tokens


def test_a_byte_offset_cuts_at_that_byte() -> None:
    whole = render(Script(output_tokens=20), CHAT).body
    for at in range(0, len(whole), 31):
        assert chat("rst", at).body == whole[:at]


def test_after_finish_and_after_usage_differ_by_the_usage_chunk() -> None:
    finish, usage, done = (chat("eof", at) for at in ("after_finish", "after_usage", "after_done"))
    assert events(finish.body)[-1]["choices"][0]["finish_reason"] == "stop"
    assert events(usage.body)[-1]["usage"]["completion_tokens"] == 20
    assert b"[DONE]" not in usage.body
    assert done.body.endswith(b"[DONE]\n\n")
    assert not finish.billed_at(len(finish.body)).usage_sent
    assert usage.billed_at(len(usage.body)).usage_sent


def test_a_response_after_finish_lacks_only_its_terminal_event() -> None:
    assert events(responses("eof", "after_finish").body)[-1]["type"] == "response.output_item.done"
    assert events(responses("eof", "after_usage").body)[-1]["type"] == "response.completed"


@pytest.mark.parametrize("kind", ["fin", "eof", "rst", "stall"])
def test_a_cut_is_a_fault_in_the_bill_but_not_after_the_end(kind: FaultKind) -> None:
    cut, late = chat(kind), chat(kind, "after_done")
    assert cut.billed_at(len(cut.body)).ended == f"fault:{kind}"
    assert late.billed_at(len(late.body)).ended == "completed"


def test_an_error_comes_inside_the_stream() -> None:
    last = events(chat("error_event").body)[-1]
    assert last["error"]["type"] == "server_error"
    assert b"[DONE]" not in chat("error_event").body
    told = events(responses("error_event").body)
    assert (told[-1]["type"], "error" in told[-1]) == ("error", False)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))


def test_a_failed_response_says_so_and_tells_no_usage() -> None:
    last = events(responses("response_failed").body)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["usage"] is None


def test_garbage_breaks_one_frame_and_the_rest_goes_on() -> None:
    clean, broken = render(Script(output_tokens=20), CHAT), chat("garbage")
    assert len(broken.frames) == len(clean.frames) + 1
    assert broken.frames[-1] == clean.frames[-1]
    assert broken.billed_at(len(broken.body)).ended == "completed"


def test_no_done_leaves_out_the_terminator() -> None:
    assert b"[DONE]" not in chat("no_done").body
    assert "usage" in events(chat("no_done").body)[-1]
    assert events(responses("no_done").body)[-1]["type"] == "response.output_item.done"


def test_no_usage_leaves_out_the_usage_but_not_the_end() -> None:
    body = chat("no_usage")
    assert not any(event["usage"] for event in events(body.body))
    assert body.body.endswith(b"[DONE]\n\n")
    assert events(responses("no_usage").body)[-1]["response"]["usage"] is None
    assert body.billed_at(len(body.body)).usage["completion_tokens"] == 20


@pytest.mark.parametrize("kind", get_args(FaultKind))
def test_every_fault_can_strike_an_answer_in_one_piece(kind: FaultKind) -> None:
    for at in ("headers", "first_chunk", "mid", "mid_frame", "after_done", "tokens:3", 40):
        script = Script(fault=Fault(kind, at=at))
        body = render(script, {**CHAT, "stream": False})
        assert body.billed_at(len(body.body)).output_tokens == 40


def test_faults_of_events_do_not_touch_an_answer_in_one_piece() -> None:
    whole = {**CHAT, "stream": False}
    clean = render(Script(), whole).body
    for kind in ("error_event", "response_failed", "garbage", "no_done"):
        assert render(Script(fault=Fault(kind)), whole).body == clean  # type: ignore[arg-type]
