"""What an upstream may teach: itself only, within what is plausible, no false certainty."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.settlement.experience import Experience, LessonRow
from lastchunk.settlement.learned_reasoning import ReasoningPaces, ReasoningRow
from lastchunk.settlement.plausible import PLAUSIBLE_FACTOR, PLAUSIBLE_TOKENS, is_plausible
from lastchunk.settlement.residuals import ResidualRow, Residuals, Side
from lastchunk.settlement.shape import class_of
from lastchunk.tokens.prompt import count_prompt
from lastchunk.usage import Basis, OutputCounts, Quantity, TokenCounts
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.prompt import read_prompt
from lastchunk.wire.request import CallRequest, read_request

HONEST, LIAR = "chat gpt-4o @api.openai.com", "chat gpt-4o @relay.example"


def counted(best: int, doubt: int = 0) -> Quantity:
    return Quantity(max(0, best - doubt), best, best + doubt, Basis.COUNTED)


REPORTS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 3000), st.integers(0, 2**60)), max_size=120
)
"""(shape, counted, reported): anything."""


@given(REPORTS, REPORTS, st.integers(0, 12), st.integers(0, 3000))
def test_what_one_upstream_reports_changes_nothing_for_another(
    honest: list[tuple[int, int, int]],
    made_up: list[tuple[int, int, int]],
    shape: int,
    now: int,
) -> None:
    alone, beside = Residuals(), Residuals()
    for place, base, reported in made_up:
        beside.learn(Side.PROMPT, f"liar{place}.1", LIAR, counted(base), reported)
    for place, base, reported in honest:
        for residuals in (alone, beside):
            residuals.learn(Side.PROMPT, f"{place}.1", HONEST, counted(base), reported)
    asked = (Side.PROMPT, f"{shape}.1", HONEST, counted(now, 1))
    assert beside.corrected(*asked) == alone.corrected(*asked)


@given(
    st.integers(0, 200),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 2**60)), max_size=30),
    st.integers(0, 3000),
    st.booleans(),
)
def test_reports_beyond_belief_correct_nothing_and_only_widen(
    constant: int, made_up: list[tuple[int, int]], now: int, before: bool
) -> None:
    """At the very same upstream and shape, among twenty honest calls."""
    garbage = [
        (base, report if not is_plausible(counted(base), report) else 2**40)
        for base, report in made_up
    ]
    honest = [(base, base + constant) for base in range(100, 120)]
    alone, among = Residuals(), Residuals()
    for base, reported in honest:
        alone.learn(Side.PROMPT, "a.1", HONEST, counted(base), reported)
    for base, reported in [*garbage, *honest] if before else [*honest, *garbage]:
        among.learn(Side.PROMPT, "a.1", HONEST, counted(base), reported)
    expected, _ = alone.corrected(Side.PROMPT, "a.1", HONEST, counted(now))
    found, _ = among.corrected(Side.PROMPT, "a.1", HONEST, counted(now))
    assert found.best == expected.best == now + constant
    assert found.low <= expected.low
    assert found.high >= expected.high


@given(st.integers(-200, 400), st.integers(300, 3000), st.sampled_from(["a.2", "b.1"]))
def test_a_correction_that_was_never_tried_keeps_the_plain_count_inside(
    residual: int, now: int, shape: str
) -> None:
    """However sure its like are: a hundred shapes of this upstream were exact at once."""
    residuals = Residuals()
    for call in range(100):
        for _ in range(2):
            residuals.learn(Side.PROMPT, f"{call}.1", HONEST, counted(500), 500)
    residuals.learn(Side.PROMPT, shape, HONEST, counted(500), 500 + residual)
    number, _ = residuals.corrected(Side.PROMPT, shape, HONEST, counted(now))
    assert number.best == now + residual
    assert number.low <= now <= number.high


def test_a_shape_that_misses_again_and_again_is_as_wide_as_its_misses() -> None:
    residuals = Residuals()
    for call in range(100):
        for _ in range(3):
            residuals.learn(Side.PROMPT, f"{call}.1", HONEST, counted(500), 500)
    for call in range(12):
        residuals.learn(Side.PROMPT, "odd.1", HONEST, counted(500), 500 + 40 * (call % 3))
    steady, _ = residuals.corrected(Side.PROMPT, "7.1", HONEST, counted(500))
    odd, _ = residuals.corrected(Side.PROMPT, "odd.1", HONEST, counted(500))
    assert steady == counted(500)
    assert odd.low <= 500
    assert odd.high >= 580


@given(st.integers(1, 50), st.integers(1, 1000), st.integers(10**3, 10**6))
def test_a_share_learned_on_small_calls_does_not_run_away_on_a_large_one(
    small: int, more: int, large: int
) -> None:
    residuals = Residuals()
    for call in range(12):
        residuals.learn(Side.PROMPT, "a.1", HONEST, counted(small + call), small + call + more)
    number, _ = residuals.corrected(Side.PROMPT, "a.1", HONEST, counted(large))
    assert number.best <= (large + PLAUSIBLE_TOKENS) * PLAUSIBLE_FACTOR


TOOLS = [{"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}]


def taught(
    experience: Experience, upstream: str, prompt_tokens: int, **body: object
) -> tuple[list[LessonRow], Quantity]:
    """A finished call of ten answer tokens at this upstream: its lesson, and its prompt's count."""
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **body}
    request = read_request(Dialect.CHAT, asked, upstream=upstream, body_bytes=200)
    prompt = read_prompt(Dialect.CHAT, asked)
    count = count_prompt(prompt, request.model, Dialect.CHAT)
    known = experience.prompt(prompt, request, request.model, count)
    seen = Observation(
        phase=Phase.TERMINATED,
        status=200,
        finished_choices=1,
        finish_reason="stop",
        output=OutputCounts(text_tokens=10),
        reported=TokenCounts(input_tokens=prompt_tokens, output_tokens=17),
        reported_is_final=True,
    )
    rows = experience.learn(request, known, seen, silent_seconds=None, seen_ms=0)
    return rows, known.quantity


