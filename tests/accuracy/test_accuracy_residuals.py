"""What finished calls teach: exact numbers for shapes that repeat, and honest intervals."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.settlement import residuals as room
from lastchunk.settlement.residuals import ResidualRow, Residuals, Side, conformal_quantile
from lastchunk.usage import Basis, Quantity

FAMILY = "chat gpt-4o"


def counted(best: int, *, doubt: int = 0, basis: Basis = Basis.COUNTED) -> Quantity:
    return Quantity(max(0, best - doubt), best, best + doubt, basis)


QUANTITIES = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)).map(
    lambda three: Quantity(*sorted(three), Basis.COUNTED)
)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(Side),
        st.sampled_from(["a.1", "a.2", "b.1", "", "no dot"]),
        st.sampled_from([FAMILY, "chat other llama", ""]),
        QUANTITIES,
        st.integers(0, 10**7),
    ),
    max_size=60,
)


def learned(calls: list[tuple[Side, str, str, Quantity, int]]) -> Residuals:
    residuals = Residuals()
    for call in calls:
        residuals.learn(*call)
    return residuals


@given(st.integers(0, 10**5), st.integers(0, 400), st.integers(0, 10**5))
def test_a_shape_is_exact_after_its_first_finished_call(
    first: int, constant: int, second: int
) -> None:
    residuals = Residuals()
    residuals.learn(Side.PROMPT, "a.1", FAMILY, counted(first), first + constant)
    number, reasons = residuals.corrected(Side.PROMPT, "a.1", FAMILY, counted(second))
    assert number.best == second + constant
    assert "corrected_by_shape" in reasons


def test_a_conversation_that_goes_on_is_corrected_by_its_stem() -> None:
    residuals = Residuals()
    residuals.learn(Side.PROMPT, "a.1", FAMILY, counted(100), 118)
    number, reasons = residuals.corrected(Side.PROMPT, "a.2", FAMILY, counted(150))
    assert number.best == 168
    assert "corrected_by_stem" in reasons


def test_one_odd_call_does_not_spoil_a_shape_that_was_exact() -> None:
    residuals = Residuals()
    for reported in (100, 100, 100, 700):
        residuals.learn(Side.PROMPT, "a.1", FAMILY, counted(100), reported)
    number, _ = residuals.corrected(Side.PROMPT, "a.1", FAMILY, counted(100))
    assert number.best == 100


def test_a_lasting_change_of_the_provider_is_followed() -> None:
    residuals = Residuals()
    for reported in (100,) * 8 + (112,) * 4:
        residuals.learn(Side.PROMPT, "a.1", FAMILY, counted(100), reported)
    number, _ = residuals.corrected(Side.PROMPT, "a.1", FAMILY, counted(100))
    assert number.best == 112


def test_a_foreign_vocabulary_is_corrected_by_its_share() -> None:
    residuals = Residuals()
    for size in (100, 1000, 50, 400, 2000):
        truth = round(1.2 * size)
        residuals.learn(Side.PROMPT, "a.1", "chat other claude", counted(size, doubt=40), truth)
    number, _ = residuals.corrected(Side.PROMPT, "a.1", "chat other claude", counted(10_000))
    assert number.best == 12_000


def test_an_unseen_shape_is_left_alone_where_its_family_is_exact() -> None:
    residuals = Residuals()
    for call in range(100):
        residuals.learn(Side.PROMPT, f"{call}.1", FAMILY, counted(100), 130 if call % 5 else 100)
    for call in range(100, 130):
        residuals.learn(Side.PROMPT, f"{call}.1", FAMILY, counted(100), 100)
    number, reasons = residuals.corrected(Side.PROMPT, "new.1", FAMILY, counted(100))
    assert number.best == 100
    assert not any(reason.startswith("corrected") for reason in reasons)


def test_an_unseen_shape_is_corrected_where_its_whole_family_is_off() -> None:
    residuals = Residuals()
    for call in range(20):
        residuals.learn(Side.PROMPT, f"{call}.1", "chat other llama", counted(100), 126)
    number, reasons = residuals.corrected(Side.PROMPT, "new.1", "chat other llama", counted(50))
    assert number.best == 76
    assert "corrected_by_family" in reasons


def test_prompts_and_outputs_learn_apart() -> None:
    residuals = Residuals()
    residuals.learn(Side.OUTPUT, "a.1", FAMILY, counted(100), 109)
    assert residuals.corrected(Side.PROMPT, "a.1", FAMILY, counted(5)) == (counted(5), ())


@given(CALLS, QUANTITIES, st.sampled_from(Side), st.sampled_from(["a.1", "a.9", "z.z", ""]))
def test_low_best_and_high_stand_in_order(
    calls: list[tuple[Side, str, str, Quantity, int]], now: Quantity, side: Side, shape: str
) -> None:
    number, reasons = learned(calls).corrected(side, shape, FAMILY, now)
    assert 0 <= number.low <= number.best <= number.high
    assert number.basis is now.basis
    assert all(reason.isidentifier() for reason in reasons)


@given(CALLS, QUANTITIES)
def test_stored_rows_teach_the_same(
    calls: list[tuple[Side, str, str, Quantity, int]], now: Quantity
) -> None:
    residuals = Residuals()
    rows: list[ResidualRow] = [residuals.learn(*call) for call in calls]
    again = Residuals.from_rows(rows)
    for side in Side:
        for shape in ("a.1", "a.2", "b.1", "new.1"):
            expected = residuals.corrected(side, shape, FAMILY, now)
            assert again.corrected(side, shape, FAMILY, now) == expected


def test_a_reported_number_is_never_touched() -> None:
    residuals = Residuals()
    residuals.learn(Side.PROMPT, "a.1", FAMILY, counted(1), 1000)
    reported = Quantity.reported(7)
    assert residuals.corrected(Side.PROMPT, "a.1", FAMILY, reported) == (reported, ())


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SHAPES", 5)
    monkeypatch.setattr(room, "FAMILIES", 3)
    residuals = Residuals()
    for call in range(200):
        family = f"chat other {call}"
        residuals.learn(Side.PROMPT, f"{call}.1", family, counted(10), 12)
        residuals.learn(Side.PROMPT, f"{call}.1", family, counted(10), 12)
    assert len(residuals._shapes) == len(residuals._stems) == 5
    assert len(residuals._families) == 3
    assert len(residuals._shape_scores) <= 5
    assert len(residuals._scores) <= 12
    number, _ = residuals.corrected(Side.PROMPT, "0.1", "unheard of", counted(10))
    assert number == counted(10)


def test_an_interval_is_built_in_until_enough_is_known() -> None:
    residuals = Residuals()
    now = counted(100, doubt=10)
    for call in range(room.GROUP_SPEAKS):
        number, reasons = residuals.corrected(Side.PROMPT, f"{call}.1", FAMILY, now)
        assert (number, reasons) == (now, ())
        residuals.learn(Side.PROMPT, f"{call}.1", FAMILY, now, 100)
    number, reasons = residuals.corrected(Side.PROMPT, "new.1", FAMILY, now)
    assert number == counted(100)
    assert reasons == ("interval_learned",)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bounded", [False, True])
def test_intervals_hold_about_95_percent_of_exchangeable_calls(seed: int, bounded: bool) -> None:
    """Shapes of unlike constants, sizes and noise; the built-in interval is far too narrow."""
    draw = random.Random(seed)
    basis = Basis.BOUNDED if bounded else Basis.COUNTED
    constants = [draw.randint(-5, 60) for _ in range(40)]
    residuals = Residuals()
    inside = asked = 0
    for call in range(4000):
        place = draw.randrange(len(constants)) if draw.random() < 0.8 else 1000 + call
        constant = constants[place] if place < 1000 else draw.randint(-5, 60)
        size = draw.randint(50, 3000)
        noise = draw.choice([0, 0, 0, draw.gauss(0, 1 + 0.01 * size * bounded)])
        truth = max(1, round(size + constant + noise))
        now = counted(size, doubt=round(0.02 * size) if bounded else 1, basis=basis)
        number, _ = residuals.corrected(Side.PROMPT, f"{place}.1", FAMILY, now)
        if call >= 1000:
            asked += 1
            inside += number.low <= truth <= number.high
        residuals.learn(Side.PROMPT, f"{place}.1", FAMILY, now, truth)
    assert 0.93 <= inside / asked <= 0.985


@given(st.lists(st.floats(0, 100), max_size=200))
def test_the_conformal_quantile_is_the_one_that_the_theorem_names(scores: list[float]) -> None:
    quantile = conformal_quantile(scores, 0.05)
    if quantile is None:
        assert len(scores) < 19
    else:
        not_above = sum(score <= quantile for score in scores)
        assert not_above >= math.ceil(0.95 * (len(scores) + 1))


def test_outputs_that_hide_a_remainder_are_not_moved() -> None:
    residuals = Residuals()
    now = Quantity(100, 100, 163, Basis.COUNTED)
    for reported in (140, 120, 155):
        residuals.learn(Side.OUTPUT, "a.1", "responses gpt-5", now, reported)
    assert residuals.knows(Side.OUTPUT, "a.1")
    assert residuals.corrected(Side.OUTPUT, "a.1", "responses gpt-5", now) == (now, ())
