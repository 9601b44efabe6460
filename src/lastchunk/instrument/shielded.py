"""Reads of an async stream that outlive their cancelled caller: what is being read is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


class ShieldedReads:
    """Reads one stream by tasks of their own. `pending` is the read that nobody has taken yet."""

    def __init__(self, iterator: AsyncIterator[bytes]) -> None:
        self._iterator = iterator
        self.pending: asyncio.Task[bytes | None] | None = None

    async def next_piece(self) -> bytes | None:
        """The next piece, None at the end. Cancelled, it leaves the read pending."""
        if self.pending is None:
            self.pending = asyncio.create_task(_next_piece(self._iterator))
            self.pending._log_destroy_pending = False  # type: ignore[attr-defined]
        try:
            piece = await asyncio.shield(self.pending)
        except asyncio.CancelledError:  # the caller's
            raise
        except BaseException:
            self.pending = None
            raise
        self.pending = None
        return piece


async def _next_piece(iterator: AsyncIterator[bytes]) -> bytes | None:
    return await anext(iterator, None)
