"""Streams that the provider or the network ends: cut, failed, refused."""

from __future__ import annotations

import pytest
from story import (
    CHAT,
    COMPLETIONS,
    CUT,
    FAILED,
    REFUSED,
    REPORTED,
    RESPONSES,
    SOCKETS,
    STALL_SECONDS,
    Leave,
    Row,
    Story,
    asking,
    broken,
    plain,
    played,
)
from story_judge import judge

from lastchunk.meter.ending import Ending
from lastchunk.simulator import Script
from lastchunk.usage import Basis

NO_ANSWER = "APIConnectionError"


def cut(claim: str, kind: str, at="mid", request=CHAT, trap="W11", **fields) -> Story:
    script = broken(kind, at, **fields.pop("script", {}))
    return Story(claim, trap, request, script, **{"rows": (CUT,), **fields})


CUT_OFF = (
    cut("a_clean_close_without_done", "fin"),
    cut("a_clean_close_of_a_response", "fin", request=RESPONSES),
    cut("a_clean_close_of_a_completion", "fin", request=COMPLETIONS),
    cut("a_clean_close_in_mid_frame", "fin", "mid_frame"),
    cut("a_clean_close_after_the_finish", "fin", "after_finish"),
    cut("a_clean_close_in_gzip", "fin", trap="W28", script={"gzip": "forced"}),
    cut("the_body_is_not_whole", "eof", error=NO_ANSWER),
    cut("the_body_of_a_response_is_not_whole", "eof", request=RESPONSES, error=NO_ANSWER),
    cut(
        "the_body_in_gzip_is_not_whole",
        "eof",
        trap="W28",
        script={"gzip": "forced"},
        error=NO_ANSWER,
    ),
    cut("a_reset", "rst", error=NO_ANSWER, sees_all=False),
    cut("a_reset_of_a_response", "rst", request=RESPONSES, error=NO_ANSWER, sees_all=False),
    cut("a_reset_in_mid_frame", "rst", "mid_frame", error=NO_ANSWER, sees_all=False),
    cut("a_response_without_its_terminal_event", "no_done", request=RESPONSES),
)


@pytest.mark.parametrize(("story", "stage"), played(*CUT_OFF))
def test_a_stream_without_its_terminator_is_cut(story, stage, play):
    judge(story, stage, play(story, stage))


ENDED = (
    cut(
        "a_reset_after_usage",
        "rst",
        "after_usage",
        rows=(REPORTED,),
        error=NO_ANSWER,
        sees_all=False,
    ),
    cut("a_close_after_usage", "fin", "after_usage", rows=(REPORTED,)),
    cut("no_done_after_usage", "no_done", rows=(REPORTED,)),
    cut("no_done_of_a_completion", "no_done", request=COMPLETIONS, rows=(REPORTED,)),
)


@pytest.mark.parametrize(("story", "stage"), played(*ENDED))
def test_a_break_after_usage_costs_nothing(story, stage, play):
    judge(story, stage, play(story, stage))


FAILURES = (
    cut("in_mid_stream", "error_event", trap="W10", rows=(FAILED,), error="APIError"),
    cut(
        "for_one_who_asked_for_usage",
        "error_event",
        request=asking(CHAT),
        trap="W10",
        rows=(FAILED,),
        error="APIError",
    ),
    cut(
        "of_a_completion",
        "error_event",
        request=COMPLETIONS,
        trap="W10",
        rows=(FAILED,),
        error="APIError",
    ),
    cut("error_event_of_a_response", "error_event", request=RESPONSES, trap="W10", rows=(FAILED,)),
    cut("response_failed", "response_failed", request=RESPONSES, trap="W10", rows=(FAILED,)),
    cut(
        "in_crlf",
        "error_event",
        trap="W10",
        rows=(FAILED,),
        script={"framing": "crlf"},
        error="APIError",
    ),
)


@pytest.mark.parametrize(("story", "stage"), played(*FAILURES))
def test_an_error_in_a_stream_of_status_200_is_a_failure(story, stage, play):
    played_out = play(story, stage)
    judge(story, stage, played_out)
    output = played_out.accounts[0].settlement.usage.output_tokens
    delivered = played_out.bills[0].delivered_tokens
    assert output.low <= delivered  # W32: the error's own text is no output
    assert output.best <= delivered + played_out.bills[0].end_of_turn


REFUSALS = (
    cut("too_many_requests", "http_429", rows=(REFUSED,), stages=SOCKETS, error="RateLimitError"),
    Story(
        "no_such_model",
        "",
        {**CHAT, "model": "missing-model"},
        rows=(REFUSED,),
        stages=SOCKETS,
        error="NotFoundError",
    ),
    Story(
        "no_such_model_in_one_piece",
        "",
        plain({**CHAT, "model": "missing-model"}),
        rows=(REFUSED,),
        stages=SOCKETS,
        error="NotFoundError",
    ),
    cut(
        "of_a_response",
        "http_429",
        request=RESPONSES,
        rows=(REFUSED,),
        stages=SOCKETS,
        error="RateLimitError",
    ),
)


@pytest.mark.parametrize(("story", "stage"), played(*REFUSALS))
def test_a_refusal_is_released_at_no_cost(story, stage, play):
    judge(story, stage, play(story, stage))


SERVER_ERROR = Row(Ending.UPSTREAM_FAILED, Basis.BOUNDED)


@pytest.mark.parametrize("stage", SOCKETS)
@pytest.mark.parametrize("request_", [CHAT, RESPONSES, COMPLETIONS, plain(CHAT)])
def test_a_server_error_is_settled_and_may_have_cost_something(request_, stage, play):
    story = Story(
        "http_500",
        "",
        request_,
        broken("http_500"),
        rows=(SERVER_ERROR,),
        error="InternalServerError",
    )
    played_out = play(story, stage)
    judge(story, stage, played_out)
    usage = played_out.accounts[0].settlement.usage
    assert (usage.input_tokens.best, usage.output_tokens.best) == (0, 0)
    assert usage.input_tokens.high > 0


UNSEEN = Row(Ending.UPSTREAM_CUT, Basis.ASSUMED)
MUTE = Row(Ending.UPSTREAM_TIMEOUT, Basis.ASSUMED)
LEFT_MUTE = Row(Ending.CALLER_LEFT, Basis.ASSUMED)
SLOW = Script(first_token_delay_s=STALL_SECONDS)
IN_ONE_PIECE = (
    cut("broken_off", "eof", 60, plain(CHAT), rows=(UNSEEN,), stages=SOCKETS, error=NO_ANSWER),
    cut("a_response", "eof", 60, plain(RESPONSES), rows=(UNSEEN,), stages=SOCKETS, error=NO_ANSWER),
    Story(
        "too_slow_for_its_caller",
        "W11",
        plain(CHAT),
        SLOW,
        Leave.TIMEOUT,
        rows=(MUTE,),
        on={"gateway": (LEFT_MUTE,)},
        stages=SOCKETS,
        error="APITimeoutError",
    ),
)


@pytest.mark.parametrize(("story", "stage"), played(*IN_ONE_PIECE))
def test_an_answer_in_one_piece_that_was_not_seen_is_billed_to_its_end(story, stage, play):
    played_out = play(story, stage)
    judge(story, stage, played_out)
    assert played_out.accounts[0].settlement.usage.output_tokens.best > 0
