"""The calls that each library makes, and what must hold of each in the books."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from client_environment import Saw
from gateway_stage import Stage, until

from lastchunk.ledger import CallRecord
from lastchunk.meter.ending import Ending
from lastchunk.simulator import BilledCall, Script, write_script
from lastchunk.usage import Basis

DIALECTS = ("chat", "responses")
LIMITS = """
[[limits]]
name = "a budget"
account = "poor"
usd = "0.000001"
per = "ever"

[[limits]]
name = "one stream"
account = "busy"
streams = 1

[[limits]]
name = "one a month"
account = "monthly"
requests = 1
per = "month"

[[limits]]
name = "runs out"
account = "short/*"
tokens = 300
per = "ever"
mode = "balanced"
"""
HOLDER, FIRST_OF_THE_MONTH = "busy/holder", "monthly/first"
"""Accounts of the calls that use two of these limits up before any library is asked."""


@dataclass(frozen=True)
class Case:
    """`ending` None: the call is refused, and there is neither a row nor a bill."""

    account: str
    script: Script
    ending: Ending | None
    leave_after: int = 0
    tools: bool = False


LONG = Script(output_tokens=600, pacing_s=0.002)
CASES = {
    "text": Case("rich", Script(output_tokens=30), Ending.COMPLETED),
    "tool call": Case(
        "rich", Script(kind="tool_call", output_tokens=30), Ending.COMPLETED, tools=True
    ),
    "left": Case(
        "rich", Script(output_tokens=3_000, pacing_s=0.02), Ending.CALLER_LEFT, leave_after=5
    ),
    "no budget": Case("poor", Script(), None),
    "busy": Case("busy", Script(), None),
    "used up": Case("monthly", Script(), None),
    "stopped": Case("short", LONG, Ending.LIMIT_REACHED),
    "stopped tool call": Case(
        "short",
        Script(kind="tool_call", output_tokens=600, pacing_s=0.002),
        Ending.LIMIT_REACHED,
        tools=True,
    ),
}


def account_of(library: str, dialect: str, name: str) -> str:
    return f"{CASES[name].account}/{library}-{dialect}-{name.replace(' ', '-')}"


def calls_of(library: str) -> list[dict[str, Any]]:
    """What the driver is given."""
    return [
        {
            "name": (account := account_of(library, dialect, name)),
            "dialect": dialect,
            "leave_after": case.leave_after,
            "tools": case.tools,
            "headers": {
                "x-lastchunk-account": account,
                "x-sim-tag": account,
                "x-sim": write_script(case.script),
            },
        }
        for dialect in DIALECTS
        for name, case in CASES.items()
    ]


def what_is_wrong(stage: Stage, name: str, saw: Saw) -> list[str]:
    """Everything that does not hold of one call; nothing if all does."""
    case = CASES[name]
    if case.ending is None:
        wrong = _wrong_of_refused(stage, saw)
        if name == "busy" and saw.seconds < saw.attempts - 1:
            wrong.append(f"{saw.attempts} attempts in {saw.seconds} s, told to wait 1 s")
        return wrong
    count = 1
    rows = stage.rows(count)
    billed = until(lambda: stage.billed(count), "the provider's bill")
    wrong = _wrong_of_row(rows[0], billed[0], case.ending)
    if saw.attempts != count:
        wrong.append(f"{saw.attempts} attempts, {count} row")
    told = (billed[0].prompt_tokens, billed[0].output_tokens)
    match case.ending:
        case Ending.COMPLETED:
            if saw.error or saw.usage != told:
                wrong.append(f"saw {saw.error}, usage {saw.usage}; the bill is {told}")
            if not (saw.tool if case.tools else saw.text):
                wrong.append("saw nothing of the answer")
        case Ending.CALLER_LEFT:
            if saw.error or saw.pieces != case.leave_after:
                wrong.append(f"saw {saw.error} and {saw.pieces} pieces")
        case Ending.LIMIT_REACHED:
            if "'runs out'" not in saw.message or not saw.error_usage:
                wrong.append(f"saw {saw.error}: {saw.message}; usage in it: {saw.error_usage}")
    return wrong


def _wrong_of_refused(stage: Stage, saw: Saw) -> list[str]:
    wrong = [] if saw.error else ["saw no error"]
    stage.rows(0)
    assert stage.sim is not None
    if any(call.tag == stage.name for call in stage.sim.bill(wait_s=0)):
        wrong.append("it came to the provider")
    return wrong


def _wrong_of_row(row: CallRecord, billed: BilledCall, ending: Ending) -> list[str]:
    assert row.settlement is not None
    usage, wrong = row.settlement.usage, []
    if row.settlement.ending is not ending:
        wrong.append(f"ended {row.settlement.ending}, not {ending}")
    for quantity, truth in (
        (usage.input_tokens, billed.prompt_tokens),
        (usage.output_tokens, billed.output_tokens),
    ):
        if quantity is None or not quantity.low <= truth <= quantity.high:
            wrong.append(f"{quantity} without the truth, {truth}")
    assert usage.output_tokens is not None
    if (usage.output_tokens.basis is Basis.REPORTED) is not (ending is Ending.COMPLETED):
        wrong.append(f"{ending} on the basis {usage.output_tokens.basis}")
    return wrong
