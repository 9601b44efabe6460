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
        and ((at := piece.rfind(_FINISH)) < 0 or _is_only_null(piece, _FINISH, at))
        and ((at := piece.rfind(_USAGE)) < 0 or _is_only_null(piece, _USAGE, at))
        and piece.rfind(b"[DONE]", -END_BYTES) < 0
    )


def _is_only_null(piece: bytes, key: bytes, at: int) -> bool:
    """Whether the key, which stands last at `at`, has no value wherever it stands in the piece."""
    size = len(key)
    while at >= 0:  # these keys stand near the end of a frame
        if not piece.startswith(_NULL, at + size):
            return False
        at = piece.rfind(key, 0, at)
    return True
