"""Declared functions as the text that the model reads: what they add to a prompt.

This is the simulator's own, independent rendering of the known form for schemas of a plain shape.
"""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]


def namespace_text(functions: list[Json]) -> str:
    """`namespace functions { type name = (_: {...}) => any; ... }`."""
    lines = ["namespace functions {", ""]
    for function in functions:
        lines += _comment(function.get("description") or "", "")
        lines += [_type_line(function), ""]
    lines.append("} // namespace functions")
    return "\n".join(lines)


def _type_line(function: Json) -> str:
    schema = function.get("parameters") or {}
    if not schema.get("properties"):
        return f"type {function.get('name')} = () => any;"
    title = "".join(f"{line}\n" for line in _comment(schema.get("title") or "", ""))
    body = _object(schema, schema, "")
    return f"type {function.get('name')} = (_: {title}{body}) => any;"


def _object(schema: Json, root: Json, indent: str) -> str:
    required = schema.get("required") or []
    fields: list[tuple[list[str], str]] = []
    for name, field in schema["properties"].items():
        field = _resolved(field, root)
        comments = _comment(field.get("title") or "", indent)
        described = _comment(field.get("description") or "", indent)
        if comments and described:
            comments.append(f"{indent}//")
        mark = "" if name in required else "?"
        text = f"{name}{mark}: {_type(field, root, indent)},{_default(field)}"
        fields.append((comments + described, text))
    if not any(comments or " // default" in text for comments, text in fields):
        inline = " ".join(text for _, text in fields)
        return "{" + inline.removesuffix(",") + "}"
    lines = ["{"]
    for comments, text in fields:
        lines += [*comments, f"{indent}{text}"]
    return "\n".join([*lines, indent + "}"])


def _default(field: Json) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    said = value if isinstance(value, str) and "enum" in field else json.dumps(value)
    return f" // default: {said}"


def _type(field: Json, root: Json, indent: str) -> str:
    field = _resolved(field, root)
    if "enum" in field:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in field["enum"])
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " | ".join(_type(option, root, indent) for option in field[key])
    kind = field.get("type", "any")
    if isinstance(kind, list):
        return " | ".join(_type({**field, "type": one}, root, indent) for one in kind)
    match kind:
        case "integer":
            return "number"
        case "array":
            return _type(field.get("items") or {}, root, indent) + "[]"
        case "object" if field.get("properties"):
            return _object(field, root, indent)
        case _:
            return str(kind)


def _resolved(field: Json, root: Json) -> Json:
    reference = field.get("$ref")
    if not isinstance(reference, str):
        return field
    target: Any = root
    for step in reference.removeprefix("#/").split("/"):
        target = target.get(step, {}) if isinstance(target, dict) else {}
    return {**target, **{key: value for key, value in field.items() if key != "$ref"}}


def _comment(text: str, indent: str) -> list[str]:
    return [f"{indent}// {line.strip()}" for line in text.splitlines() if line.strip()]
