"""Pages: a cursor says after which item to go on, so that what is added meanwhile moves nothing."""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

import msgspec

from lastchunk.admin.operation import Problem

Place = TypeVar("Place")
Item = TypeVar("Item")


def cursor_at(place: object) -> str:
    """A place as a text that needs no escaping in a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_at(cursor: str | msgspec.UnsetType, kind: type[Place]) -> Place | None:
    """The place again; None where no cursor was given. Raises Problem for what is none of ours."""
    if isinstance(cursor, msgspec.UnsetType):
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise Problem("invalid", "cursor: give `next` of an answer, unchanged") from None


def divided(items: list[Item], size: int) -> tuple[list[Item], bool]:
    """So many items, and whether there are more."""
    return items[:size], len(items) > size
