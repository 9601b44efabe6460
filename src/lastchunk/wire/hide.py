"""Takes one frame out of a byte stream: the usage chunk that only we asked for."""

from __future__ import annotations

import re

import msgspec

HELD_BYTES_LIMIT = 64 * 1024
"""A usage chunk is under 1 kB. A longer unfinished frame is none, and is passed on as it comes."""

_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
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

    def __init__(self) -> None:
        self._held = b""
        self._passing = False

    def feed(self, piece: bytes) -> bytes:
        """What may be passed on now."""
        data = self._held + piece if self._held else piece
        if data.endswith(b"\n\n") and not (_NO_CHOICES.search(data) and _USAGE.search(data)):
            self._held, self._passing = b"", False
            return data
        out: list[bytes] = []
        start = 0
        searched = max(0, len(self._held) - 3)  # the longest boundary is four bytes
        for boundary in _BOUNDARY.finditer(data, searched):
            frame = data[start : boundary.end()]
            start = boundary.end()
            is_ours = not self._passing and _is_usage_frame(frame)
            out.append(_blank_lines_before(frame) if is_ours else frame)
            self._passing = False
        self._held = data[start:]
        if self._passing or len(self._held) > HELD_BYTES_LIMIT:
            out.append(self._held)
            self._held, self._passing = b"", True
        return b"".join(out)

    def rest(self) -> bytes:
        """What is left at the end of the body: an unfinished frame, unless it is the hidden one."""
        held, self._held = self._held, b""
        is_ours = _NO_CHOICES.search(held) and (_USAGE.search(held) or _is_usage_frame(held))
        return _blank_lines_before(held) if is_ours else held


def _blank_lines_before(frame: bytes) -> bytes:
    """They may have been passed on already: that they always are makes every cutting alike."""
    return frame[: len(frame) - len(frame.lstrip(b"\r\n"))]


def _is_usage_frame(frame: bytes) -> bool:
    if not (_USAGE.search(frame) and _NO_CHOICES.search(frame)):
        return False
    for line in frame.splitlines():
        if line.startswith(b"data:"):
            try:
                return not _decode(line[5:]).choices
            except (msgspec.DecodeError, UnicodeDecodeError):
                return False
    return False
