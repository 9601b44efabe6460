"""Streams that their caller leaves: counted from what arrived, unless the bytes held the end."""

from __future__ import annotations

import pytest
from story import (
    CHAT,
    COMPLETIONS,
    LEFT,
    LEFT_ASSUMED,
    RESPONSES,
    SOCKETS,
    TIMED_OUT,
    Leave,
    Story,
    asking,
    played,
    stalled,
)
from story_judge import judge

MID = stalled("mid")
IN_PROCESS = ("sync", "async")


def left(claim: str, trap: str, leave: Leave, script=MID, request=CHAT, **fields) -> Story:
    return Story(claim, trap, request, script, leave, **{"rows": (LEFT,), **fields})


COUNTED = (
    left("closed", "W25", Leave.CLOSE),
    left("closed_by_one_who_asked_for_usage", "W25", Leave.CLOSE, request=asking(CHAT)),
    left("a_response_closed", "W25", Leave.CLOSE, request=RESPONSES),
    left("a_completion_closed", "W25", Leave.CLOSE, request=COMPLETIONS),
    left("dropped_and_collected", "W25", Leave.DROP, stages=SOCKETS),
    left("a_response_dropped", "W25", Leave.DROP, request=RESPONSES, stages=SOCKETS),
    left("an_exception_in_the_with_block", "W26", Leave.RAISE, stages=SOCKETS),
    left("task_cancelled", "W26", Leave.CANCEL, stages=("async",)),
    left(
        "a_response_whose_task_is_cancelled",
        "W26",
        Leave.CANCEL,
        request=RESPONSES,
        stages=("async",),
    ),
    left("over_its_deadline", "W26", Leave.DEADLINE, stages=("async",)),
    left("in_the_middle_of_a_frame", "W14", Leave.CLOSE, stalled("mid_frame")),
    left("after_one_token", "W18", Leave.CLOSE, stalled("tokens:1")),
    left("after_the_first_chunk", "W18", Leave.CLOSE, stalled("first_chunk")),
    left("crlf", "W13", Leave.CLOSE, stalled("mid", framing="crlf")),
    left("gzip", "W28", Leave.CLOSE, stalled("mid", gzip="forced")),
    left("gzip_of_a_response", "W28", Leave.CLOSE, stalled("mid", gzip="forced"), RESPONSES),
    left("azure", "W2", Leave.CLOSE, stalled("mid", azure=True, azure_async_filter=True)),
    left("comments", "W9", Leave.CLOSE, stalled("mid", keep_alive_every=1)),
    left("finished_but_usage_never_comes", "W23", Leave.CLOSE, stalled("after_finish")),
    left("finished_and_cancelled", "W23", Leave.CANCEL, stalled("after_finish"), stages=("async",)),
    left("a_completion_finished", "W23", Leave.CLOSE, stalled("after_finish"), COMPLETIONS),
    left(
        "a_response_all_but_its_terminal_event",
        "W23",
        Leave.CLOSE,
        stalled("after_finish"),
        RESPONSES,
    ),
)


@pytest.mark.parametrize(("story", "stage"), played(*COUNTED))
def test_a_call_cut_before_its_usage_chunk_is_counted(story, stage, play):
    judge(story, stage, play(story, stage))


CONCLUDED = (
    Story("after_the_usage_frame", "W12", script=stalled("after_usage"), leave=Leave.CLOSE),
    Story("after_the_usage_it_asked_for", "W12", asking(CHAT), stalled("after_usage"), Leave.CLOSE),
    Story("after_done", "W12", script=stalled("after_done"), leave=Leave.CLOSE),
    Story("after_a_terminal_event", "W12", RESPONSES, stalled("after_done"), Leave.CLOSE),
    Story(
        "cancelled_after_the_usage_frame",
        "W12",
        script=stalled("after_usage"),
        leave=Leave.CANCEL,
        stages=("async",),
    ),
    Story(
        "dropped_after_the_usage_frame",
        "W12",
        asking(CHAT),
        stalled("after_usage"),
        Leave.DROP,
        stages=SOCKETS,
    ),
    Story(
        "dropped_after_a_terminal_event",
        "W12",
        RESPONSES,
        stalled("after_usage"),
        Leave.DROP,
        stages=SOCKETS,
    ),
    Story(
        "usage_on_the_finish_chunk_and_no_more",
        "W4",
        script=stalled("after_finish", usage_style="on_finish_chunk"),
        leave=Leave.CLOSE,
    ),
    Story("held_open_for_minutes", "W12", script=stalled("after_done"), leave=Leave.AT_END),
)


@pytest.mark.parametrize(("story", "stage"), played(*CONCLUDED))
def test_who_leaves_after_the_end_was_seen_has_completed(story, stage, play):
    judge(story, stage, play(story, stage))


UNSEEN = (
    left(
        "never_iterated",
        "W25",
        Leave.NEVER,
        stalled("headers"),
        rows=(LEFT_ASSUMED,),
        stages=IN_PROCESS,
    ),
    left("before_any_byte", "W17", Leave.CLOSE, stalled("headers"), rows=(LEFT_ASSUMED,)),
    left(
        "a_response_before_any_token",
        "W17",
        Leave.CLOSE,
        stalled(900),
        RESPONSES,
        rows=(LEFT_ASSUMED,),
    ),
)


@pytest.mark.parametrize(("story", "stage"), played(*UNSEEN))
def test_a_call_of_which_no_token_was_seen_is_not_free(story, stage, play):
    played_out = play(story, stage)
    judge(story, stage, played_out)
    usage = played_out.accounts[0].settlement.usage
    assert usage.output_tokens.high > 0
    assert usage.input_tokens.best > 0


SILENT = (
    left(
        "chat",
        "W11",
        Leave.TIMEOUT,
        rows=(TIMED_OUT,),
        on={"gateway": (LEFT,)},
        error="APITimeoutError",
    ),
    left(
        "response",
        "W11",
        Leave.TIMEOUT,
        request=RESPONSES,
        rows=(TIMED_OUT,),
        on={"gateway": (LEFT,)},
        error="APITimeoutError",
    ),
)


@pytest.mark.parametrize(("story", "stage"), played(*SILENT))
def test_a_stall_until_the_callers_timeout_is_counted(story, stage, play):
    """Behind the gateway the caller's timeout is seen as what it is there: the caller hangs up."""
    judge(story, stage, play(story, stage))
