"""Real and rendered bodies in every cut: the same account, the same bytes, no exception."""

from __future__ import annotations

import random

from cut_bodies import SEED, Body, cut_at_random
from cut_readings import (
    at_every_cut,
    characters,
    hidden,
    in_frames,
    new_meter,
    read,
    told_without_content,
    without_usage_frames,
)

from lastchunk.meter.phases import Phase
from lastchunk.tokens.encodings import encoding_of
from lastchunk.tokens.tally import OutputTally
from lastchunk.wire.counts import read_counts

DIP = 3
"""Tokens by which a count may fall when a piece is added: neighbours merge into one token."""


def _each_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def check_any_cutting(body: Body) -> None:
    rng = random.Random(f"{SEED}:{body.id}")
    with told_without_content(body):
        whole = read(body, [body.data])
        same_at_random = read(body, cut_at_random(body.data, rng)) == whole
        same_by_frames = read(body, in_frames(body.data)) == whole
        same_by_bytes = read(body, _each_byte(body.data)) == whole
    assert same_at_random, f"{body.id}: cut at random"
    assert same_by_frames, f"{body.id}: frame by frame"
    assert same_by_bytes, f"{body.id}: byte by byte"


def check_each_beginning(body: Body) -> None:
    final, _ = read(body, [body.data])
    before = new_meter(body).observe(1)
    for place, meter, seen in at_every_cut(body):
        where = f"{body.id} cut at byte {place}"
        assert seen.bytes == place, where
        assert seen.frames >= before.frames, where
        assert seen.finished_choices >= before.finished_choices, where
        assert characters(meter) >= 0, where
        assert seen.phase >= before.phase or before.phase is Phase.REPORTED, where
        if seen.reported_is_final and seen.phase < Phase.FAILED:
            assert seen.reported == final.reported, f"{where}: what was final was revised"
        before = seen


def check_bytes_passed_on(body: Body) -> None:
    wanted = without_usage_frames(body.data)
    rng = random.Random(f"{SEED}:{body.id}")
    same = hidden([body.data]) == wanted
    assert same, f"{body.id}: fed whole"
    for size in (1, 7):
        pieces = [body.data[i : i + size] for i in range(0, len(body.data), size)]
        same = hidden(pieces) == wanted
        assert same, f"{body.id}: fed by {size}"
    same = hidden(cut_at_random(body.data, rng)) == wanted
    assert same, f"{body.id}: fed at random"


def test_any_cutting_of_a_recording_gives_the_same_account(recording):
    check_any_cutting(recording)


def test_any_cutting_of_a_rendered_body_gives_the_same_account(script_body):
    check_any_cutting(script_body)


def test_no_beginning_of_a_recording_raises_or_says_less_than_a_shorter_one(recording):
    with told_without_content(recording):
        check_each_beginning(recording)


def test_no_beginning_of_a_rendered_body_raises_or_says_less_than_a_shorter_one(script_body):
    with told_without_content(script_body):
        check_each_beginning(script_body)


def test_a_recording_is_passed_on_without_its_usage_chunk_only(recording):
    with told_without_content(recording):
        check_bytes_passed_on(recording)


def test_a_rendered_body_is_passed_on_without_its_usage_chunk_only(script_body):
    with told_without_content(script_body):
        check_bytes_passed_on(script_body)


def test_a_recording_gives_the_usage_that_its_provider_told(recording):
    told = read_counts(recording.usage)
    seen, _ = read(recording, [recording.data])
    assert seen.reported == told, recording.id
    if told is not None:
        assert seen.reported_is_final, recording.id


def check_counts(body: Body) -> None:
    """Counts of a growing text never fall by more than a merge, and any cut counts the same."""
    meter = new_meter(body)
    meter.receive(body.data, 1)
    meter.finish()
    texts = meter.take_texts()
    growing, at_once = OutputTally(encoding_of(body.model)), OutputTally(encoding_of(body.model))
    before = 0
    for text in texts:
        growing.add(text)
        now = growing.counts().total
        assert now >= before - DIP, f"{body.id}: {before} tokens fell to {now}"
        before = now
        at_once.add(text)
    assert growing.counts() == at_once.counts(), body.id


def test_the_count_of_a_recording_grows(recording):
    with told_without_content(recording):
        check_counts(recording)


def test_the_count_of_a_rendered_body_grows(script_body):
    with told_without_content(script_body):
        check_counts(script_body)
