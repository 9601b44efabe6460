"""JSON of the wire into structs, as much of it as follows any shape we know."""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


def decode_leniently(data: bytes, decode: Callable[[bytes], T], shape: type[T]) -> T | None:
    """`decode(data)`; where that fails, whatever keys of `shape` can be read; None if none can.

    Invalid UTF-8 is replaced, and a field whose value has another shape is left out.
    """
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # of another shape, or no JSON, or both: a shape is refused before the rest is read
    try:
        repaired = data.decode("utf-8", "replace").encode()
        return _from_object(msgspec.json.decode(repaired), shape)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _from_object(found: object, shape: type[T]) -> T | None:
    if not isinstance(found, dict):
        return None
    kept: dict[str, Any] = {}
    for field in msgspec.structs.fields(shape):
        if field.encode_name in found:
            value = _converted(found[field.encode_name], field.type)
            if value is not None:
                kept[field.name] = value
    return shape(**kept)


def _converted(value: object, wanted: Any) -> Any:
    """`value` as `wanted`; of objects and lists, what fits; None where nothing does."""
    try:
        return msgspec.convert(value, wanted, strict=False)
    except (msgspec.ValidationError, RecursionError):
        pass
    for kind in get_args(wanted) if isinstance(wanted, UnionType) else (wanted,):
        if kind is msgspec.Raw:
            return msgspec.Raw(msgspec.json.encode(value))
        if isinstance(value, list) and get_origin(kind) is list:
            (inner,) = get_args(kind)
            items = [_converted(item, inner) for item in value]
            return [item for item in items if item is not None]
        if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return _from_object(value, kind)
    return None
