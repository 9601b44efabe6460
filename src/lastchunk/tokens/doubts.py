"""How far a counted prompt may be off, by what is in it: one table, calibrated on recordings."""

from __future__ import annotations

from dataclasses import dataclass

from lastchunk.tokens.dated import PARALLEL_NAMESPACE_TOKENS


@dataclass(frozen=True, slots=True)
class Doubt:
    """Tokens to add to a count: at least, most likely, at most."""

    least: int
    likely: int
    most: int

    def __add__(self, other: Doubt) -> Doubt:
        return Doubt(self.least + other.least, self.likely + other.likely, self.most + other.most)

    def times(self, number: int) -> Doubt:
        return Doubt(self.least * number, self.likely * number, self.most * number)


NO_DOUBT = Doubt(0, 0, 0)

TOOLS = Doubt(-1, 0, 1)
"""Tools are declared: 94 % of these recordings are exact, all are within two."""
UNSETTLED = Doubt(-2, 0, 2)
"""A place in a tool's schema whose rendering is not settled."""
SCHEMA_LIMIT = Doubt(0, 0, 100_000)
"""A schema so large or deep that part of it was not rendered."""
BUNDLE = Doubt(-2, 0, 2)
"""Several calls in one turn, and their results."""
EARLY_RESPONSES = Doubt(0, 0, 60)
"""The first weeks of responses, on models other than gpt-4o."""
EARLY_TOOLS = Doubt(-PARALLEL_NAMESPACE_TOKENS, 0, 5)
"""The same with tools: where parallel calls were switched off, their namespace is not there."""
MARKED_CALL = Doubt(-3, 0, 0)
"""A call item with the provider's status: three tokens more in most recordings, not in all."""
REASONING_ROUND = Doubt(-3, 0, 3)
"""A call and its result, given back to a model that reasons."""

_LATER = Doubt(0, 100, 20_000)
_UNKNOWNS: dict[str, Doubt] = {
    "previous_response_id": Doubt(-10, 40, 200_000),
    "conversation": Doubt(0, 40, 200_000),
    "context_management": Doubt(-1_000, 0, 100),
    "prompt_template": Doubt(0, 200, 50_000),
    "encrypted_reasoning": Doubt(0, 30, 10_000),
    "stored_reasoning": Doubt(0, 30, 10_000),
    "reasoning_mode": Doubt(1_500, 1_550, 2_500),
    "reasoning_context": Doubt(0, 0, 30),
    "allowed_tools": Doubt(-10, 0, 10),
    "suffix": Doubt(0, 5, 10_000),
    "file": Doubt(0, 500, 200_000),
    "audio": Doubt(0, 50, 50_000),
    "tool_choice": Doubt(0, 5, 100),
    "builtin_tool:web_search": Doubt(-15, 300, 20_000),
    "builtin_tool:web_search_preview": Doubt(0, 294, 20_000),
    "builtin_tool:file_search": Doubt(0, 1_150, 30_000),
    "builtin_tool:code_interpreter": Doubt(0, 1_470, 30_000),
    "builtin_tool:image_generation": Doubt(0, 1_800, 30_000),
    "builtin_tool:tool_search": Doubt(0, 150, 5_000),
    "builtin_tool": Doubt(0, 280, 30_000),
    "item:compaction": Doubt(-1_000, 260, 50_000),
}
_COUNTED_ELSEWHERE = frozenset({"image_by_url", "image_by_id", "image_unreadable"})


def doubt_of(unknown: str) -> Doubt:
    """What a named unknown may add; the name before the colon speaks for its kind."""
    if unknown in _COUNTED_ELSEWHERE:
        return NO_DOUBT
    kind = unknown.split(":", 1)[0]
    return _UNKNOWNS.get(unknown) or _UNKNOWNS.get(kind) or _LATER
