"""The text of a JSON schema that an answer must follow, as the model is shown it."""

from __future__ import annotations

import json

from lastchunk.wire.prompt import AnswerSchema

DEEPEST = 60
"""Levels of a schema written; deeper ones are left out."""

_NOT_SHOWN = frozenset(
    {
        "$schema",
        "additionalProperties",
        "required",
        "default",
        "format",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
    }
)
"""Keywords that constrain the decoder and cost no token (measured on recordings)."""

_HOLDS_NAMES = frozenset({"properties", "$defs", "definitions"})


def format_text(schema: AnswerSchema) -> str:
    """`# Response Formats`, the format's name and the compact schema, non-ASCII escaped."""
    description = f"// {schema.description}\n" if schema.description else ""
    shown = json.dumps(_shown(schema.schema, False, DEEPEST), separators=(",", ":"))
    return f"# Response Formats\n\n## {schema.name}\n\n{description}{shown}"


def _shown(value: object, names: bool, levels: int) -> object:
    """`value` without what is not shown; `names`: its keys are names, not keywords."""
    if levels == 0:
        return None
    if isinstance(value, dict):
        return {
            key: _shown(inner, not names and key in _HOLDS_NAMES, levels - 1)
            for key, inner in value.items()
            if names or key not in _NOT_SHOWN
        }
    if isinstance(value, list):
        return [_shown(inner, False, levels - 1) for inner in value]
    return value