def test_made_up_usage_of_one_upstream_does_not_narrow_the_interval_of_another() -> None:
    """The story that the rule is from: 17 to 33 was told where 12 was true."""
    experience = Experience(b"key")
    _, cold = taught(Experience(b"key"), "api.openai.com", 12)
    for call in range(200):
        taught(experience, "127.0.0.1:8000", 17 + call % 17, tools=TOOLS * (call % 5))
    _, number = taught(experience, "api.openai.com", 12)
    assert number == cold


def test_a_call_with_a_predicted_output_teaches_nothing_about_outputs() -> None:
    plain, _ = taught(Experience(b"key"), "api.openai.com", 12)
    predicted, _ = taught(
        Experience(b"key"), "api.openai.com", 12, prediction={"type": "content", "content": "a b c"}
    )
    assert [row.side for row in plain if isinstance(row, ResidualRow)] == [Side.PROMPT, Side.OUTPUT]
    assert [row.side for row in predicted if isinstance(row, ResidualRow)] == [Side.PROMPT]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("api.openai.com", "relay.example", False),
        ("a.openai.azure.com", "b.openai.azure.com", True),
        ("localhost:8000", "localhost:8001", False),
    ],
)
def test_classes_are_told_apart_by_who_bills(one: str, other: str, same: bool) -> None:
    asked = CallRequest(Dialect.CHAT, "gpt-4o", True, True, one, 10)
    classes = {class_of("gpt-4o", request) for request in (asked, replace(asked, upstream=other))}
    assert len(classes) == (1 if same else 2)


def test_paces_are_learned_for_each_upstream_apart() -> None:
    paces = ReasoningPaces()
    for _ in range(20):
        paces.learn_reasoning("gpt-5", "high @relay.example", 1.0, 4096)
    assert paces.hidden_reasoning("gpt-5", "high @api.openai.com", 1.0) is None


def test_reasoning_faster_than_any_model_writes_teaches_no_pace() -> None:
    paces = ReasoningPaces()
    row = paces.learn_reasoning("gpt-5", "@a", 0.1, 6400)
    assert row == ReasoningRow("gpt-5", "@a", 100, 6400, 0)
    assert paces.hidden_reasoning("gpt-5", "@a", 1.0) is None


def test_reasoning_that_was_summed_up_teaches_no_pace() -> None:
    request = CallRequest(Dialect.RESPONSES, "o3", True, True, "api.openai.com", 10)
    prompt = read_prompt(Dialect.RESPONSES, {"model": "o3", "input": "hi"})
    count = count_prompt(prompt, "o3", Dialect.RESPONSES)
    seen = Observation(
        phase=Phase.TERMINATED,
        status=200,
        output=OutputCounts(text_tokens=10),
        reported=TokenCounts(8, output_tokens=650, output_reasoning_tokens=640),
        reported_is_final=True,
    )
    for shown, paces in ((False, 1), (True, 0)):
        experience = Experience(b"key")
        known = experience.prompt(prompt, request, "o3", count)
        seen = replace(seen, reasoning_seen=shown)
        rows = experience.learn(request, known, seen, silent_seconds=2.0, seen_ms=0)
        assert sum(isinstance(row, ReasoningRow) for row in rows) == paces
