"""What all replays are made of: JSON read and written, text in pieces, choices in turns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeGuard

import msgspec

Json = dict[str, Any]

PIECE_CHARS = 48
"""Characters of one delta: about what providers send of fast models (8 to 16 tokens)."""

MAX_PIECES = 2048
"""Deltas of one text: of a longer one the pieces are longer."""

AUDIO_CHARS = 16 * 1024
"""Base64 of one delta of sound; a multiple of four, so that each can be decoded alone."""


def read_object(data: bytes) -> Json | None:
    """The JSON object in `data`, leniently: what Python's own parser takes is taken."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            found = json.loads(data)  # lone surrogates, NaN, numbers beyond 64 bits
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, dict) else None


def frame(payload: Mapping[str, Any], name: str = "") -> bytes:
    """One server-sent event."""
    try:
        data = msgspec.json.encode(payload)
    except (UnicodeEncodeError, OverflowError):
        data = json.dumps(payload, separators=(",", ":")).encode()
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + data + b"\n\n"


def pieces_of(text: str) -> list[str]:
    """The text in pieces, cut before a space where there is one near."""
    size = max(PIECE_CHARS, -(-len(text) // MAX_PIECES))
    pieces: list[str] = []
    start = 0
    while len(text) - start > size:
        space = text.rfind(" ", start + size // 2, start + size + 1)
        end = space if space > start else start + size
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]] if start < len(text) else pieces


def in_turns(speeches: Iterable[Sequence[Json]]) -> Iterator[Json]:
    """One from each, again and again: choices talk in turns."""
    for turn in zip_longest(*speeches):
        yield from (said for said in turn if said is not None)


def objects_in(value: object) -> list[Json]:
    """The objects in a list; nothing of anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def is_text(value: object) -> TypeGuard[str]:
    """A text that has something in it."""
    return isinstance(value, str) and value != ""
