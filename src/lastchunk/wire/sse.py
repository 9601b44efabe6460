"""Server-sent events: bytes in any pieces to whole frames."""

from __future__ import annotations

from dataclasses import dataclass

MAX_FRAME_BYTES = 8 * 1024 * 1024
"""A frame may carry a whole response (a terminal event) or an image preview, but no more."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One event: its name (empty if it has none) and its data lines joined by newlines."""

    name: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Oversized:
    """A frame beyond `MAX_FRAME_BYTES`, dropped; at least this many bytes."""

    size: int


class SseReader:
    """Cuts a byte stream into frames as the HTML standard says, with LF, CRLF or lone CR.

    Feed it pieces of any size; the frames are the same for every way of cutting the same bytes.
    Memory is bounded by `MAX_FRAME_BYTES`.
    """

    __slots__ = ("_at_start", "_held_cr", "_skipping", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._held_cr = False
        self._at_start = True
        self._skipping = 0

    def feed(self, piece: bytes) -> list[Frame | Oversized]:
        """The frames that this piece completes."""
        if self._held_cr or b"\r" in piece:
            piece = self._with_plain_newlines(piece)
        whole = self._tail + piece if self._tail else piece
        blocks = whole.split(b"\n\n")
        self._tail = blocks.pop()
        found = [frame for block in blocks if (frame := self._read(block)) is not None]
        if len(self._tail) > MAX_FRAME_BYTES:
            self._skipping += len(self._tail)
            self._tail = self._tail[-1:] if self._tail.endswith(b"\n") else b""
        return found

    def rest(self) -> Frame | None:
        """What came after the last whole frame, read as if a blank line had followed."""
        frame = None if self._skipping else self._read(self._tail)
        return frame if isinstance(frame, Frame) else None

    def _with_plain_newlines(self, piece: bytes) -> bytes:
        """CRLF and CR as LF; a CR that ends a piece waits, since an LF may follow it."""
        if self._held_cr:
            piece = b"\r" + piece
        self._held_cr = piece.endswith(b"\r")
        if self._held_cr:
            piece = piece[:-1]
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _read(self, block: bytes) -> Frame | Oversized | None:
        if self._skipping:
            dropped, self._skipping = self._skipping + len(block), 0
            return Oversized(dropped)
        if self._at_start and block:
            self._at_start = False
            block = block.removeprefix(b"\xef\xbb\xbf")
        if block.startswith(b"data: ") and b"\n" not in block:
            return Frame(b"", block[6:])
        return _read_lines(block)


def _read_lines(block: bytes) -> Frame | None:
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Frame(name, b"\n".join(data)) if data else None
