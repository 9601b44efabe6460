"""What each model family adds around the texts of a prompt and of an answer: one table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from lastchunk.tokens.encodings import base_model
from lastchunk.wire.dialect import Dialect


class Family(Enum):
    """Models that are prompted and that answer alike."""

    GPT_3_5 = "gpt-3.5"
    GPT_4 = "gpt-4"
    GPT_4_TURBO = "gpt-4-turbo"
    GPT_4O = "gpt-4o"
    O_SERIES = "o-series"
    GPT_5 = "gpt-5"
    GPT_5_1 = "gpt-5.1 to gpt-5.3"
    GPT_5_4 = "gpt-5.4 and later"
    OTHER = "other"

    @property
    def reasons(self) -> bool:
        return self in _REASONING


_REASONING = frozenset({Family.O_SERIES, Family.GPT_5, Family.GPT_5_1, Family.GPT_5_4})

_PREFIXES: tuple[tuple[str, Family], ...] = (
    ("davinci-002", Family.GPT_3_5),
    ("babbage-002", Family.GPT_3_5),
    ("gpt-3.5", Family.GPT_3_5),
    ("gpt-35", Family.GPT_3_5),
    ("gpt-4o", Family.GPT_4O),
    ("gpt4o", Family.GPT_4O),
    ("gpt-4.1", Family.GPT_4O),
    ("gpt-41", Family.GPT_4O),
    ("gpt-4.5", Family.GPT_4O),
    ("chatgpt-4o", Family.GPT_4O),
    ("gpt-4-turbo", Family.GPT_4_TURBO),
    ("gpt-4-1106", Family.GPT_4_TURBO),
    ("gpt-4-0125", Family.GPT_4_TURBO),
    ("gpt-4-vision", Family.GPT_4_TURBO),
    ("gpt-4", Family.GPT_4),
    ("gpt4", Family.GPT_4),
    ("gpt-5.1", Family.GPT_5_1),
    ("gpt-5.2", Family.GPT_5_1),
    ("gpt-5.3", Family.GPT_5_1),
    ("gpt-5.", Family.GPT_5_4),
    ("gpt-5-chat", Family.GPT_4O),
    ("gpt-5", Family.GPT_5),
    ("o1", Family.O_SERIES),
    ("o3", Family.O_SERIES),
    ("o4", Family.O_SERIES),
)


def family_of(model: str) -> Family:
    """The family by the model's name; the first prefix that fits speaks."""
    name = base_model(model)
    for prefix, family in _PREFIXES:
        if name.startswith(prefix):
            return family
    return Family.OTHER


@dataclass(frozen=True, slots=True)
class PromptRules:
    """Tokens around the texts of a prompt. Measured on recordings, by fitting usage."""

    opening: int = 3
    """Once a prompt: the opening of the answer."""
    turn: int = 4
    """Each message."""
    past_answer: int = 0
    """More for each earlier text of the assistant."""
    tools: int = 5
    """The heading above the namespace of declared tools."""
    tools_turn: int = 4
    """The message that holds the tools where there is no system message to join."""
    joins_system: bool = True
    """Tools and formats are a section of the system message, behind a blank line."""
    bare_tool: int = 0
    """More where the first tool has no description."""
    none: int = 0
    forced: int | None = 6
    """Besides the name of the forced function; `None`: forcing adds nothing."""
    forces_only_tool: bool = False
    """Where a call is required and one tool declared, that tool is forced."""
    call: int = 6
    """An earlier call, besides `functions.name` and arguments."""
    call_turn: int = 0
    """More for each turn that calls, however many calls it holds."""
    result: int = 6
    """Its result, besides the tool's name and the content."""
    bundles_calls: bool = True
    """Several calls of one turn are one call of `multi_tool_use.parallel`."""
    bundled_results: int = 10
    """Their results, besides their contents: one message that holds a JSON array of them."""
    marked_call: int = 0
    """More for a call item that carries the provider's status and has no other call beside it."""
    schema: int = 0
    """The answer's JSON schema, besides its text."""
    schema_turn: int = 4
    """The message that holds the schema where nothing is there to join."""
    schema_heading: int = 2
    """Each answer's heading under a schema, past and coming, besides the format's name."""
    names_format: bool = True
    schema_behind_tools: int = 1
    """Instead of the headings, where tools are declared: the answer may be a call."""


_CHAT = PromptRules(none=1)
_CHAT_REASONING = PromptRules(
    opening=2,
    past_answer=2,
    tools=90,
    tools_turn=1,
    bare_tool=-1,
    forced=None,
    bundles_calls=False,
    call_turn=6,
    result=6,
    schema=3,
    schema_turn=0,
    names_format=False,
)
_RESPONSES = PromptRules(
    tools=3,
    tools_turn=0,
    none=1,
    forces_only_tool=True,
    bundles_calls=False,
    call=4,
    result=6,
    marked_call=3,
    schema_behind_tools=0,
    schema=1,
    schema_turn=0,
    names_format=False,
)
_RESPONSES_REASONING = replace(_CHAT_REASONING, tools=9, tools_turn=0, joins_system=False, schema=0)
_RESPONSES_LATER = replace(_RESPONSES_REASONING, call_turn=7)

_CHAT_O_SERIES = replace(_CHAT_REASONING, tools=9, call_turn=0)


def prompt_rules(dialect: Dialect, family: Family) -> PromptRules:
    """The rules of a chat-like dialect; a family that is not known is taken for gpt-4o."""
    if dialect is Dialect.RESPONSES:
        if family is Family.GPT_5_4:
            return _RESPONSES_LATER
        return _RESPONSES_REASONING if family.reasons else _RESPONSES
    if family is Family.O_SERIES:
        return _CHAT_O_SERIES
    return _CHAT_REASONING if family.reasons else _CHAT
