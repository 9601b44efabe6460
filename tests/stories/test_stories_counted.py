"""What is counted where no usage came: every kind of output, and none of what is no output."""

from __future__ import annotations

import pytest
from story import (
    CHAT,
    COMPLETED_COUNTED,
    COMPLETIONS,
    LEFT,
    LEFT_BOUNDED,
    RESPONSES,
    RESPONSES_TOOLS,
    TOOLS,
    Leave,
    Row,
    Story,
    broken,
    plain,
    played,
    stalled,
)
from story_judge import judge

from lastchunk.meter.ending import Ending
from lastchunk.usage import Basis

UNHEARD_OF = {**CHAT, "model": "totally-unknown-1"}
COMPLETED_BOUNDED = Row(Ending.COMPLETED, Basis.BOUNDED)
FUNCTIONS = {**CHAT, "functions": [TOOLS["tools"][0]["function"]]}


def cut(claim: str, trap: str, request=CHAT, rows=(LEFT,), at="mid", **script) -> Story:
    return Story(f"cut_{claim}", trap, request, stalled(at, **script), Leave.CLOSE, rows)


def whole(claim: str, trap: str, request=CHAT, rows=(COMPLETED_COUNTED,), **script) -> Story:
    return Story(f"whole_{claim}", trap, request, broken("no_usage", **script), rows=rows)


LANGUAGES = tuple(
    make(language, "W14", language=language, packet_bytes=packet)
    for make in (cut, whole)
    for language, packet in (("german", 5), ("chinese", 0), ("emoji", 3), ("code", 0))
)
THOUGHT_ALOUD = ("reasoning_content", "reasoning", "reasoning_text")
REASONING = (
    *(cut(n, "W16", reasoning_tokens=40, reasoning_shown=n, at="tokens:20") for n in THOUGHT_ALOUD),
    *(cut(f"{n}_and_text", "W16", reasoning_tokens=9, reasoning_shown=n) for n in THOUGHT_ALOUD),
    *(whole(n, "W16", reasoning_tokens=40, reasoning_shown=n) for n in THOUGHT_ALOUD),
)
KINDS = (
    cut("tool_call", "W16", TOOLS, kind="tool_call"),
    cut("tool_call_with_nothing_but_a_name", "W16", TOOLS, kind="tool_call", at="tokens:1"),
    cut("parallel_calls", "W16", TOOLS, kind="parallel_calls"),
    cut("custom_tool", "W16", TOOLS, kind="custom_tool"),
    cut("function_call", "W16", FUNCTIONS, kind="function_call"),
    cut("refusal", "W16", kind="refusal"),
    cut("text_and_call", "W16", TOOLS, kind="mixed", at="tokens:30"),
    cut("response_with_a_call", "W16", RESPONSES_TOOLS, kind="tool_call"),
    cut("response_with_parallel_calls", "W16", RESPONSES_TOOLS, kind="parallel_calls"),
    cut("response_with_a_custom_tool", "W16", RESPONSES_TOOLS, kind="custom_tool"),
    cut("response_with_a_refusal", "W16", RESPONSES, kind="refusal"),
    whole("tool_call", "W16", TOOLS, kind="tool_call"),
    whole("parallel_calls", "W16", TOOLS, kind="parallel_calls"),
    whole("custom_tool", "W16", TOOLS, kind="custom_tool"),
    whole("function_call", "W16", FUNCTIONS, kind="function_call"),
    whole("refusal", "W16", kind="refusal"),
    whole("response_with_a_call", "W16", RESPONSES_TOOLS, kind="tool_call"),
    whole("response_with_parallel_calls", "W16", RESPONSES_TOOLS, kind="parallel_calls"),
    whole("response_with_a_custom_tool", "W16", RESPONSES_TOOLS, kind="custom_tool"),
    whole("response_with_a_refusal", "W16", RESPONSES, kind="refusal"),
    whole("response", "W3", RESPONSES),
    whole("completion", "W3", COMPLETIONS),
    whole("chat", "W3"),
    whole("chat_in_one_piece", "W3", plain(CHAT)),
    whole("calls_in_one_piece", "W16", plain(TOOLS), kind="parallel_calls"),
    whole("response_in_one_piece", "W3", plain(RESPONSES)),
    whole("completion_in_one_piece", "W3", plain(COMPLETIONS)),
)
SHAPES = (
    cut("several_choices", "W15", {**CHAT, "n": 3}),
    whole("several_choices", "W15", {**CHAT, "n": 3}),
    cut("several_choices_one_of_them_finished", "W15", {**CHAT, "n": 2}, at="tokens:60"),
    cut("several_tokens_a_chunk", "W18", tokens_per_chunk=5),
    whole("several_tokens_a_chunk", "W18", tokens_per_chunk=7),
    cut("padding", "W19", obfuscation=True),
    cut("an_unknown_model", "W30", UNHEARD_OF, rows=(LEFT_BOUNDED,)),
    whole("an_unknown_model", "W30", UNHEARD_OF, rows=(COMPLETED_BOUNDED,)),
    cut(
        "special_tokens_in_the_prompt",
        "W30",
        {**CHAT, "messages": [{"role": "user", "content": "Say <|endoftext|> <|im_start|>"}]},
    ),
    whole("cut_by_its_limit", "W23", {**CHAT, "max_tokens": 7}),
)
STORIES = (*KINDS, *LANGUAGES, *REASONING, *SHAPES)


