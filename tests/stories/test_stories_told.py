"""Bodies that no script can tell: usage that comes late, odd frames, odd cuts."""

from __future__ import annotations

import json

import pytest
from story import CHAT, COMPLETIONS, FAILED, SOCKETS, Leave, Story, asking, played
from story_judge import judge
from story_tape import Tape

from lastchunk.simulator import Rendered, Script

LATE_SECONDS = 0.15


def frames_of(rendered: Rendered) -> tuple[list[bytes], bytes, bytes]:
    """All up to the finish, the usage chunk, and the end."""
    *said, usage, done = rendered.frames
    assert b'"usage":{' in usage
    return said, usage, done


def late(rendered: Rendered) -> Tape:
    said, usage, done = frames_of(rendered)
    return Tape([*said, LATE_SECONDS, usage, done])


def late_in_two(rendered: Rendered) -> Tape:
    said, usage, done = frames_of(rendered)
    return Tape([b"".join(said), LATE_SECONDS, usage[:40], LATE_SECONDS, usage[40:], 0.1, done])


def changed_usage(rendered: Rendered, **fields: object) -> Tape:
    said, usage, done = frames_of(rendered)
    chunk = {**json.loads(usage[5:]), **fields}
    return Tape([*said, b"data: " + json.dumps(chunk).encode() + b"\n\n", done])


def second_finish(rendered: Rendered) -> Tape:
    again = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    return changed_usage(rendered, choices=[again])


def open_choice(rendered: Rendered) -> Tape:
    empty = {"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": None}
    return changed_usage(rendered, choices=[empty])


def running_chunks(rendered: Rendered) -> Tape:
    """Usage so far, in chunks without choices, while the text goes on."""
    said, usage, done = frames_of(rendered)
    early = json.loads(usage[5:])
    early["usage"] = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    told = b"data: " + json.dumps(early).encode() + b"\n\n"
    return Tape([*said[:9], told, LATE_SECONDS, *said[9:], usage, done])


def no_id(rendered: Rendered) -> Tape:
    return changed_usage(rendered, id="")


def lone_cr(rendered: Rendered) -> Tape:
    return Tape([frame.replace(b"\n", b"\r") for frame in rendered.frames])


def split_crlf(rendered: Rendered) -> Tape:
    """Every read ends between a CR and its LF."""
    body = b"".join(rendered.frames).replace(b"\n", b"\r\n")
    pieces = [piece + b"\r" for piece in body.split(b"\r")]
    return Tape([*pieces[:-1], pieces[-1][:-1]])


def blank_lines(rendered: Rendered) -> Tape:
    said, usage, done = frames_of(rendered)
    return Tape([*said, b"\n\n\n", b": ping\n\n", usage, b"\n", done])


def named_events(rendered: Rendered) -> Tape:
    return Tape([b"event: message\nid: 7\n" + frame for frame in rendered.frames])


def byte_order_mark(rendered: Rendered) -> Tape:
    return Tape([b"\xef\xbb\xbf" + rendered.frames[0], *rendered.frames[1:]])


def plain_text(rendered: Rendered) -> Tape:
    return Tape(rendered.frames, content_type="text/plain; charset=utf-8")


def no_type(rendered: Rendered) -> Tape:
    return Tape(rendered.frames, content_type=None)


def told(claim: str, trap: str, retold, request=CHAT, leave=Leave.AT_END, **fields) -> Story:
    return Story(
        claim, trap, request, fields.pop("script", Script()), leave, retold=retold, **fields
    )


GRACE = (
    told("closed_at_the_finish", "W23", late, leave=Leave.CLOSE),
    told("closed_in_the_with_block", "W23", late, leave=Leave.RAISE),
    told("a_completion_closed_at_the_finish", "W23", late, COMPLETIONS, Leave.CLOSE),
    told("cancelled_at_the_finish", "W26", late, leave=Leave.CANCEL, stages=("async",)),
    told("dropped_at_the_finish", "W25", late, leave=Leave.DROP, stages=SOCKETS),
    told("usage_in_two_pieces", "W14", late_in_two, leave=Leave.CLOSE),
    told("several_choices", "W15", late, {**CHAT, "n": 2}, Leave.CLOSE),
)


@pytest.mark.parametrize(("story", "stage"), played(*GRACE))
def test_a_grace_read_gets_the_usage_that_the_caller_did_not_wait_for(story, stage, play):
    judge(story, stage, play(story, stage))


ODD = (
    told("read_on_to_the_late_usage", "W1", late),
    told("read_on_by_one_who_asked", "W1", late, asking(CHAT)),
    told("two_finish_chunks", "W4", second_finish),
    told("usage_with_an_open_choice", "W4", open_choice),
    told("usage_chunks_before_the_end", "W6", running_chunks),
    told("no_id_on_the_usage_chunk", "W22", no_id),
    told("lone_carriage_returns", "W13", lone_cr),
    told("cr_and_lf_in_different_reads", "W13", split_crlf),
    told("blank_lines_between_finish_and_usage", "W9", blank_lines),
    told("events_with_names_and_ids", "W13", named_events),
    told("plain_text_as_content_type", "W28", plain_text),
    told("no_content_type", "W28", no_type),
)


@pytest.mark.parametrize(("story", "stage"), played(*ODD))
def test_oddly_told_usage_is_the_account(story, stage, play):
    judge(story, stage, play(story, stage))


def failing(payload: bytes):
    """Half of the answer, then an error in the shape of some server."""

    def retold(rendered: Rendered) -> Tape:
        half = rendered.frames[: len(rendered.frames) // 2]
        return Tape([*half, payload])

    return retold


ERRORS = (
    told("beside_empty_choices", "W10", failing(b'data: {"error":{"code":502},"choices":[]}\n\n')),
    told("with_a_null_code", "W10", failing(b'data: {"error":{"message":"x","code":null}}\n\n')),
    told("as_a_string", "W10", failing(b'data: {"error":"overloaded"}\n\n')),
    told("as_an_event", "W10", failing(b'event: error\ndata: {"message":"x"}\n\n')),
)


@pytest.mark.parametrize(("story", "stage"), [(s, "pure") for s in ERRORS])
def test_an_error_in_any_shape_is_a_failure(story, stage, play):
    """Only the ending is judged here: the tape breaks off, and no bill knows where."""
    settlement = play(story, stage).accounts[0].settlement
    assert settlement.ending is FAILED.ending
    assert settlement.usage.output_tokens.basis is FAILED.basis
