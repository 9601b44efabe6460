"""What a provider can tell us, as closed facts: every dialect is brought to these.

Those that come with every chunk are msgspec structs: they are made in a tenth of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from lastchunk.usage import TokenCounts


@dataclass(frozen=True, slots=True)
class ResponseNamed:
    """The provider's own id, the model that really serves, the tier that really serves."""

    response_id: str | None
    model: str | None
    service_tier: str | None


class TextKind(StrEnum):
    """Visible output that is not a tool call."""

    CONTENT = "content"
    REFUSAL = "refusal"
    TRANSCRIPT = "transcript"


class TextArrived(msgspec.Struct, frozen=True):
    """Visible text. `logprob_tokens`: tokens in this piece by the provider's own logprobs."""

    choice: int
    kind: TextKind
    text: str
    logprob_tokens: int | None = None


class ReasoningArrived(msgspec.Struct, frozen=True):
    """Reasoning text; a summary is shorter than the reasoning that is billed."""

    choice: int
    text: str
    summary: bool = False


class ToolTextArrived(msgspec.Struct, frozen=True):
    """A piece of a tool call: `call` numbers the calls of one choice."""

    choice: int
    call: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChoiceFinished:
    """One choice is complete, for this reason, as the provider words it."""

    choice: int
    reason: str


@dataclass(frozen=True, slots=True)
class UsageReported:
    """The provider's numbers. `final` where no later report of this call can differ."""

    counts: TokenCounts
    final: bool


@dataclass(frozen=True, slots=True)
class ProviderFailed:
    """An error said by the provider, inside or instead of a stream. The message is never kept."""

    code: str | None


@dataclass(frozen=True, slots=True)
class Terminated:
    """The dialect's own end: `[DONE]`, or a terminal event."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that follow no dialect; how many."""

    size: int


Event = (
    ResponseNamed
    | TextArrived
    | ReasoningArrived
    | ToolTextArrived
    | ChoiceFinished
    | UsageReported
    | ProviderFailed
    | Terminated
    | Unreadable
)
