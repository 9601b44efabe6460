"""Hidden reasoning of a cut call, from how fast this model reasoned in finished ones."""

import random

from hypothesis import given
from hypothesis import strategies as st

from lastchunk.settlement.learned_reasoning import ReasoningPaces
from lastchunk.usage import Basis

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["gpt-5-mini", "o4-mini", "gpt-5.4", "deepseek-r1", ""]),
        st.sampled_from(["", "low", "high"]),
        st.floats(allow_nan=True, allow_infinity=True),
        st.integers(-1, 10**6),
    ),
    max_size=40,
)


def test_nothing_is_said_of_a_model_that_was_never_seen() -> None:
    assert ReasoningPaces().hidden_reasoning("gpt-5", "", 3.0) is None


def test_the_pace_of_finished_calls_is_the_estimate() -> None:
    paces = ReasoningPaces()
    for _ in range(50):
        paces.learn_reasoning("gpt-5-mini", "medium", 10.0, 640)
    found = paces.hidden_reasoning("gpt-5-mini", "medium", 20.0)
    assert found is not None
    assert (found.low, found.best, found.high) == (1280, 1280, 1280)
    assert found.basis is Basis.BOUNDED


def test_an_effort_is_told_apart_once_it_was_seen_often_enough() -> None:
    paces = ReasoningPaces()
    for _ in range(10):
        paces.learn_reasoning("o4-mini", "low", 10.0, 320)
        paces.learn_reasoning("o4-mini", "high", 10.0, 1920)
    low = paces.hidden_reasoning("o4-mini", "low", 10.0)
    high = paces.hidden_reasoning("o4-mini", "high", 10.0)
    assert low is not None
    assert high is not None
    assert (low.best, high.best) == (320, 1920)


def test_another_model_of_the_family_speaks_for_one_never_seen() -> None:
    paces = ReasoningPaces()
    paces.learn_reasoning("o3", "", 10.0, 640)
    found = paces.hidden_reasoning("o4-mini", "", 10.0)
    assert found is not None
    assert found.best == 640
    assert found.low < 640 < found.high


def test_two_thirds_of_a_step_are_a_step_where_the_family_rounds() -> None:
    paces = ReasoningPaces()
    paces.learn_reasoning("gpt-5.4", "", 10.0, 437)
    exact = paces.hidden_reasoning("gpt-5.4", "", 10.0)
    assert exact is not None
    assert exact.best == 437
    paces.learn_reasoning("gpt-5", "", 10.0, 448)
    rounded = paces.hidden_reasoning("gpt-5", "", 9.0)
    assert rounded is not None
    assert rounded.best == 384
    assert rounded.best % 64 == rounded.high % 64 == rounded.low % 64 == 0


@given(ROWS, st.floats(allow_nan=True, allow_infinity=True))
def test_zero_is_never_claimed_and_rows_teach_the_same(
    calls: list[tuple[str, str, float, int]], silent: float
) -> None:
    paces = ReasoningPaces()
    rows = [paces.learn_reasoning(*call) for call in calls]
    again = ReasoningPaces.from_rows(rows)
    for model in ("gpt-5-mini", "o4-mini", "gpt-5.4", "deepseek-r1", "gpt-4o"):
        found = paces.hidden_reasoning(model, "low", silent)
        assert again.hidden_reasoning(model, "low", silent) == found
        assert found is None or 0 <= found.low <= found.best <= found.high
        assert found is None or found.best >= 1


def test_intervals_hold_about_95_percent_of_exchangeable_paces() -> None:
    draw = random.Random(7)
    paces = ReasoningPaces()
    inside = asked = 0
    for call in range(3000):
        seconds = draw.uniform(1, 60)
        tokens = round(seconds * draw.lognormvariate(4, 0.5))
        found = paces.hidden_reasoning("gpt-5.4", "medium", seconds)
        if call >= 200 and found is not None:
            asked += 1
            inside += found.low <= tokens <= found.high
        paces.learn_reasoning("gpt-5.4", "medium", seconds, tokens)
    assert 0.93 <= inside / asked <= 0.985
