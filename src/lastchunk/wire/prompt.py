"""Reads a request body as what the model is told, for any dialect and any JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from lastchunk.wire.dialect import Dialect
from lastchunk.wire.prompt_chat import read_chat
from lastchunk.wire.prompt_parts import (
    AnswerSchema,
    Picture,
    Prompt,
    Tool,
    ToolCall,
    ToolChoice,
    Turn,
)
from lastchunk.wire.prompt_reading import Unknowns, items
from lastchunk.wire.prompt_responses import read_responses

__all__ = [
    "AnswerSchema",
    "Picture",
    "Prompt",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "Turn",
    "read_prompt",
]


def read_prompt(dialect: Dialect, body: Mapping[str, object]) -> Prompt:
    """The prompt of a request; never raises: what is not understood becomes a named unknown."""
    match dialect:
        case Dialect.CHAT:
            return read_chat(body)
        case Dialect.RESPONSES:
            return read_responses(body)
        case Dialect.COMPLETIONS:
            return _read_completion(body)
        case _:
            assert_never(dialect)


def _read_completion(body: Mapping[str, object]) -> Prompt:
    """A legacy prompt: a text, texts, token ids, or several lists of token ids."""
    unknowns = Unknowns()
    prompt = body.get("prompt")
    texts: list[str] = []
    ready_tokens = 0
    for value in [prompt] if isinstance(prompt, str) else items(prompt):
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            ready_tokens += len(value)
        elif isinstance(value, int):
            ready_tokens += 1
        else:
            unknowns.add("prompt")
    if prompt is not None and not isinstance(prompt, str | list):
        unknowns.add("prompt")
    if body.get("suffix"):
        unknowns.add("suffix")
    turns = tuple(Turn("", (piece,)) for piece in texts)
    return Prompt(turns=turns, ready_tokens=ready_tokens, unknowns=unknowns.sorted())
