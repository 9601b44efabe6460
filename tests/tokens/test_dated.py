"""What OpenAI counted at other times is counted so for calls of those times, and only for them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from lastchunk.tokens.dated import Period
from lastchunk.tokens.output import count_output
from lastchunk.tokens.prompt import count_prompt
from lastchunk.usage import OutputCounts
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.prompt import read_prompt

TEXT = OutputCounts(text_tokens=50)
TOOL = {"type": "function", "name": "measure", "parameters": {"type": "object"}}


def ms(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp() * 1000)


def answer(at_ms: int | None, *, model: str = "gpt-4o", **changes: Any) -> int:
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
    return count_output(TEXT, model=model, at_ms=at_ms, **{**facts, **changes}).best


def prompt(at_ms: int | None, model: str = "gpt-4o", **body: Any) -> int:
    body = {"input": "How long was the ship?", **body}
    read = read_prompt(Dialect.RESPONSES, body)
    return count_prompt(read, model, Dialect.RESPONSES, at_ms=at_ms).quantity.best


@pytest.mark.parametrize(
    ("at_ms", "tokens"),
    [
        (ms(2024, 12, 24), 50),
        (ms(2025, 3, 5), 51),
        (ms(2025, 6, 1), 50),
        (None, 50),
    ],
)
def test_the_end_of_a_turn_was_billed_in_early_2025(at_ms: int | None, tokens: int) -> None:
    assert answer(at_ms) == tokens


def test_the_end_was_not_billed_of_cut_answers_stop_sequences_other_models_nor_responses() -> None:
    then = ms(2025, 3, 5)
    assert answer(then, finished=False) == 50
    assert answer(then, stops=True) == 50
    assert answer(then, model="llama-3") == 50
    assert answer(then, model="o3") == answer(None, model="o3")
    assert answer(then, dialect=Dialect.RESPONSES) == answer(None, dialect=Dialect.RESPONSES)


def test_azure_bills_the_end_since_mid_2025() -> None:
    assert answer(ms(2025, 4, 11), azure=True) == 50
    assert answer(ms(2026, 1, 23), azure=True) == 51
    assert answer(None, azure=True) == 51


def test_responses_began_with_hidden_instructions_on_gpt_4o() -> None:
    then = ms(2025, 3, 14)
    assert prompt(then) - prompt(None) == 18
    assert prompt(then, tools=[TOOL]) - prompt(None, tools=[TOOL]) == 18 + 198
    assert prompt(then, "gpt-4.1-mini") == prompt(None, "gpt-4.1-mini")
    assert prompt(ms(2025, 4, 7)) == prompt(None)


def test_a_period_holds_its_first_moment_and_not_its_last() -> None:
    period = Period(10, 20)
    assert [period.holds(at) for at in (9, 10, 19, 20)] == [False, True, True, False]
    assert not period.holds(None)
    assert Period(10, None).holds(None)
