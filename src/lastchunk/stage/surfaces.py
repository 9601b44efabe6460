"""The SDK's own method for each dialect, and a client without a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from lastchunk.wire.dialect import Dialect


def create_method(client: Any, dialect: Dialect) -> Callable[..., Any]:
    """`create` of the surface that speaks this dialect; of an async client it is a coroutine's."""
    match dialect:
        case Dialect.CHAT:
            found = client.chat.completions.create
        case Dialect.RESPONSES:
            found = client.responses.create
        case Dialect.COMPLETIONS:
            found = client.completions.create
    return cast("Callable[..., Any]", found)
