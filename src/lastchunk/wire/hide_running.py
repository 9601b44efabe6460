"""Takes running usage out of a byte stream: out of each chunk, every other byte as it came."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from lastchunk.wire.hide import NO_CHOICES, USAGE, UsageFrameHider, blank_lines_before

_KEY = re.compile(rb'"usage"\s*:\s*\Z')
_DATA = re.compile(rb"(?:\A|[\r\n])data:([^\r\n]*)")
_KEY_BYTES = 64
"""How far before its value the key is looked for: nobody writes more white space than that."""

_SPACE = b" \t\r\n"

_COUNTS = rb'(?:"[a-z_]+":(?:\d+|null),?)*'
_LAST_MEMBER = re.compile(
    rb',"usage":(\{(?:"[a-z_]+":(?:\d+|null|\{' + _COUNTS + rb"\}),?)*\})\}(?:\n\n|\r\n\r\n)\Z"
)
"""As vLLM and its kin write it. In a string the quotes of this would be escaped: that it closes the
chunk's own brace proves that it is the chunk's own member."""


class _Chunk(msgspec.Struct):
    choices: msgspec.Raw
    usage: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Chunk).decode


class RunningUsageHider(UsageFrameHider):
    """Hides what only we asked for, where both running and final usage were asked for.

    A caller who asked for the usage chunk gets it, and `"usage":null` in the chunks before it, as
    the API says; one who did not gets chunks without the key, and no usage chunk. `noticed` is
    called once, with whether this server tells running usage at all.
    """

    __slots__ = ("_caller_asked", "_noticed")

    held_bytes_limit = 1024 * 1024
    """Every chunk has usage here, also one with much text or many log probabilities."""

    def __init__(
        self, *, caller_asked: bool, noticed: Callable[[bool], None] | None = None
    ) -> None:
        super().__init__()
        self._caller_asked = caller_asked
        self._noticed = noticed

    def feed(self, piece: bytes) -> bytes:
        """What may be passed on now."""
        whole = piece.endswith(b"\n\n") and not (self._held or self._passing or b"\r" in piece)
        if not whole:
            return super().feed(piece)
        if USAGE.search(piece) is None:
            return piece
        return b"".join([self._shown(frame + b"\n\n") for frame in piece[:-2].split(b"\n\n")])

    def _may_hide(self, data: bytes) -> bool:
        return USAGE.search(data) is not None

    def _shown(self, frame: bytes) -> bytes:
        if USAGE.search(frame) is None:
            return frame
        if (member := _last_member(frame)) is not None:
            self._notice(running=True)
            start, value, end = member
            return (
                frame[:value] + b"null" + frame[end:]
                if self._caller_asked
                else (frame[:start] + frame[end:])
            )
        chunk = _read(frame)
        if chunk is None or not bytes(chunk.usage).startswith(b"{"):
            return frame
        if _is_empty(chunk.choices):
            self._notice(running=False)
            return frame if self._caller_asked else blank_lines_before(frame)
        self._notice(running=True)
        return _without(frame, chunk, null=self._caller_asked)

    def _shown_rest(self, held: bytes) -> bytes:
        if not self._caller_asked and NO_CHOICES.search(held) and USAGE.search(held):
            return blank_lines_before(held)
        return self._shown(held)

    def _notice(self, *, running: bool) -> None:
        if self._noticed is not None:
            self._noticed(running)
            self._noticed = None


def _last_member(frame: bytes) -> tuple[int, int, int] | None:
    """Where the usage of a chunk with choices is, in the shape in which it nearly always is.

    Found without parsing: the comma before the key, the value, and the value's end.
    """
    start = frame.rfind(b',"usage":{')
    if start < 0 or b'"choices":[{' not in frame or b'"choices":[]' in frame:
        return None
    found = _LAST_MEMBER.match(frame, start)
    if found is None or not frame.startswith(b"data: {") or frame.find(b"\n", 0, start) >= 0:
        return None
    return start, found.start(1), found.end(1)


def _read(frame: bytes) -> _Chunk | None:
    """The chunk in a frame of one data line."""
    lines = _DATA.findall(frame)
    if len(lines) != 1:
        return None
    try:
        return _decode(lines[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _is_empty(choices: msgspec.Raw) -> bool:
    value = bytes(choices)
    return value == b"null" or not value[1:-1].strip()


def _without(frame: bytes, chunk: _Chunk, *, null: bool) -> bytes:
    """The frame with its own usage cut out, or null; a usage inside a choice stays."""
    value = bytes(chunk.usage)
    at = frame.rfind(value)
    while at >= 0:
        if (key := _KEY.search(frame, max(0, at - _KEY_BYTES), at)) is not None:
            end = at + len(value)
            start, stop, middle = (at, end, b"null") if null else (*_span(frame, key, end), b"")
            shown = frame[:start] + middle + frame[stop:]
            after = _read(shown)
            if after is not None and _says_no_more(after, chunk):
                return shown
        at = frame.rfind(value, 0, at)
    return frame


def _says_no_more(after: _Chunk, before: _Chunk) -> bool:
    """The usage is gone, and what was said is said."""
    return bytes(after.usage) == b"null" and bytes(after.choices) == bytes(before.choices)


def _span(frame: bytes, key: re.Match[bytes], end: int) -> tuple[int, int]:
    """The member with one of its commas: the one before it, or as the first the one behind it."""
    start = key.start()
    before = frame[:start].rstrip(_SPACE)
    if before.endswith(b","):
        return len(before) - 1, end
    behind = frame[end:]
    rest = behind.lstrip(_SPACE)
    return (start, end + len(behind) - len(rest) + 1) if rest.startswith(b",") else (start, end)