@pytest.mark.parametrize(("story", "stage"), played(*STORIES))
def test_all_output_without_usage_is_counted(story, stage, play):
    judge(story, stage, play(story, stage))


LOGPROBS = (
    cut("chat", "W20", {**CHAT, "logprobs": True}, language="emoji", tokens_per_chunk=3),
    cut("completion", "W20", {**COMPLETIONS, "logprobs": 0}, language="german", tokens_per_chunk=2),
    cut(
        "response",
        "W20",
        {**RESPONSES, "include": ["message.output_text.logprobs"]},
        language="chinese",
    ),
)


@pytest.mark.parametrize(("story", "stage"), played(*LOGPROBS))
def test_logprobs_give_the_exact_count_of_what_arrived(story, stage, play):
    played_out = play(story, stage)
    judge(story, stage, played_out)
    output = played_out.accounts[0].settlement.usage.output_tokens
    assert output.low == output.best == played_out.bills[0].delivered_tokens


HIDDEN = (
    Story(
        "cut_in_mid_answer",
        "W17",
        {**CHAT, "model": "o4-mini"},
        stalled("mid", reasoning_tokens=192),
        Leave.CLOSE,
        rows=(LEFT_BOUNDED,),
    ),
    Story(
        "cut_while_it_thinks",
        "W17",
        {**RESPONSES, "model": "gpt-5"},
        stalled(2000, reasoning_tokens=320),
        Leave.CLOSE,
        rows=(Row(Ending.CALLER_LEFT, Basis.ASSUMED),),
    ),
    Story(
        "whole_without_usage",
        "W17",
        {**CHAT, "model": "o3"},
        broken("no_usage", reasoning_tokens=128),
        rows=(Row(Ending.COMPLETED, Basis.BOUNDED),),
    ),
    Story(
        "a_summary_is_not_what_is_billed",
        "W17",
        {**RESPONSES, "model": "gpt-5"},
        stalled("mid", reasoning_tokens=256, reasoning_shown="summary"),
        Leave.CLOSE,
        rows=(LEFT_BOUNDED,),
    ),
)


@pytest.mark.parametrize(("story", "stage"), played(*HIDDEN))
def test_hidden_reasoning_is_bounded_not_free(story, stage, play):
    judge(story, stage, play(story, stage))


@pytest.mark.parametrize("stage", ["pure", "sync", "async", "gateway"])
@pytest.mark.parametrize("at", ["tokens:10", "mid"])
def test_running_usage_that_stops_is_the_low_end(at, stage, play):
    story = Story(
        "running_usage_cut",
        "W6",
        script=stalled(at, usage_style="running"),
        leave=Leave.CLOSE,
        rows=(Row(Ending.CALLER_LEFT, Basis.REPORTED_SO_FAR),),
    )
    played_out = play(story, stage)
    judge(story, stage, played_out)
    output = played_out.accounts[0].settlement.usage.output_tokens
    assert output.low == played_out.accounts[0].settlement.observation.reported.output_tokens
    assert output.high > output.low
