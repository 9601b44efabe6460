"""Usage objects of many providers, brought to one meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.usage import TokenCounts
from lastchunk.wire.counts import read_counts

NAMES = st.sampled_from(
    [
        "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens",
        "prompt_tokens_details", "completion_tokens_details", "input_tokens_details",
        "output_tokens_details", "cached_tokens", "reasoning_tokens", "audio_tokens",
        "cache_write_tokens", "prompt_cache_hit_tokens",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=10,
)


@given(JSON)
def test_any_object_gives_counts_that_are_counts_or_nothing(usage):
    counts = read_counts(usage)
    if counts is None:
        return
    assert counts.input_tokens is not None or counts.output_tokens is not None
    for name in TokenCounts.__slots__:
        value = getattr(counts, name)
        assert value is None or (type(value) is int and 0 <= value < 2**54)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, TokenCounts(3, output_tokens=4)),
        ({"input_tokens": 3, "output_tokens": 4}, TokenCounts(3, output_tokens=4)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, TokenCounts(0, output_tokens=0)),
        ({"prompt_tokens": 3.0, "completion_tokens": None}, TokenCounts(3)),
        ({"prompt_tokens": True, "completion_tokens": 4}, TokenCounts(output_tokens=4)),
        ({"prompt_tokens": -3, "completion_tokens": 4}, TokenCounts(output_tokens=4)),
        ({"prompt_tokens": "3"}, None),
        ({}, None),
        (None, None),
        ([], None),
    ],
)
def test_the_same_meaning_by_other_names(usage, counts):
    assert read_counts(usage) == counts


def test_reasoning_is_added_where_the_total_tells_that_it_was_left_out():
    """xAI: 10 + 5 + 7 = 22."""
    details = {"reasoning_tokens": 7}
    inside = {"prompt_tokens": 10, "completion_tokens": 12, "completion_tokens_details": details}
    outside = {**inside, "completion_tokens": 5}
    for usage in ({**inside, "total_tokens": 22}, {**outside, "total_tokens": 22}, inside):
        counts = read_counts(usage)
        assert (counts.output_tokens, counts.output_reasoning_tokens) == (12, 7)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens_details": {"cached_tokens": 2}},
        {"input_tokens_details": {"cached_tokens": 2}},
        {"prompt_cache_hit_tokens": 2},
        {"cached_tokens": 2},
    ],
)
def test_cached_tokens_are_found_in_each_place(usage):
    assert read_counts({"prompt_tokens": 5, **usage}).input_cached_tokens == 2
