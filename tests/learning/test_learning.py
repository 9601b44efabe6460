"""What finished calls teach: exact prompts for a shape seen before, and the pace of thinking."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from click.testing import CliRunner

import lastchunk
from lastchunk.cli import main
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger
from lastchunk.simulator import BilledCall, Fault, Script, Simulator

# The simulated provider renders this default value as no real one does: a cold count is off.
TOOL = {
    "type": "function",
    "function": {
        "name": "book",
        "description": "Book a table",
        "parameters": {
            "type": "object",
            "properties": {
                "places": {
                    "type": "array",
                    "items": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                },
                "when": {"type": "string", "description": "A day", "default": "now"},
            },
            "required": ["places"],
        },
    },
}
CUT = Script(output_tokens=30, fault=Fault("fin", at="mid"))
WHOLE = Script(output_tokens=30)


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


Pairs = list[tuple[lastchunk.Settlement, BilledCall]]


def played(provider: Simulator, ledger: str, *scripts: Script, **options: object) -> Pairs:
    """Each call's settlement beside what was billed, by a process that then ends."""
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "A table by the sea"}]}
    settled = []
    with openai.OpenAI(base_url=provider.base_url, api_key="k") as client:
        lastchunk.instrument(client, ledger=ledger)
        for script in scripts:
            provider.next(script)
            with lastchunk.watch() as calls:
                for _ in client.chat.completions.create(**asked | options, stream=True):
                    pass
            settled.append(calls[0])
    lastchunk.close()
    bill = provider.bill()
    provider.reset()
    return list(zip(settled, bill, strict=True))


def test_a_shape_seen_once_is_counted_exactly(provider: Simulator, ledger: str) -> None:
    (cold, billed), (_, _), (warm, again) = played(provider, ledger, CUT, WHOLE, CUT, tools=[TOOL])
    assert cold.usage.input_tokens.best != billed.prompt_tokens, "the fixture must be off when cold"
    assert warm.usage.input_tokens.best == again.prompt_tokens
    assert warm.usage.input_tokens.basis is lastchunk.Basis.COUNTED
    assert "corrected_by_shape" in warm.reasons


def test_the_next_process_knows_what_this_one_learned(provider: Simulator, ledger: str) -> None:
    played(provider, ledger, WHOLE, tools=[TOOL])
    ((warm, billed),) = played(provider, ledger, CUT, tools=[TOOL])
    assert warm.usage.input_tokens.best == billed.prompt_tokens


def test_hidden_reasoning_goes_by_the_pace_of_finished_calls(
    provider: Simulator, ledger: str
) -> None:
    thinking = {"kind": "reasoning", "reasoning_tokens": 640, "first_token_delay_s": 0.2}
    whole = Script(output_tokens=5, **thinking)
    cut = Script(output_tokens=30, fault=Fault("fin", at="mid"), **thinking)
    *_, (settled, billed) = played(provider, ledger, *[whole] * 9, cut, model="o3")
    output = settled.usage.output_tokens
    assert output.low <= billed.output_tokens <= output.high
    assert abs(output.best - billed.output_tokens) < 0.5 * billed.output_tokens
    assert output.basis is lastchunk.Basis.BOUNDED


def test_lessons_hold_no_content(provider: Simulator, ledger: str) -> None:
    played(provider, ledger, WHOLE, tools=[TOOL])
    with Ledger.open(ledger, clock=SystemClock()) as opened:
        told = repr(opened.lessons())
    for word in ("table", "sea", "book", "places", "user"):
        assert word not in told


def test_a_ledgers_own_finished_calls_are_judged(provider: Simulator, ledger: str) -> None:
    played(provider, ledger, WHOLE, tools=[TOOL])
    told = CliRunner().invoke(main, ["accuracy", "--ledger", ledger, "--csv", "--by", "family"])
    assert told.exit_code == 0, told.output
    rows = list(csv.DictReader(io.StringIO(told.stdout)))
    assert {row["family"] for row in rows} >= {"gpt-4o"}
    assert {row["exchanges"] for row in rows if row["family"] == "gpt-4o"} == {"1"}


def test_a_ledger_without_lessons_says_so(ledger: str) -> None:
    Ledger.open(ledger, clock=SystemClock()).close()
    told = CliRunner().invoke(main, ["accuracy", "--ledger", ledger])
    assert told.exit_code == 2
    assert "no finished call has taught this ledger yet" in told.output
