"""Takes one frame out of a byte stream: the usage chunk that only we asked for."""

from __future__ import annotations

import re

import msgspec

HELD_BYTES_LIMIT = 64 * 1024
"""A usage chunk is under 1 kB. A longer unfinished frame is none, and is passed on as it comes."""

USAGE = re.compile(rb'"usage"\s*:\s*\{')
NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: dict[str, object]


_decode = msgspec.json.Decoder(_Chunk).decode


class UsageFrameHider:
    """Passes bytes on unchanged, without frames that have usage and no choices.

    Whole frames go out as soon as they are whole; an unfinished one waits for its end, because a
    frame that was begun cannot be taken back.
    """

    __slots__ = ("_held", "_passing")

    held_bytes_limit = HELD_BYTES_LIMIT

    def __init__(self) -> None:
        self._held = b""
        self._passing = False

    @property
    def is_between_frames(self) -> bool:
        """Nothing is held and a frame begins with the next piece: a quiet one may pass by."""
        return not (self._held or self._passing)

    def through(self, piece: bytes, *, quiet: bool) -> bytes:
        """What may be passed on now; `quiet`: the piece was proved so (see `wire.quiet`)."""
        return piece if quiet and self.is_between_frames else self.feed(piece)

    def feed(self, piece: bytes) -> bytes:
        """What may be passed on now."""
        data = self._held + piece if self._held else piece
        if data.endswith(b"\n\n") and not self._may_hide(data):
            self._held, self._passing = b"", False
            return data
        out: list[bytes] = []
        start = 0
        searched = max(0, len(self._held) - 3)  # the longest boundary is four bytes
        for boundary in _BOUNDARY.finditer(data, searched):
            frame = data[start : boundary.end()]
            start = boundary.end()
            out.append(frame if self._passing else self._shown(frame))
            self._passing = False
        self._held = data[start:]
        if self._passing or len(self._held) > self.held_bytes_limit:
            out.append(self._held)
            self._held, self._passing = b"", True
        return b"".join(out)

    def rest(self) -> bytes:
        """What is left at the end of the body: an unfinished frame, unless it is the hidden one."""
        held, self._held = self._held, b""
        return self._shown_rest(held)

    def _may_hide(self, data: bytes) -> bool:
        """Whether anything in these whole frames may have to be hidden."""
        return bool(NO_CHOICES.search(data) and USAGE.search(data))

    def _shown(self, frame: bytes) -> bytes:
        """What the caller sees of a whole frame."""
        return blank_lines_before(frame) if _is_usage_frame(frame) else frame

    def _shown_rest(self, held: bytes) -> bytes:
        """What the caller sees of an unfinished frame."""
        is_ours = NO_CHOICES.search(held) and USAGE.search(held)
        return blank_lines_before(held) if is_ours else held


def blank_lines_before(frame: bytes) -> bytes:
    """They may have been passed on already: that they always are makes every cutting alike."""
    return frame[: len(frame) - len(frame.lstrip(b"\r\n"))]


def _is_usage_frame(frame: bytes) -> bool:
    if not (USAGE.search(frame) and NO_CHOICES.search(frame)):
        return False
    for line in frame.splitlines():
        if line.startswith(b"data:"):
            try:
                return not _decode(line[5:]).choices
            except (msgspec.DecodeError, UnicodeDecodeError):
                return False
    return False
