"""Streams that come to their end: whatever the shape of the usage, it is the account."""

from __future__ import annotations

from dataclasses import replace

import pytest
from story import (
    CHAT,
    COMPLETED_COUNTED,
    COMPLETIONS,
    RESPONSES,
    TOOLS,
    Story,
    asking,
    broken,
    plain,
    played,
)
from story_judge import judge

from lastchunk.simulator import Script
from lastchunk.usage import Quantity


def reported(claim: str, trap: str, script: Script, **fields: object) -> Story:
    return Story(claim, trap, script=script, **fields)


STORIES = (
    Story("usage_of_a_chunk_without_choices_is_taken", "W1"),
    Story("a_caller_who_asks_for_usage_gets_its_chunk", "W1", asking(CHAT)),
    Story("legacy_completions_are_reported", "W1", COMPLETIONS),
    Story("legacy_completions_keep_the_chunk_asked_for", "W1", asking(COMPLETIONS)),
    Story("other_stream_options_survive", "W1", asking(CHAT, include_obfuscation=False)),
    reported("azure_filter_frames_are_no_usage_chunk", "W2", Script(azure=True)),
    reported(
        "filter_frames_without_a_delta_do_no_harm",
        "W2",
        Script(azure=True, azure_async_filter=True),
    ),
    reported("usage_on_the_finish_chunk", "W4", Script(usage_style="on_finish_chunk")),
    reported("usage_told_twice_counts_once", "W5", Script(usage_style="twice")),
    reported("running_usage_is_replaced_not_added", "W6", Script(usage_style="running")),
    reported("usage_inside_a_choice", "W7", Script(usage_style="choice_usage")),
    reported("usage_in_x_groq", "W7", Script(usage_style="x_groq")),
    Story("responses_tell_usage_in_their_terminal_event", "W7", RESPONSES),
    Story("an_incomplete_response_is_complete", "W7", {**RESPONSES, "max_output_tokens": 5}),
    reported("comments_between_the_frames", "W9", Script(keep_alive_every=2)),
    reported("comments_in_responses", "W9", Script(keep_alive_every=2), request=RESPONSES),
    reported("the_connection_held_after_done", "W12", broken("hold_after_done")),
    reported("no_done_but_usage", "W11", broken("no_done")),
    reported("no_space_after_the_colon", "W13", Script(framing="tight")),
    reported("crlf", "W13", Script(framing="crlf")),
    reported("crlf_in_tiny_packets", "W13", Script(framing="crlf", packet_bytes=7)),
    reported("characters_cut_across_packets", "W14", Script(language="emoji", packet_bytes=3)),
    reported("several_choices", "W15", Script(), request={**CHAT, "n": 3}),
    reported("several_legacy_choices", "W15", Script(), request={**COMPLETIONS, "n": 2}),
    reported(
        "reasoning_is_part_of_output",
        "W29",
        Script(reasoning_tokens=70),
        request={**CHAT, "model": "o4-mini"},
    ),
    reported("cached_is_part_of_input", "W29", Script(reported_cached=16)),
    reported("gzip_all_the_same", "W28", Script(gzip="forced")),
    reported("gzip_for_who_accepts_it", "W28", Script(gzip="accepted"), request=asking(CHAT)),
    reported("gzip_of_responses", "W28", Script(gzip="accepted"), request=RESPONSES),
    reported("an_answer_in_one_piece", "W23", Script(), request=plain(CHAT)),
    reported("a_response_in_one_piece", "W23", Script(), request=plain(RESPONSES)),
    reported("a_completion_in_one_piece", "W23", Script(), request=plain(COMPLETIONS)),
    reported("one_piece_in_gzip", "W28", Script(gzip="accepted"), request=plain(CHAT)),
    reported("one_piece_with_calls", "W16", Script(kind="parallel_calls"), request=plain(TOOLS)),
    reported("an_empty_answer", "W18", Script(output_tokens=0)),
)


@pytest.mark.parametrize(("story", "stage"), played(*STORIES))
def test_a_stream_that_ends_is_accounted_by_what_was_reported(story, stage, play):
    judge(story, stage, play(story, stage))


ZEROS = (
    Story("chat", "W8", script=Script(usage_style="zero"), truth_known=False),
    Story("responses", "W8", RESPONSES, Script(usage_style="zero"), truth_known=False),
    Story("one_piece", "W8", plain(RESPONSES), Script(usage_style="zero"), truth_known=False),
)


@pytest.mark.parametrize(("story", "stage"), played(*ZEROS))
def test_an_explicit_zero_stays_zero(story, stage, play):
    played_out = play(story, stage)
    judge(story, stage, played_out)
    usage = played_out.accounts[0].settlement.usage
    assert usage.input_tokens == Quantity.reported(0)
    assert usage.output_tokens == Quantity.reported(0)


SERVED = Script(served_model="gpt-4o-2024-11-20", service_tier="priority")
NAMES = (
    Story("of_a_whole_stream", "W21", script=SERVED),
    Story("of_an_answer_in_one_piece", "W21", plain(CHAT), SERVED),
    Story("of_a_response", "W21", RESPONSES, SERVED),
)


@pytest.mark.parametrize(("story", "stage"), played(*NAMES))
def test_the_served_model_and_tier_are_on_the_row(story, stage, play):
    played_out = play(story, stage)
    judge(story, stage, played_out)
    seen = played_out.accounts[0].settlement.observation
    assert (seen.model_served, seen.tier_served) == ("gpt-4o-2024-11-20", "priority")
    assert seen.response_id == played_out.bills[0].response_id


@pytest.mark.parametrize("stage", ["sync", "async", "gateway"])
def test_two_calls_with_one_response_id_are_two_rows(stage, play):
    story = Story("the_provider_reuses_ids", "W22", script=Script(reuse_id=True))
    first, second = play(story, stage), play(story, stage)
    judge(story, stage, first)
    judge(story, stage, second)
    ids = [p.accounts[0].settlement.observation.response_id for p in (first, second)]
    assert ids[0] == ids[1]
    calls = {p.accounts[0].settlement.call_id for p in (first, second)}
    assert len(calls) == 2


@pytest.mark.parametrize("stage", ["pure", "sync", "async", "gateway"])
def test_padding_changes_no_count(stage, play):
    counted = []
    for padded in (True, False):
        script = replace(Script(obfuscation=padded), usage_style="missing")
        story = Story("padding", "W19", script=script, rows=(COMPLETED_COUNTED,))
        played_out = play(story, stage)
        judge(story, stage, played_out)
        counted.append(played_out.accounts[0].settlement.usage)
    assert counted[0] == counted[1]
