"""How near the counts come to the providers' own usage, by class of request."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lastchunk.tokens.encodings import encoding_of
from lastchunk.tokens.output import count_output
from lastchunk.tokens.prompt import count_prompt
from lastchunk.tokens.tally import OutputTally
from lastchunk.usage import Quantity
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.events import TextArrived, TextKind, ToolTextArrived
from lastchunk.wire.prompt import Prompt, ToolChoice, read_prompt

pytestmark = pytest.mark.corpus

DIALECTS = {"chat/completions": Dialect.CHAT, "responses": Dialect.RESPONSES}


class Judged(NamedTuple):
    """One unique request: what was counted, and what the provider said."""

    line: dict[str, Any]
    prompt: Prompt
    model: str
    dialect: Dialect
    counted: Quantity
    truth: int


def recorded(folder: Path) -> Iterator[dict[str, Any]]:
    for name in ("openai_chat", "azure", "openai_responses"):
        with gzip.open(folder / f"{name}.jsonl.gz", "rt") as lines:
            yield from map(json.loads, lines)


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    folder = os.environ.get("LASTCHUNK_CORPUS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("LASTCHUNK_CORPUS names no folder of recordings")
    seen: set[str] = set()
    found: list[Judged] = []
    for line in recorded(Path(folder)):
        key = json.dumps([line["cls"], line["request"]], sort_keys=True)
        usage = line["usage"] or {}
        truth = usage.get("prompt_tokens", usage.get("input_tokens"))
        dialect = DIALECTS.get(line["endpoint"])
        if key in seen or truth is None or dialect is None:
            continue
        seen.add(key)
        model = line["model"] or ""
        if line["cls"] == "azure":
            model = line["response_model"] or model
        prompt = read_prompt(dialect, line["request"])
        quantity = count_prompt(prompt, model, dialect).quantity
        found.append(Judged(line, prompt, model, dialect, quantity, truth))
    return found


def shares(cases: list[Judged]) -> tuple[float, float, float]:
    """Exact, within two tokens, and within the interval."""
    assert len(cases) > 20
    off = [abs(case.counted.best - case.truth) for case in cases]
    held = [case.counted.low <= case.truth <= case.counted.high for case in cases]
    size = len(cases)
    return off.count(0) / size, sum(x <= 2 for x in off) / size, sum(held) / size


def is_plain(prompt: Prompt) -> bool:
    parts = any(turn.calls or turn.pictures or turn.answers for turn in prompt.turns)
    return not (prompt.unknowns or prompt.tools or prompt.answer_schema or parts)


def test_derivable_prompts_are_exact_for_most_and_near_for_nearly_all(
    judged: list[Judged],
) -> None:
    exact, near, held = shares([case for case in judged if not case.prompt.unknowns])
    assert exact >= 0.93
    assert near >= 0.96
    assert held >= 0.95


def test_plain_chat_prompts_are_exact(judged: list[Judged]) -> None:
    cases = [c for c in judged if c.dialect is Dialect.CHAT and is_plain(c.prompt)]
    assert shares(cases)[0] >= 0.99


def test_prompts_with_an_answer_schema_are_exact(judged: list[Judged]) -> None:
    cases = [c for c in judged if c.prompt.answer_schema and not c.prompt.unknowns]
    assert shares(cases)[0] >= 0.97


def test_what_is_not_derivable_lies_in_its_interval(judged: list[Judged]) -> None:
    assert shares([case for case in judged if case.prompt.unknowns])[2] >= 0.95


def answers(judged: list[Judged]) -> Iterator[tuple[Judged, dict[str, Any], Quantity, int]]:
    """Whole chat answers of models that do not reason, counted from their message."""
    for case in judged:
        if case.dialect is not Dialect.CHAT or case.line["stream"]:
            continue
        if case.line["usage"].get("completion_tokens_details", {}).get("reasoning_tokens"):
            continue
        choices = json.loads(case.line["body"])["choices"]
        message = choices[0]["message"]
        if len(choices) > 1 or message.get("audio") or message.get("refusal"):
            continue
        tally = OutputTally(encoding_of(case.model))
        if message.get("content"):
            tally.add(TextArrived(0, TextKind.CONTENT, message["content"]))
        for number, call in enumerate(message.get("tool_calls") or []):
            function = call["function"]
            tally.add(ToolTextArrived(0, number, function["name"], function["arguments"]))
        prompt = case.prompt
        quantity = count_output(
            tally.counts(),
            model=case.model,
            dialect=Dialect.CHAT,
            finished=choices[0]["finish_reason"] != "length",
            tools_declared=bool(prompt.tools),
            forced_call=prompt.tool_choice is ToolChoice.FORCED,
            json_schema=prompt.answer_schema is not None,
            tool_choice_none=prompt.tool_choice is ToolChoice.NONE,
            azure=case.line["cls"] == "azure",
            refusals=0,
        )
        yield case, message, quantity, case.line["usage"]["completion_tokens"]


def test_text_answers_are_exact(judged: list[Judged]) -> None:
    off = [
        abs(quantity.best - truth)
        for case, message, quantity, truth in answers(judged)
        if message.get("content") and not message.get("tool_calls") and "gpt-4" in case.model
    ]
    assert len(off) > 300
    assert off.count(0) / len(off) >= 0.9
    assert sum(x <= 1 for x in off) / len(off) >= 0.99


def test_calls_are_counted_with_what_surrounds_them(judged: list[Judged]) -> None:
    off = [
        abs(quantity.best - truth)
        for case, message, quantity, truth in answers(judged)
        if message.get("tool_calls") and "gpt-4" in case.model
    ]
    assert len(off) > 100
    assert sum(x <= 2 for x in off) / len(off) >= 0.97
