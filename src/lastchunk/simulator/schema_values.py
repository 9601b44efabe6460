"""Values that satisfy a JSON schema, so that a client's own validation accepts the answer."""

from __future__ import annotations

import random
from typing import Any

Json = dict[str, Any]
# Recursive schemas exist; below this depth optional parts are left out.
MAX_DEPTH = 6


def value_of(schema: Json, text: str, rng: random.Random) -> Any:
    """A value of `schema`; its first free string is `text`, so that its length can be chosen."""
    texts = [text]
    return _value(schema, schema, texts, rng, 0)


def _value(schema: Json, root: Json, texts: list[str], rng: random.Random, depth: int) -> Any:
    schema = _resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            option = schema[key][0] if depth < MAX_DEPTH else schema[key][-1]
            return _value(option, root, texts, rng, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            fields = schema.get("properties") or {}
            return {k: _value(v, root, texts, rng, depth + 1) for k, v in fields.items()}
        case "array":
            if depth >= MAX_DEPTH:
                return []
            size = max(1, int(schema.get("minItems", 1)))
            item = schema.get("items") or {}
            return [_value(item, root, texts, rng, depth + 1) for _ in range(size)]
        case "integer":
            return int(schema.get("minimum", 0)) + rng.randint(1, 9)
        case "number":
            return float(schema.get("minimum", 0)) + rng.randint(1, 9) / 4
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
        case _:
            return texts.pop() if texts else rng.choice(("north", "harbour", "Zürich", "7 pm"))


def _resolved(schema: Json, root: Json) -> Json:
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return schema
    target: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step:
            target = target.get(step, {}) if isinstance(target, dict) else {}
    return target if isinstance(target, dict) else {}
