"""Which pieces of a stream are output and nothing else: most are, and need no second look."""

from __future__ import annotations

_FINISH, _USAGE = b'h_reason"', b'usage"'
_NULL = (b":null", b": null")

END_BYTES = 17
"""The end's mark, `[DONE]`, stands within so many bytes of the end."""


def is_quiet(piece: bytes) -> bool:
    """Whether this piece, which begins where a frame begins, is whole frames of output alone.

    True is proof: no finish, no usage but null, not the end, and no frame that goes on behind it.
    False means only that somebody must look. A quote inside a string is escaped, so what somebody's
    text says is no key.
    """
    return (
        piece[-2:] == b"\n\n"
        and _is_only_null(piece, _FINISH)
        and _is_only_null(piece, _USAGE)
        and piece.rfind(b"[DONE]", -END_BYTES) < 0
    )


def _is_only_null(piece: bytes, key: bytes) -> bool:
    """Whether the key, wherever it stands in the piece, has no value."""
    at = piece.rfind(key)  # these keys stand near the end of a frame
    while at >= 0:
        if not piece.startswith(_NULL, at + len(key)):
            return False
        at = piece.rfind(key, 0, at)
    return True
