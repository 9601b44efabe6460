"""A streaming request as the same request for a whole answer."""

from __future__ import annotations

import msgspec

from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import Body, usage_requested

_OF_STREAMS = ("stream", "stream_options")


def ask_for_whole(raw: bytes, body: Body) -> bytes | None:
    """The request without `stream` and `stream_options`, every other value byte for byte.

    `body` is `raw` parsed. None where the caller wants no stream, or where the answer would not be
    whole all the same: a response in the background is only named in its answer.
    """
    if body.get("stream") is not True or body.get("background") is True:
        return None
    try:
        values = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        kept = {name: value for name, value in values.items() if name not in _OF_STREAMS}
        return msgspec.json.encode(kept)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):  # pragma: no cover
        return None  # it was parsed before: only memory or depth can stand against it


def wants_usage_chunk(dialect: Dialect, body: Body) -> bool:
    """Whether the caller of this streaming request is to be sent a usage chunk."""
    return dialect is not Dialect.RESPONSES and usage_requested(dialect, body)
