"""The way to the upstream, as the relay sees it: an answer with a body, and what can go wrong.

Two legs stand behind it: the thin one (`leg_connection`, `leg_pool`) and aiohttp's client
(`leg_aiohttp`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy

from lastchunk.gateway.bypass import Bypass

Take = Callable[[bytes], bool]
"""Takes bytes at once, and tells whether it is full. It must not raise."""


class Body(Protocol):
    """The body of an answer. One reader at a time."""

    async def readany(self) -> bytes:
        """What has come, or the next that comes; empty at the end.

        Raises TimeoutError after a silence, one of `BROKE` where the body is not whole.
        """
        ...

    async def pour(self, take: Take, bypass: Bypass | None = None) -> bool:
        """Hands all that comes to `take`, each piece as it comes, without a task in between.

        What comes framed as `bypass` can pass it on may go there in its place.
        True: the body has ended. False: `take` is full; pour again when it is not. Raises as
        `readany`, after all that came was handed over or is left to `arrived`.
        """
        ...

    def arrived(self) -> bytes:
        """What has come and was not read."""
        ...


class Answer(Protocol):
    """The head of an answer has come in."""

    @property
    def status(self) -> int: ...

    @property
    def reason(self) -> str: ...

    @property
    def headers(self) -> CIMultiDictProxy[str]: ...

    @property
    def content(self) -> Body: ...

    def close(self) -> None:
        """Gives the connection up, unless the body has ended. May be called twice."""
        ...


class NotConnectedError(OSError):
    """No connection could be made: nothing was sent."""


class BrokenAnswerError(OSError):
    """The answer ended early, or is no HTTP."""


NOT_CONNECTED = (NotConnectedError, aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""What a leg raises that could not connect: proof that nothing was sent."""

BROKE = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What a leg raises whose bytes end early, or are no HTTP."""
