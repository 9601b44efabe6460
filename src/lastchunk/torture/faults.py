"""One call of a cell, decided before it is made: its request, the provider's script, its act."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lastchunk.simulator import Fault as ProviderFault
from lastchunk.simulator import Script
from lastchunk.simulator.script import FaultKind
from lastchunk.torture.matrix import Cell, Fault, Moment
from lastchunk.wire.dialect import Dialect

SILENCE_SECONDS = 8.0
"""Silence after which clients and the gateway give a stalled upstream up."""

_STALL_SECONDS = 30.0
HELD_SECONDS = 600.0
"""How long the provider holds a call still whose door is about to be stopped or killed."""

_PACE_SECONDS = 0.004
_SLOW_PACE_SECONDS = 0.02
"""Between two tokens: so slow that a caller who leaves leaves before the end."""

MAX_REACTION_TOKENS = 14
"""What a provider still generates before it notices: 7 to 15 tokens are named for OpenAI."""

GIVE_UP_SECONDS = 0.3
"""How long a caller still waits who leaves before the headers, when the provider has the call, or
before the first chunk, when the headers are there."""

MODELS = {
    Dialect.CHAT: "gpt-4o",
    Dialect.RESPONSES: "gpt-4.1",
    Dialect.COMPLETIONS: "gpt-3.5-turbo-instruct",
}

_PROMPTS = (
    "Name the clause you rely on, and keep it short.",
    "Bitte prüfen Sie die Rechnungsnummer 2026-04711 und antworten Sie höflich.",
    "请根据以下会议记录写一份摘要。",
    "def retry(call, attempts=3): ...",
)


class Act(StrEnum):
    """What the caller does once the moment has come."""

    READ = "read"
    CLOSE = "close"
    TEAR = "tear"
    PAUSE = "pause"
    STOP_READING = "stop_reading"
    GATE = "gate"
    """It tells that it is there, and goes on when it is told to."""


_ACTS = {
    Fault.CLIENT_FIN: Act.CLOSE,
    Fault.CLIENT_RST: Act.TEAR,
    Fault.SLOW_READER: Act.PAUSE,
    Fault.NEVER_READS: Act.STOP_READING,
    Fault.LEDGER_AWAY: Act.GATE,
}

_PROVIDER_FAULTS: dict[Fault, FaultKind] = {
    Fault.UPSTREAM_FIN: "eof",
    Fault.UPSTREAM_RST: "rst",
    Fault.UPSTREAM_STALL: "stall",
    Fault.ERROR_EVENT: "error_event",
    Fault.MISSING_END: "fin",
    Fault.GARBAGE: "garbage",
    Fault.SIGTERM: "stall",
    Fault.SIGKILL: "stall",
}

_PLACES = {
    Moment.HEADERS: "headers",
    Moment.FIRST_CHUNK: "headers",
    Moment.MID: "mid",
    Moment.FINISH: "after_finish",
    Moment.USAGE: "after_usage",
    Moment.END: "after_done",
}
"""The moments of the matrix in the simulator's words."""

_CHUNKS_BEFORE_OUTPUT = {Dialect.CHAT: 1, Dialect.COMPLETIONS: 0, Dialect.RESPONSES: 4}
"""Chunks that only announce: a caller leaves in mid-stream after some with output."""

HOLDS = (Fault.SIGTERM, Fault.SIGKILL)
"""Faults of the door: the provider holds the call still at the moment until they have struck."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call of a cell. The caller's moment in mid-stream is after `leave_after` chunks."""

    cell: Cell
    number: int
    body: dict[str, Any]
    script: Script
    act: Act
    leave_after: int

    @property
    def tag(self) -> str:
        """Its name in the provider's bill and in the ledger's tags."""
        return f"{self.cell.name}/{self.number}"

    @property
    def asks_for_usage(self) -> bool:
        """Whether the caller asked; else it must not see the usage chunk that the door asks for."""
        return "stream_options" in self.body or self.cell.dialect is Dialect.RESPONSES


