"""JSON of the wire into structs, as much of it as follows any shape we know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


def decode_leniently(data: bytes, decode: Callable[[bytes], T], shape: type[T]) -> T | None:
    """`decode(data)`; where that fails, whatever keys of `shape` can be read; None if none can.

    Invalid UTF-8 is replaced, and a field whose value has another shape is left out.
    """
    try:
        return decode(data)
    except msgspec.ValidationError:
        return _from_object(msgspec.json.decode(data), shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
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
    """`value` as `wanted`; of a list, those items that fit; None where nothing does."""
    try:
        return msgspec.convert(value, wanted, strict=False)
    except (msgspec.ValidationError, RecursionError):
        pass
    if not isinstance(value, list):
        return None
    kept = []
    for item in value:
        try:
            kept += msgspec.convert([item], wanted, strict=False)
        except (msgspec.ValidationError, RecursionError):
            continue
    return kept
