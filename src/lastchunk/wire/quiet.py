"""Which pieces of a stream are output and nothing else, and the short way for them.

Most are, and need no second look: they wait to be read, if anybody ever has to.
"""

from __future__ import annotations

from collections.abc import Callable

_FINISH, _USAGE = b'h_reason"', b'usage"'
_NULL = (b":null", b": null")

END_BYTES = 17
"""The end's mark, `[DONE]`, stands within so many bytes of the end."""

NEVER = 1 << 62
"""So many bytes never come."""


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


class Lane:
    """What came of one answer and waits unread; quiet pieces go by everybody else.

    One thread brings pieces, another may take them away, and neither waits for the other: the list
    is changed by single operations of the interpreter, and each sum by one of them. Whoever must
    see the next piece says so here, once, and is not asked for every piece.
    """

    __slots__ = (
        "_began",
        "_began_ms",
        "elapsed",
        "heard",
        "is_calm",
        "is_closed",
        "is_held_up",
        "look_bytes",
        "most_bytes",
        "pieces",
        "taken_bytes",
        "total_bytes",
        "waited_bytes",
    )

    def __init__(self, elapsed: Callable[[], float], now_ms: int = 0) -> None:
        """`elapsed` as `Clock.elapsed`; `now_ms` is the wall clock's time now."""
        self.elapsed = elapsed
        self._began = self.heard = elapsed()
        """When a piece was kept last."""
        self._began_ms = now_ms
        self.pieces: list[bytes] = []
        """What waits, in order."""
        self.waited_bytes = 0
        """Of all that was ever put among the pieces."""
        self.taken_bytes = 0
        """Of all that was taken away from them."""
        self.total_bytes = 0
        """Of the body, as it came over the wire."""
        self.is_calm = False
        """The meter's word: between two frames of an answer that has begun and not ended."""
        self.is_closed = False
        """The call's: it is over, or its caller has left. For good."""
        self.is_held_up = False
        """The way out's: something is held back, and nothing may go out before it."""
        self.most_bytes = NEVER
        """The meter's: so many bytes may wait."""
        self.look_bytes = NEVER
        """The purse's: when so many bytes have come, somebody must look."""

    def keep(self, piece: bytes) -> bool:
        """Takes the next bytes if they are quiet and need only wait; False: they were not taken."""
        size = len(piece)
        if (
            not self.is_calm
            or self.is_closed
            or self.is_held_up
            or self.waited_bytes - self.taken_bytes + size > self.most_bytes
            or self.total_bytes + size >= self.look_bytes
            or not is_quiet(piece)
        ):
            return False
        self.heard = self.elapsed()
        self.pieces.append(piece)
        self.waited_bytes += size
        self.total_bytes += size  # last: whoever sees it sees the piece
        return True

    def put(self, piece: bytes) -> None:
        """One more piece that waits, whatever it is; it is counted in `total_bytes` elsewhere."""
        self.pieces.append(piece)
        self.waited_bytes += len(piece)

    def take(self) -> list[bytes]:
        """What waits, which then waits no longer. One thread at a time."""
        count = len(self.pieces)
        taken = self.pieces[:count]
        del self.pieces[:count]
        self.taken_bytes += sum(map(len, taken))
        return taken

    def waiting_bytes(self) -> int:
        """Of the pieces that wait."""
        return self.waited_bytes - self.taken_bytes

    def now_ms(self) -> int:
        """The time since it began is measured, not read off two clock faces: a wall clock that is
        set meanwhile makes no call end before it began."""
        return self._began_ms + int((self.elapsed() - self._began) * 1000)

    def heard_ms(self) -> int:
        """When a piece was kept last, on the same clock."""
        return self._began_ms + int((self.heard - self._began) * 1000)
