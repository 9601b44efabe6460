"""Server-sent events: bytes in any pieces to whole frames."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

MAX_FRAME_BYTES = 8 * 1024 * 1024
"""A frame may carry a whole response (a terminal event) or an image preview, but no more."""


class Frame(msgspec.Struct, frozen=True):
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
    Memory is bounded by `MAX_FRAME_BYTES`, and time by the bytes: a frame in many pieces is joined
    once, when its end has come.
    """

    __slots__ = ("_at_start", "_held_cr", "_skipping", "_tail", "_tail_bytes")

    def __init__(self) -> None:
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._held_cr = False
        self._at_start = True
        self._skipping = 0

    def feed(self, piece: bytes) -> list[Frame | Oversized]:
        """The frames that this piece completes."""
        if self._held_cr or b"\r" in piece:
            piece = self._with_plain_newlines(piece)
        if not piece:
            return []
        tail = self._tail
        found: list[Frame | Oversized] = []
        if b"\n\n" in piece or (piece.startswith(b"\n") and tail and tail[-1].endswith(b"\n")):
            tail.append(piece)
            blocks = b"".join(tail).split(b"\n\n")
            piece = blocks.pop()
            found = [frame for block in blocks if (frame := self._read(block)) is not None]
            tail.clear()
            self._tail_bytes = 0
        if piece:
            tail.append(piece)
            self._tail_bytes += len(piece)
        if self._tail_bytes > MAX_FRAME_BYTES:
            self._skipping += self._tail_bytes
            self._tail = [b"\n"] if piece.endswith(b"\n") else []
            self._tail_bytes = len(self._tail)
        return found

    def rest(self) -> Frame | None:
        """What came after the last whole frame, read as if a blank line had followed."""
        frame = None if self._skipping else self._read(b"".join(self._tail))
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
