"""Past the parser: an HTTP chunk of quiet output goes to the caller as it came."""

from __future__ import annotations

import asyncio

from lastchunk.wire.quiet import Lane

_LONGEST_SIZE_LINE = 8
"""Six digits and a line's end: nobody reads more from a socket at once."""

_PASSED_BYTES_LIMIT = 16 * 1024
"""A larger chunk may fill the caller's buffer: it goes the long way, which looks at that."""


class Bypass:
    """From the upstream's socket to the caller's transport, by a call's lane."""

    __slots__ = ("_lane", "_passed", "_transport")

    def __init__(self, lane: Lane, transport: asyncio.Transport) -> None:
        self._lane = lane
        self._transport = transport
        self._passed = lane.elapsed()

    def pass_on(self, data: bytes) -> bool:
        """Takes what a socket brought if it is exactly one HTTP chunk, and quiet.

        Its content is kept and the chunk goes to the caller, framed as it came. False: nothing was
        done with it. Where the caller's buffer is not empty nothing passes.
        """
        lane, transport = self._lane, self._transport
        if not lane.is_calm or len(data) > _PASSED_BYTES_LIMIT:
            return False
        if transport.get_write_buffer_size() or transport.is_closing():
            return False
        piece = content_of(data)
        if piece is None or not lane.keep(piece):
            return False
        self._passed = lane.heard
        transport.write(data)
        return True

    def silence(self) -> float:
        """Seconds since something passed."""
        return self._lane.elapsed() - self._passed


def content_of(data: bytes) -> bytes | None:
    """The content of what is exactly one HTTP chunk, written as nearly all servers write it.

    None: it is something else, or the last chunk, or a parser must say.
    """
    end = data.find(b"\r\n", 1, _LONGEST_SIZE_LINE)
    size = len(data) - end - 4
    if end < 0 or size <= 0 or data[:end] != b"%x" % size or data[-2:] != b"\r\n":
        return None
    return data[end + 2 : -2]
