"""What the readers of all dialects share: JSON of any shape in, parts and named unknowns out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lastchunk.wire.prompt_images import pixel_size
from lastchunk.wire.prompt_parts import AnswerSchema, Picture, Tool, ToolChoice

MOST_UNKNOWNS = 32
"""Named at most. One is enough to make a prompt not derivable; more only explain it."""

_NOT_A_SLUG = re.compile(r"[^a-z0-9_.:-]+")
_SLUG_CHARACTERS = 48
_EMPTY: Mapping[str, object] = {}


def mapping(value: object) -> Mapping[str, object]:
    """`value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else _EMPTY


def items(value: object) -> list[object]:
    """`value` if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def text(value: object) -> str:
    """`value` if it is a JSON string, else an empty one."""
    return value if isinstance(value, str) else ""


@dataclass(slots=True)
class Unknowns:
    """Collects the names of what is not understood; a name never carries content."""

    names: set[str] = field(default_factory=set)

    def add(self, kind: str, detail: object = None) -> None:
        name = kind if detail is None else f"{kind}:{text(detail).lower() or 'unnamed'}"
        if len(self.names) < MOST_UNKNOWNS:
            self.names.add(_NOT_A_SLUG.sub("_", name)[:_SLUG_CHARACTERS])

    def sorted(self) -> tuple[str, ...]:
        return tuple(sorted(self.names))


@dataclass(frozen=True, slots=True)
class Content:
    """The parts of one message."""

    texts: tuple[str, ...]
    pictures: tuple[Picture, ...]


_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal", "summary_text"})
_PICTURE_PARTS = frozenset({"image_url", "input_image"})
_UNREADABLE_PARTS = {
    "file": "file",
    "input_file": "file",
    "input_audio": "audio",
    "audio": "audio",
}


def read_content(value: object, unknowns: Unknowns) -> Content:
    """A message's content: a string, null, or an array of typed parts."""
    if isinstance(value, str):
        return Content((value,), ())
    texts: list[str] = []
    pictures: list[Picture] = []
    for item in items(value):
        part = mapping(item)
        kind = text(part.get("type"))
        if isinstance(item, str):
            texts.append(item)
        elif kind in _TEXT_PARTS:
            texts.append(text(part.get("text")) or text(part.get("refusal")))
        elif kind in _PICTURE_PARTS:
            pictures.append(_picture(part, unknowns))
        else:
            unknowns.add(_UNREADABLE_PARTS.get(kind) or f"part:{kind or 'unnamed'}")
    if value is not None and not isinstance(value, list):
        unknowns.add("content")
    return Content(tuple(texts), tuple(pictures))


def _picture(part: Mapping[str, object], unknowns: Unknowns) -> Picture:
    inner = part.get("image_url")
    url = text(inner) or text(mapping(inner).get("url"))
    detail = text(mapping(inner).get("detail")) or text(part.get("detail")) or "auto"
    size = pixel_size(url)
    if size is None:
        inline = url[:5].lower() == "data:"
        unknowns.add("image_unreadable" if inline else "image_by_url" if url else "image_by_id")
        return Picture(None, None, detail)
    return Picture(*size, detail)


def read_tools(values: Iterable[object], unknowns: Unknowns) -> tuple[Tool, ...]:
    """Declared functions, nested (chat) or flat (responses); the provider's own are unknowns."""
    tools: list[Tool] = []
    for value in values:
        tool = mapping(value)
        kind = text(tool.get("type")) or "function"
        if kind == "function":
            tools.append(_tool(mapping(tool.get("function")) or tool))
        elif kind in ("custom", "namespace"):
            unknowns.add(f"{kind}_tool")
        else:
            unknowns.add("builtin_tool", kind)
    return tuple(tools)


def read_functions(values: Iterable[object]) -> tuple[Tool, ...]:
    """The legacy `functions` of chat."""
    return tuple(_tool(mapping(value)) for value in values)


def _tool(function: Mapping[str, object]) -> Tool:
    return Tool(
        name=text(function.get("name")),
        description=text(function.get("description")),
        schema=mapping(function.get("parameters")),
    )


def read_tool_choice(value: object, unknowns: Unknowns) -> tuple[ToolChoice, str]:
    """The choice and, where one function is forced, its name."""
    if isinstance(value, str):
        if value in ("auto", "none", "required"):
            return ToolChoice(value), ""
        unknowns.add("tool_choice")
        return ToolChoice.AUTO, ""
    choice = mapping(value)
    mode = choice.get("mode") or mapping(choice.get("allowed_tools")).get("mode")
    if mode:
        unknowns.add("allowed_tools")
        return (ToolChoice.REQUIRED if mode == "required" else ToolChoice.AUTO), ""
    name = text(choice.get("name")) or text(mapping(choice.get("function")).get("name"))
    if name:
        return ToolChoice.FORCED, name
    if value is not None:
        unknowns.add("tool_choice")
    return ToolChoice.AUTO, ""


def read_answer_schema(value: Mapping[str, object], unknowns: Unknowns) -> AnswerSchema | None:
    """A json_schema format, nested (chat) or flat (responses); None for text and json_object."""
    kind = text(value.get("type"))
    if kind != "json_schema":
        if kind not in ("", "text", "json_object"):
            unknowns.add("format", kind)
        return None
    inner = mapping(value.get("json_schema")) or value
    return AnswerSchema(
        name=text(inner.get("name")),
        description=text(inner.get("description")),
        schema=mapping(inner.get("schema")),
    )
