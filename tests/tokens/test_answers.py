"""What a finished answer costs besides its text, and a cut one does not."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.tokens.output import count_output
from lastchunk.usage import Basis, OutputCounts, Quantity
from lastchunk.wire.dialect import Dialect

TEXT = OutputCounts(text_tokens=50)
CALL = OutputCounts(call_tokens=20, calls=1)
CALLS = OutputCounts(call_tokens=60, calls=2)
REFUSAL = OutputCounts(refusal_tokens=9)


def answer(counts: OutputCounts, model: str = "gpt-4o", **changes: Any) -> Quantity:
    facts: dict[str, Any] = {
        "dialect": Dialect.CHAT,
        "finished": True,
        "tools_declared": False,
        "forced_call": False,
        "json_schema": False,
        "tool_choice_none": False,
        "azure": False,
        "refusals": 0,
    }
    return count_output(counts, model=model, **{**facts, **changes})


RESPONSES: dict[str, Any] = {"dialect": Dialect.RESPONSES}
TOOLS: dict[str, Any] = {"tools_declared": True}

TABLE: list[tuple[OutputCounts, str, dict[str, Any], int]] = [
    (TEXT, "gpt-4o", {}, 50),
    (TEXT, "gpt-4o", {"azure": True}, 51),
    (TEXT, "gpt-4o", TOOLS, 51),
    (TEXT, "gpt-4o", {**TOOLS, "azure": True}, 52),
    (TEXT, "gpt-4o", {**TOOLS, "tool_choice_none": True}, 52),
    (TEXT, "gpt-4o", {"json_schema": True}, 50),
    (TEXT, "gpt-4o", {**TOOLS, "json_schema": True}, 55),
    (TEXT, "gpt-5", {}, 59),
    (TEXT, "gpt-5.4", {}, 53),
    (TEXT, "gpt-4o", RESPONSES, 51),
    (TEXT, "gpt-4o", {**RESPONSES, **TOOLS}, 52),
    (TEXT, "gpt-5", RESPONSES, 56),
    (TEXT, "gpt-5.6", RESPONSES, 54),
    (CALL, "gpt-4o", TOOLS, 26),
    (CALL, "gpt-4", TOOLS, 23),
    (CALL, "gpt-4-turbo-2024-04-09", TOOLS, 26),
    (TEXT, "gpt-5.6", {**RESPONSES, "reasoned": True}, 56),
    (CALL, "gpt-5.6", {**RESPONSES, **TOOLS, "reasoned": True}, 32),
    (TEXT, "gpt-5", TOOLS, 53),
    (TEXT, "gpt-5", {**TOOLS, "reasoned": True}, 59),
    (OutputCounts(text_tokens=50, reasoning_tokens=30), "gpt-5", {}, 59),
    (OutputCounts(text_tokens=50, reasoning_tokens=30), "deepseek-r1", {}, 80),
    (CALL, "gpt-5", TOOLS, 35),
    (CALL, "gpt-4o", {**RESPONSES, **TOOLS}, 27),
    (CALLS, "gpt-4o", TOOLS, 66),
    (CALLS, "gpt-4o", {**RESPONSES, **TOOLS}, 67),
    (REFUSAL, "gpt-4o", {"refusals": 1, "json_schema": True}, 10),
    (REFUSAL, "gpt-4o", {**TOOLS, "refusals": 1, "json_schema": True}, 14),
    (REFUSAL, "gpt-4o", {**RESPONSES, "refusals": 1}, 11),
    (TEXT, "davinci-002", {"dialect": Dialect.COMPLETIONS}, 50),
]


@pytest.mark.parametrize(("counts", "model", "changes", "tokens"), TABLE)
def test_a_finished_answer_costs_its_text_and_a_constant(
    counts: OutputCounts, model: str, changes: dict[str, Any], tokens: int
) -> None:
    assert answer(counts, model, **changes).best == tokens


def test_a_forced_call_does_not_cost_its_name() -> None:
    counts = replace(CALL, call_name_tokens=4)
    assert answer(counts, tools_declared=True, forced_call=True).best == 20 - 4


def test_each_finished_choice_has_its_own_constant() -> None:
    assert answer(TEXT, **TOOLS, choices=3).best == 50 + 3


def test_a_cut_text_has_no_constant_and_a_cut_call_has_its_opening() -> None:
    assert answer(TEXT, finished=False, tools_declared=True).best == 50
    assert answer(CALL, finished=False, tools_declared=True).best == 26


def test_a_model_that_rounds_its_reasoning_may_hide_63_tokens() -> None:
    quantity = answer(TEXT, "o3", **RESPONSES)
    assert quantity.high >= quantity.best + 63


def test_only_relays_and_the_months_of_the_end_token_leave_a_doubt_about_a_text() -> None:
    assert answer(TEXT, relayed=False) == Quantity(50, 50, 50, Basis.COUNTED)
    assert answer(TEXT, relayed=True).high == 51
    assert answer(TEXT, relayed=False, stops=True, at_ms=1_743_000_000_000).high == 51
    assert answer(TEXT, finished=False) == Quantity(50, 50, 50, Basis.COUNTED)


def test_nothing_that_arrived_costs_nothing() -> None:
    assert answer(OutputCounts()) == answer(OutputCounts(), "gpt-5")
    assert answer(OutputCounts()).high == 0


FLAGS = st.booleans()


@given(
    counts=st.builds(
        OutputCounts,
        *[st.integers(0, 300)] * 4,
        calls=st.integers(0, 3),
        spread=st.integers(0, 500),
    ),
    model=st.sampled_from(["gpt-4o", "gpt-4", "gpt-5", "gpt-5.2", "gpt-5.6", "o3", "?"]),
    dialect=st.sampled_from(Dialect),
    flags=st.tuples(FLAGS, FLAGS, FLAGS, FLAGS, FLAGS, FLAGS),
    refusals=st.integers(0, 2),
)
def test_every_answer_has_an_ordered_interval(
    counts: OutputCounts,
    model: str,
    dialect: Dialect,
    flags: tuple[bool, ...],
    refusals: int,
) -> None:
    names = [
        "finished",
        "tools_declared",
        "forced_call",
        "json_schema",
        "tool_choice_none",
        "azure",
    ]
    changes = dict(zip(names, flags, strict=True))
    quantity = answer(counts, model, dialect=dialect, refusals=refusals, **changes)
    assert 0 <= quantity.low <= quantity.best <= quantity.high