def plan_call(cell: Cell, number: int, seed: int) -> PlannedCall:
    """Call `number` of a cell. Door and ledger do not matter: all get the same call."""
    rng = random.Random(f"{seed}:{cell.fault}:{cell.dialect}:{cell.moment}:{number}")
    act = _ACTS.get(cell.fault, Act.READ)
    return PlannedCall(
        cell=cell,
        number=number,
        body=_body(cell, number, rng, act),
        script=_script(cell, rng, act),
        act=act,
        leave_after=rng.randint(3, 12) + _CHUNKS_BEFORE_OUTPUT[cell.dialect],
    )


def _body(cell: Cell, number: int, rng: random.Random, act: Act) -> dict[str, Any]:
    prompt = rng.choice(_PROMPTS)
    body: dict[str, Any] = {"model": MODELS[cell.dialect], "stream": True}
    match cell.dialect:
        case Dialect.CHAT:
            body["messages"] = [{"role": "user", "content": prompt}]
        case Dialect.RESPONSES:
            return body | {"input": prompt}
        case Dialect.COMPLETIONS:
            body["prompt"] = prompt
    # Who acts when the usage is there must see it; of the others every second one asks.
    if number % 2 == 0 or (act is not Act.READ and cell.moment is Moment.USAGE):
        body["stream_options"] = {"include_usage": True}
    return body


def _script(cell: Cell, rng: random.Random, act: Act) -> Script:
    is_early = cell.moment in (Moment.HEADERS, Moment.FIRST_CHUNK)
    acts_in_time = act in (Act.CLOSE, Act.TEAR, Act.GATE)
    in_mid = (acts_in_time or cell.fault is Fault.GARBAGE) and cell.moment is Moment.MID
    return Script(
        output_tokens=rng.randint(45, 60) if in_mid else rng.randint(20, 50),
        language=rng.choice(("english", "german", "chinese", "code")),
        pacing_s=_SLOW_PACE_SECONDS if in_mid else _PACE_SECONDS,
        first_token_delay_s=HELD_SECONDS if _waits_for_the_first_chunk(cell, act) else 0.0,
        tokens_per_chunk=1 if acts_in_time else rng.choice((1, 2, 3)),
        packet_bytes=0 if is_early else rng.choice((0, 0, 61)),
        reaction_tokens=rng.randint(0, MAX_REACTION_TOKENS),
        fault=_provider_fault(cell, act),
        seed=rng.randrange(1 << 30),
    )


def _waits_for_the_first_chunk(cell: Cell, act: Act) -> bool:
    return cell.moment is Moment.FIRST_CHUNK and act in (Act.CLOSE, Act.TEAR)


def _provider_fault(cell: Cell, act: Act) -> ProviderFault | None:
    seconds = HELD_SECONDS if cell.fault in HOLDS else _STALL_SECONDS
    if cell.fault is Fault.SERVER_ERROR:
        return ProviderFault("http_500", "headers")
    if cell.moment is Moment.HEADERS:
        if act in (Act.CLOSE, Act.TEAR):
            return ProviderFault("stall_before_headers", "headers", HELD_SECONDS)
        match cell.fault:
            case Fault.UPSTREAM_FIN:
                return ProviderFault("stall_before_headers", "headers", 0.0)
            case Fault.UPSTREAM_RST:
                return ProviderFault("rst_before_headers", "headers")
            case Fault.UPSTREAM_STALL | Fault.SIGTERM | Fault.SIGKILL:
                return ProviderFault("stall_before_headers", "headers", seconds)
            case _:
                return None
    kind = _PROVIDER_FAULTS.get(cell.fault)
    if kind is None:
        return None
    if kind == "stall" and cell.moment is Moment.END:
        kind = "hold_after_done"
    return ProviderFault(kind, _PLACES[cell.moment], seconds)
