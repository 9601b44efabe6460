"""A body that is fed by a connection: poured straight on, or kept until it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lastchunk.gateway.bypass import Bypass
from lastchunk.gateway.leg import Take

KEPT_BYTES_LIMIT = 128 * 1024
"""Beyond it the connection is not read until somebody reads the body. Two pieces of the loop's."""


class FedBody:
    """See `leg.Body`. `hold(True)` stops the connection's reading, `hold(False)` lets it go on."""

    __slots__ = (
        "_ended",
        "_error",
        "_hold",
        "_kept",
        "_kept_bytes",
        "_take",
        "_waiter",
        "bypass",
        "held",
    )

    def __init__(self, hold: Callable[[bool], None]) -> None:
        self._hold = hold
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._take: Take | None = None
        self.bypass: Bypass | None = None
        """Whom the connection may ask first, while the body is poured."""
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: Exception | None = None
        self.held = False

    # The connection's side.

    def feed(self, piece: bytes) -> None:
        """The next bytes, not empty."""
        if self._take is not None:
            if self._take(piece):
                self._take = self.bypass = None
                self._wake()
            return
        self._kept.append(piece)
        self._kept_bytes += len(piece)
        self._wake()
        if self._kept_bytes > KEPT_BYTES_LIMIT and not self.held:
            self.held = True
            self._hold(True)

    def end(self, error: Exception | None = None) -> None:
        """No more will come; `error` where it is not whole. The first word counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    # The reader's side.

    async def readany(self) -> bytes:
        while not self._kept:
            if self._ended:
                self._raise_error()
                return b""
            await self._wait()
        return self._handed_out()

    async def pour(self, take: Take, bypass: Bypass | None = None) -> bool:
        if self._kept and take(self._handed_out()):
            return False
        if not self._ended:
            self._take, self.bypass = take, bypass
            try:
                await self._wait()
                if self._take is None:
                    return False
            finally:
                self._take = self.bypass = None
        self._raise_error()
        return True

    def arrived(self) -> bytes:
        return self._handed_out() if self._kept else b""

    def _handed_out(self) -> bytes:
        data = self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
        self._kept.clear()
        self._kept_bytes = 0
        if self.held:
            self.held = False
            self._hold(False)
        return data

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    async def _wait(self) -> None:
        assert self._waiter is None, "a body has one reader at a time"
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
