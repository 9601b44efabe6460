"""Declared tools as the TypeScript namespace that OpenAI's models are shown.

The base was worked out by public projects; the rest is fitted to recordings: what a schema of this
kind added to the provider's own usage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lastchunk.wire.prompt import Tool

Schema = Mapping[str, object]

MOST_CHARACTERS = 2 * 1024 * 1024
"""Rendered of one request's tools. `$ref` may multiply a small schema without end."""

NODE_CHARACTERS = 16
"""What a schema node costs of these besides its texts, so that empty ones cost too."""

LONGEST_CHAIN = 16
"""References and single `allOf` members followed, one behind the other, to one schema."""

DEEPEST = 40
"""Levels of a schema rendered. Deeper ones stand as `any`, and the text counts as cut."""

_SCALARS = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean"}
_BOUNDS = ("minimum", "maximum", "minItems", "maxItems")
_UNSEEN = (
    "pattern",
    "minLength",
    "maxLength",
    "multipleOf",
    "examples",
    "not",
    "patternProperties",
)
"""Keywords that no recording shows: perhaps rendered, perhaps not."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered text. `doubts`: places whose rendering is not settled; `cut`: a limit was met."""

    text: str
    doubts: int = 0
    cut: bool = False


@dataclass(slots=True)
class _Rendering:
    """One schema being rendered: what `$ref` names, what is open, and what it may still cost."""

    root: Schema
    left: int
    doubts: int = 0
    cut: bool = False
    open_references: set[str] = field(default_factory=set)

    def spend(self, characters: int) -> bool:
        """Takes from the budget; False, for good, once it is gone."""
        self.left -= characters
        self.cut = self.cut or self.left < 0
        return self.left >= 0


def namespace_text(tools: Iterable[Tool]) -> Rendered:
    """The namespace of declared functions, one `type name = (_: {…}) => any;` each."""
    lines = ["namespace functions {", ""]
    left, doubts, cut = MOST_CHARACTERS, 0, False
    for tool in tools:
        rendering = _Rendering(tool.schema, left)
        if not rendering.spend(len(tool.name) + len(tool.description) + NODE_CHARACTERS):
            cut = True
            break
        lines += _comment(tool.description)
        lines += [f"type {tool.name} = ({_parameters(rendering)}) => any;", ""]
        left, doubts, cut = rendering.left, doubts + rendering.doubts, cut or rendering.cut
    lines.append("} // namespace functions")
    return Rendered("\n".join(lines), doubts, cut)


