"""What a request says to the model, in one form for every dialect. Holds content: never stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ToolChoice(StrEnum):
    """What the request lets the model do with its tools."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    FORCED = "forced"


@dataclass(frozen=True, slots=True, repr=False)
class Picture:
    """An image. Sizes in pixels, from the header of inline data; `None`: by URL, or unreadable."""

    width: int | None
    height: int | None
    detail: str


@dataclass(frozen=True, slots=True, repr=False)
class ToolCall:
    """A call that the model made earlier. `marked`: the item carries the provider's own status."""

    name: str
    arguments: str
    marked: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Turn:
    """One message or item of the conversation.

    `answers` is the name of the tool whose result this turn carries: `None` for a turn that is no
    result, empty where the call it belongs to is not in the request.
    """

    role: str
    texts: tuple[str, ...] = ()
    name: str | None = None
    pictures: tuple[Picture, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    answers: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Tool:
    """A function that the model may call, with the JSON schema of its parameters."""

    name: str
    description: str
    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True, repr=False)
class AnswerSchema:
    """The JSON schema that the answer must follow."""

    name: str
    description: str
    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True, repr=False)
class Prompt:
    """All of a request that is billed as input.

    `ready_tokens` counts prompts that were sent as token ids. `unknowns` names what makes the
    number not derivable from the request alone; empty where everything is understood.
    """

    turns: tuple[Turn, ...] = ()
    instructions: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice.AUTO
    forced_name: str = ""
    answer_schema: AnswerSchema | None = None
    prediction: str | None = None
    ready_tokens: int = 0
    unknowns: tuple[str, ...] = ()
