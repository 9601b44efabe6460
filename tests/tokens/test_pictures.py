"""Image tokens by the published rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.tokens.images import image_range, image_rule, image_tokens

TABLE = [
    ("gpt-4o", 1024, 1024, "auto", 85 + 4 * 170),
    ("gpt-4o", 512, 512, "auto", 85 + 170),
    ("gpt-4o", 2048, 4096, "high", 85 + 6 * 170),
    ("gpt-4o", 4096, 8192, "low", 85),
    ("gpt-4o-mini", 512, 512, "auto", 2833 + 5667),
    ("gpt-5", 1024, 1024, "auto", 70 + 4 * 140),
    ("o1", 512, 512, "auto", 75 + 150),
    ("gpt-4.1-mini", 1024, 1024, "auto", 1660),
    ("o4-mini", 640, 480, "auto", 517),
]


@pytest.mark.parametrize(("model", "width", "height", "detail", "tokens"), TABLE)
def test_an_image_costs_what_the_rule_says(
    model: str, width: int, height: int, detail: str, tokens: int
) -> None:
    assert image_tokens(image_rule(model), width, height, detail) == tokens


@given(
    st.sampled_from(["gpt-4o", "gpt-4.1-nano", "gpt-5", "anything"]),
    st.integers(1, 1_000_000),
    st.integers(1, 1_000_000),
    st.sampled_from(["auto", "low", "high", "?"]),
)
def test_an_image_of_any_size_lies_in_the_range_of_unknown_ones(
    model: str, width: int, height: int, detail: str
) -> None:
    rule = image_rule(model)
    least, likely, most = image_range(rule, detail)
    assert least <= image_tokens(rule, width, height, detail) <= most
    assert least <= likely <= most
