"""A story: what the provider does, how the caller leaves, and the account that must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from story_tape import Tape

from lastchunk.meter.ending import Ending
from lastchunk.simulator import Fault, Rendered, Script
from lastchunk.usage import Basis

Json = dict[str, Any]

SECRET = "heron-quartz-77"
"""Stands in every prompt; must stand in no ledger."""

CHAT: Json = {
    "model": "gpt-4o",
    "stream": True,
    "messages": [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": f"What does {SECRET} mean?"},
    ],
}
RESPONSES: Json = {"model": "gpt-4o", "stream": True, "input": f"What does {SECRET} mean?"}
COMPLETIONS: Json = {
    "model": "gpt-3.5-turbo-instruct",
    "stream": True,
    "prompt": f"What does {SECRET} mean?",
}
WEATHER: Json = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["place", "days"],
    },
}
TOOLS: Json = {**CHAT, "tools": [{"type": "function", "function": WEATHER}]}
RESPONSES_TOOLS: Json = {**RESPONSES, "tools": [{"type": "function", **WEATHER}]}
PATHS = {"messages": "chat/completions", "input": "responses", "prompt": "completions"}

ALL = ("pure", "sync", "async", "gateway")
SOCKETS = ("sync", "async", "gateway")
STALL_SECONDS = 20.0


class Leave(Enum):
    """How the caller leaves, once it has read all that was delivered."""

    AT_END = "reads to the end"
    CLOSE = "breaks and closes"
    DROP = "breaks and drops the stream"
    RAISE = "raises in its with block"
    TIMEOUT = "has a read timeout"
    CANCEL = "is cancelled"
    DEADLINE = "is over its asyncio.timeout"
    NEVER = "never iterates"


@dataclass(frozen=True)
class Row:
    """One attempt's account. `basis` is the output's; None: nothing was used, it is released."""

    ending: Ending
    basis: Basis | None


REPORTED = Row(Ending.COMPLETED, Basis.REPORTED)
COMPLETED_COUNTED = Row(Ending.COMPLETED, Basis.COUNTED)
LEFT = Row(Ending.CALLER_LEFT, Basis.COUNTED)
LEFT_BOUNDED = Row(Ending.CALLER_LEFT, Basis.BOUNDED)
LEFT_ASSUMED = Row(Ending.CALLER_LEFT, Basis.ASSUMED)
CUT = Row(Ending.UPSTREAM_CUT, Basis.COUNTED)
FAILED = Row(Ending.UPSTREAM_FAILED, Basis.COUNTED)
TIMED_OUT = Row(Ending.UPSTREAM_TIMEOUT, Basis.COUNTED)
REFUSED = Row(Ending.REFUSED, None)


@dataclass(frozen=True)
class Story:
    """One call. `claim` names it, `trap` is its number in facts/billing-and-traps.md.

    `rows` are the attempts in order; `on` has other rows for single stages. `sees_all` False: the
    network may have swallowed the end of what was sent, so the caller sees a beginning of it.
    `truth_known` False: what the provider reports is not its bill. `retold`: the script's body is
    not sent by the simulator but told in another way, by a tape.
    """

    claim: str
    trap: str = ""
    request: Json = field(default_factory=lambda: CHAT)
    script: Script = field(default_factory=Script)
    leave: Leave = Leave.AT_END
    rows: tuple[Row, ...] = (REPORTED,)
    on: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    stages: tuple[str, ...] = ALL
    retries: int = 0
    error: str | None = None
    sees_all: bool = True
    truth_known: bool = True
    retold: Callable[[Rendered], Tape] | None = None

    @property
    def endpoint(self) -> str:
        return next(path for key, path in PATHS.items() if key in self.request)

    @property
    def streamed(self) -> bool:
        return bool(self.request.get("stream"))

    @property
    def asked_for_usage(self) -> bool:
        """Whether the caller itself will be sent the usage."""
        told = self.request.get("stream_options", {}).get("include_usage", False)
        return bool(told) or not self.streamed or self.endpoint == "responses"

    @property
    def sent_request(self) -> Json:
        """The request as the provider gets it: with our asking."""
        refuses = self.script.fault is not None and self.script.fault.kind == ASKING_REFUSED
        if self.asked_for_usage or refuses:
            return self.request
        options = {**self.request.get("stream_options", {}), "include_usage": True}
        return {**self.request, "stream_options": options}

    def expected(self, stage: str) -> tuple[Row, ...]:
        return self.on.get(stage, self.rows)


ASKING_REFUSED = "reject_stream_options"


def asking(request: Json, **options: Any) -> Json:
    """The request of a caller who asks for the usage chunk itself."""
    return {**request, "stream_options": {"include_usage": True, **options}}


def plain(request: Json) -> Json:
    """The same, not streamed."""
    return {key: value for key, value in request.items() if key not in ("stream", "stream_options")}


def stalled(at: int | str, **script: Any) -> Script:
    """A provider that falls silent there, so that what was delivered is certain."""
    return replace(Script(**script), fault=Fault("stall", at=at, seconds=STALL_SECONDS))


def broken(fault: Any, at: int | str = "mid", **script: Any) -> Script:
    """A provider of which this goes wrong."""
    return replace(Script(**script), fault=Fault(fault, at=at, seconds=STALL_SECONDS))


def played(*stories: Story) -> list[Any]:
    """Every story on each of its stages, as parameters with the claim as id."""
    import pytest

    return [
        pytest.param(story, stage, id=f"{story.trap or '-'}-{story.claim}-{stage}")
        for story in stories
        for stage in story.stages
    ]