def compact_json(value: object) -> str:
    """JSON without white space; `null` for what nests too deep to be written."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (RecursionError, ValueError):
        return "null"


def _parameters(rendering: _Rendering) -> str:
    schema = _resolved(rendering.root, rendering)
    if not _properties(schema):
        return ""
    title = _text(schema.get("title"))
    heading = f"// {title}\n" if title else ""
    return f"_: {heading}{_object(schema, rendering, 0)}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _schema(value: object) -> Schema:
    return value if isinstance(value, dict) else {}


def _properties(schema: Schema) -> Schema:
    return _schema(schema.get("properties"))


def _comment(description: object) -> list[str]:
    return [f"// {line.strip()}" for line in _text(description).split("\n") if line.strip()]


def _object(schema: Schema, rendering: _Rendering, depth: int) -> str:
    """An object type: on one line where no property has a comment, else a line for each."""
    required = schema.get("required")
    needed = {x for x in required if isinstance(x, str)} if isinstance(required, list) else set()
    lines: list[str] = []
    plain: list[str] = []
    for name, value in _properties(schema).items():
        member = _resolved(_schema(value), rendering)
        above = _above(member)
        default = _default(member)
        if not rendering.spend(len(name) + len(default) + sum(map(len, above))):
            break
        kind = _type(member, rendering, depth + 1)
        entry = f"{name}{'' if name in needed else '?'}: {kind}"
        lines += [*above, f"{entry},{default}"]
        if not above and not default:
            plain.append(entry)
    if len(plain) == len(lines):
        return "{" + ", ".join(plain) + "}"
    return "\n".join(["{", *lines, "}"])


def _above(member: Schema) -> list[str]:
    title = _text(member.get("title"))
    description = _comment(member.get("description"))
    bounds = [] if _options(member) else [f"// - {bound}" for bound in _bounds(member)]
    if title and description:
        return [f"// {title}", "//", *description, *bounds]
    return [*([f"// {title}"] if title else []), *description, *bounds]


def _bounds(schema: Schema) -> list[str]:
    return [f"{key}: {compact_json(schema[key])}" for key in _BOUNDS if key in schema]


def _default(member: Schema) -> str:
    if "default" not in member:
        return ""
    value = member["default"]
    if isinstance(value, str):
        return f" // default: {value}" if "enum" in member else f' // default: "{value}"'
    return f" // default: {compact_json(value)}"


def _resolved(schema: Schema, rendering: _Rendering) -> Schema:
    """`schema` with its `$ref`, or the only member of its `allOf`, merged in under its own keys."""
    for _ in range(LONGEST_CHAIN):
        members = schema.get("allOf")
        reference = _text(schema.get("$ref"))
        if isinstance(members, list) and len(members) == 1:
            own = {key: value for key, value in schema.items() if key != "allOf"}
            schema = {**_schema(members[0]), **own}
        elif reference.startswith("#"):
            own = {key: value for key, value in schema.items() if key not in ("$ref", "$was")}
            schema = {**_target(reference, rendering.root), **own, "$was": reference}
        else:
            return schema
    rendering.doubts += 1
    return {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}


def _target(reference: str, root: Schema) -> Schema:
    target: object = root
    for part in reference[1:].split("/")[1:LONGEST_CHAIN]:
        target = target.get(part) if isinstance(target, dict) else None
    return _schema(target)


def _type(schema: Schema, rendering: _Rendering, depth: int) -> str:
    """The type of a schema that is already resolved."""
    reference = _text(schema.get("$was"))
    if depth > DEEPEST or not rendering.spend(NODE_CHARACTERS):
        rendering.cut = True
        return "any"
    if reference in rendering.open_references:
        rendering.doubts += 1
        return "any"
    if reference:
        rendering.open_references.add(reference)
    rendering.doubts += sum(key in schema for key in _UNSEEN)
    text = _shape(schema, rendering, depth)
    rendering.open_references.discard(reference)
    return text


def _shape(schema: Schema, rendering: _Rendering, depth: int) -> str:
    values = schema.get("enum")
    if isinstance(values, list):
        text = " | ".join(compact_json(value) for value in values)
        return text if rendering.spend(len(text)) else "any"
    if "const" in schema:
        text = compact_json(schema["const"])
        return text if rendering.spend(len(text)) else "any"
    options = _options(schema)
    if options:
        return _union(options, rendering, depth)
    kind = _text(schema.get("type"))
    if kind == "array":
        return _array(_resolved(_schema(schema.get("items")), rendering), rendering, depth)
    if _properties(schema):
        return _object(schema, rendering, depth)
    if kind in ("object", "null"):
        return kind
    return _SCALARS.get(kind, "any")


def _array(item: Schema, rendering: _Rendering, depth: int) -> str:
    """`T[]`; objects that are named or that have comments stand in `Array<…>` below their title."""
    inner = _type(item, rendering, depth + 1)
    title = _text(item.get("title"))
    if _properties(item) and (title or "\n" in inner):
        return f"Array<\n// {title}\n{inner}>" if title else f"Array<{inner}>"
    return f"({inner})[]" if " | " in inner and not _properties(item) else f"{inner}[]"


def _options(schema: Schema) -> list[Schema]:
    """The alternatives of a union. A list of types gives each the schema's own description."""
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        if isinstance(options, list) and options:
            return [_schema(option) for option in options]
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return [{**schema, "type": kind, "title": None} for kind in kinds]
    return []


def _union(options: list[Schema], rendering: _Rendering, depth: int) -> str:
    """`A | B`; a line for each where one of them has a comment or is a named object."""
    types: list[str] = []
    notes: list[str] = []
    for option in options:
        resolved = _resolved(option, rendering)
        note = " ".join(_notes(resolved))
        if not rendering.spend(len(note)):
            return "any"
        kind = _type(resolved, rendering, depth + 1)
        types.append("array" if kind in _PLAIN_ARRAYS else kind)
        notes.append(note)
    if not any(notes) and not any("\n" in kind for kind in types):
        rendering.doubts += any(kind.endswith("[]") for kind in types)
        return " | ".join(types)
    rendering.doubts += 1
    lines = [
        f"  | {kind} // {note}" if note else f"  | {kind}"
        for kind, note in zip(types, notes, strict=True)
    ]
    return "\n" + "\n".join(lines)


_PLAIN_ARRAYS = frozenset(f"{kind}[]" for kind in (*_SCALARS.values(), "any"))
"""Beside other types these cost as much as one short word (two projects' recordings)."""


def _notes(option: Schema) -> list[str]:
    notes = [line.removeprefix("// ") for line in _comment(option.get("description"))]
    if _text(option.get("type")) == "null":
        return notes
    form = _text(option.get("format"))
    if form and _text(option.get("type")) == "string":
        notes.append(f"format: {form}")
    return notes + _bounds(option)
