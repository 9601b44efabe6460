"""The shape of a call: a keyed hash of what a provider adds constants for, never of the text."""

from __future__ import annotations

import hashlib
import json
import re

from lastchunk.meter.observation import Observation
from lastchunk.tokens.encodings import base_model
from lastchunk.tokens.families import Family
from lastchunk.tokens.families import family_of as openai_family_of
from lastchunk.usage import OutputCounts
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.prompt import Prompt, Turn
from lastchunk.wire.request import CallRequest

_STEM_BYTES = 12
_CONVERSATION_BYTES = 6
_MOST_TURNS = 64
"""Turns of a kind told apart; a longer conversation has the shape of one that long."""

_AT = " @"
"""Between a family and its upstream."""

_FIRST_WORD = re.compile(r"[a-z]+")


def family_of(model: str, dialect: Dialect) -> str:
    """Models whose constants are alike: `chat gpt-4o`, `responses gpt-5`, `chat other llama`.

    A model unheard of belongs to its own name's first word, and learns there.
    """
    known = openai_family_of(model)
    if known is not Family.OTHER:
        return f"{dialect} {known.value}"
    word = _FIRST_WORD.search(base_model(model))
    return f"{dialect} {Family.OTHER.value} {word[0] if word else 'unnamed'}"


def class_of(model: str, request: CallRequest) -> str:
    """Whose calls teach one another: one family at one upstream, `chat gpt-4o @api.openai.com`.

    What an upstream reports says nothing about another one.
    """
    return f"{family_of(model, request.dialect)}{_AT}{_served_by(request)}"


def family_in(group: str) -> str:
    """The family of such a class, without its upstream."""
    return group.partition(_AT)[0]


def rounds_reasoning(group: str) -> bool:
    """Whether these models round hidden reasoning down, so that no output is known exactly."""
    return family_in(group).partition(" ")[2] in (Family.O_SERIES.value, Family.GPT_5.value)


def pool_of(group: str) -> str:
    """The families that one with few calls is compared with: those of its dialect and upstream."""
    family, at, upstream = group.partition(_AT)
    dialect, _, name = family.partition(" ")
    kind = "all rounding" if rounds_reasoning(group) else "all known"
    if name.partition(" ")[0] == Family.OTHER.value:
        kind = "all other"
    return f"{dialect} {kind}{at}{upstream}"


def shape_of(prompt: Prompt, request: CallRequest, model_served: str | None, key: bytes) -> str:
    """`stem.conversation`: what the request declares, then how its conversation is built.

    The stem covers dialect, upstream, family, tools, schema, tool choice and named unknowns; the
    second half adds which kinds of turns and parts there are, and how many. Without `key` (at most
    64 bytes are used) nobody can guess a declaration from its shape.
    """
    declared = _declared(prompt, request, model_served or request.model)
    stem = _hash(declared, key, _STEM_BYTES)
    return f"{stem}.{_hash([stem, *_conversation(prompt)], key, _CONVERSATION_BYTES)}"


def answer_shape_of(
    request: CallRequest,
    seen: Observation,
    counts: OutputCounts,
    key: bytes,
    *,
    tools_upstream: bool = False,
) -> str:
    """The shape of an ended answer: what its end-of-turn constants depend on.

    `counts` are its own; `tools_upstream` as for `answer_count`.
    """
    kinds = (counts.text_tokens, counts.refusal_tokens, counts.reasoning_tokens, counts.calls == 1)
    asked: list[object] = [
        family_of(seen.model_served or request.model, request.dialect),
        _served_by(request),
        seen.finish_reason,
        tools_upstream,
        request.tools_declared,
        request.tool_choice,
        request.json_schema,
        min(request.choices, _MOST_TURNS),
        *(bool(kind) for kind in kinds),
        counts.other_tokens > 0,
    ]
    stem = _hash(asked, key, _STEM_BYTES)
    return f"{stem}.{_hash([stem, min(counts.calls, _MOST_TURNS)], key, _CONVERSATION_BYTES)}"


def stem_of(shape: str) -> str:
    """The half of a shape that conversations with the same declarations share."""
    return shape.partition(".")[0]


def effort_at(request: CallRequest) -> str:
    """What decides how much is thought, as far as the request says it: `high @api.openai.com`."""
    return f"{request.reasoning_effort or ''}{_AT}{_served_by(request)}"


def upstream_in(name: str) -> str:
    """The upstream of a class or an effort; empty where none is named."""
    return name.partition(_AT)[2]


def _declared(prompt: Prompt, request: CallRequest, model: str) -> list[object]:
    schema = prompt.answer_schema
    pictures = any(turn.pictures for turn in prompt.turns)
    return [
        family_of(model, request.dialect),
        base_model(model) if pictures or openai_family_of(model) is Family.OTHER else "",
        _served_by(request),
        [[tool.name, tool.description, _written(tool.schema)] for tool in prompt.tools],
        None
        if schema is None
        else [schema.name, schema.description, _written(schema.schema), request.json_schema],
        prompt.tool_choice,
        prompt.forced_name,
        prompt.unknowns,
        prompt.prediction is not None,
        prompt.ready_tokens > 0,
    ]


def _conversation(prompt: Prompt) -> list[object]:
    turns = prompt.turns
    kinds: dict[str, int] = {}
    for turn in turns:
        kind = _kind(turn)
        kinds[kind] = min(_MOST_TURNS, kinds.get(kind, 0) + 1)
    pictures = sum(len(turn.pictures) for turn in turns)
    return [prompt.instructions is not None, sorted(kinds.items()), min(pictures, _MOST_TURNS)]


def _kind(turn: Turn) -> str:
    """The role, and which kinds of parts a turn has; a role of the caller's making is one kind."""
    known = turn.role in ("", "system", "developer", "user", "assistant", "tool", "function")
    parts = [turn.role if known else "other", str(min(len(turn.calls), _MOST_TURNS))]
    for name, is_there in (
        ("name", turn.name is not None),
        ("answer", turn.answers is not None),
        ("picture", bool(turn.pictures)),
        ("text", any(turn.texts)),
        ("marked", any(call.marked for call in turn.calls)),
    ):
        if is_there:
            parts.append(name)
    return " ".join(parts)


def _served_by(request: CallRequest) -> str:
    """Azure's hosts are one provider; any other upstream is its own."""
    return "azure" if request.azure else request.upstream


def _written(schema: object) -> str:
    """A schema as it stands, keys in the wire's order: the order is rendered too."""
    try:
        return json.dumps(schema)
    except (RecursionError, ValueError, TypeError):
        return f"unwritable {len(schema) if isinstance(schema, dict) else 0}"


def _hash(parts: list[object], key: bytes, size: int) -> str:
    text = json.dumps(parts, default=str)
    return hashlib.blake2b(text.encode(), digest_size=size, key=key[:64]).hexdigest()
