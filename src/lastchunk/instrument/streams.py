"""The response's byte stream, watched: one class for each of httpx, httpx2, sync and async.

The wrapper passes bytes on, tells the call what came and how it ended, and leaves a stream whose
finish was seen and whose usage is missing to the grace read.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from lastchunk.instrument.attempt import stop_of
from lastchunk.instrument.grace import (
    ARRIVED_SECONDS,
    Arrivals,
    Keeper,
    Reading,
    end_async,
    keeper,
    read_on_async,
    shut_down,
)
from lastchunk.instrument.shielded import ShieldedReads
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.wire.encoding import Decoder, UndecodableError
from lastchunk.wire.hide import UsageFrameHider


class Passage:
    """What becomes of each piece of the body on its way to the caller."""

    def __init__(
        self, call: MeteredCall, hider: UsageFrameHider | None, decoder: Decoder | None
    ) -> None:
        self.call = call
        self._hider = hider
        self._decoder = decoder

    def take(self, piece: bytes) -> bytes:
        """Meter a piece; give back what the caller may see of it. Raises UndecodableError."""
        quiet = self.call.receive(piece)
        if self._hider is None:
            return piece
        if self._decoder is not None:
            piece = self._decoder.decode(piece)
        return self._hider.through(piece, quiet=quiet)

    def rest(self) -> bytes:
        """What was held back until the end."""
        return self._hider.rest() if self._hider is not None else b""


def metered_stream(response: Any, passage: Passage, grace_seconds: float) -> Any:
    """A stream to stand in the place of the response's own."""
    for base in type(response.stream).__mro__:
        if base.__name__ == "SyncByteStream":
            return _sync_stream_class(base)(response, passage, grace_seconds)
        if base.__name__ == "AsyncByteStream":
            return _async_stream_class(base)(response, passage, grace_seconds)
    raise TypeError(f"{type(response.stream).__name__} is no stream of httpx or httpx2")


@lru_cache(maxsize=8)
def _sync_stream_class(base: type) -> Any:
    """A metered stream that is one of the client's own sync byte streams."""

    class MeteredStream(base):  # type: ignore[misc]
        def __init__(self, response: Any, passage: Passage, grace_seconds: float) -> None:
            self._inner = response.stream
            source = _source(response.stream)
            self._iterator: Iterator[bytes] = iter(source)
            self._passage = passage
            self._keeper = keeper()
            self._reading = Reading(
                source, self._iterator, passage.call, grace_seconds, _own_socket(response)
            )
            self._closed = False
            passage.call.hang_up = partial(_leave_at_exit, self._keeper, self._reading)
            self._dropped = weakref.finalize(self, _drop, self._keeper, self._reading)
            self._dropped.atexit = False

        @property
        def elapsed(self) -> Any:
            return getattr(self._inner, "elapsed", None)

        def __iter__(self) -> Iterator[bytes]:
            passage = self._passage
            while True:
                try:
                    piece = next(self._iterator, None)
                except BaseException as error:  # `close` in another thread breaks this read, too
                    left = self._closed or self._reading.hung_up
                    passage.call.end(Stop.CALLER_LEFT if left else stop_of(error))
                    raise
                if piece is None:
                    break
                if shown := _shown(passage, piece, base):
                    yield shown
            passage.call.end(Stop.END_OF_BODY)
            if rest := passage.rest():
                yield rest

        def close(self) -> None:
            if self._closed or self._dropped.detach() is None:
                return
            self._closed = True
            self._reading.inner = self._inner
            if not _leave(self._keeper, self._reading):
                self._inner.close()

    return MeteredStream


@lru_cache(maxsize=8)
def _async_stream_class(base: type) -> Any:
    """A metered stream that is one of the client's own async byte streams."""

    class AsyncMeteredStream(base):  # type: ignore[misc]
        def __init__(self, response: Any, passage: Passage, grace_seconds: float) -> None:
            self._inner = response.stream
            source, loop = _source(response.stream), _asyncio_loop()
            self._iterator: AsyncIterator[bytes] = aiter(source)
            self._passage = passage
            self._reads = ShieldedReads(self._iterator)
            self._shields = loop is not None and passage.call.may_drain
            self._grace_seconds = grace_seconds if loop is not None else 0.0
            self._closed = False
            self._arrivals: Arrivals | None = None
            connection = _own_socket(response) if loop is not None else None
            if connection is not None:
                passage.call.hang_up = partial(
                    shut_down, connection
                )  # its loop ends with the process
                self._arrivals = Arrivals(
                    self._iterator, passage.call, connection, _patience(response)
                )
            self._dropped = weakref.finalize(
                self,
                _drop_async,
                loop,
                _Dropped(
                    source,
                    self._iterator,
                    self._reads,
                    passage.call,
                    self._grace_seconds,
                    self._arrivals,
                ),
            )
            self._dropped.atexit = False

        @property
        def elapsed(self) -> Any:
            return getattr(self._inner, "elapsed", None)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            passage = self._passage
            while True:
                try:
                    if self._wants_shield():
                        piece = await self._reads.next_piece()
                    elif self._arrivals is not None:
                        piece = await self._arrivals.next_piece()
                    else:
                        piece = await anext(self._iterator, None)
                except BaseException as error:
                    if self._reads.pending is None:  # else what `aclose` does may still end well
                        passage.call.end(stop_of(error))
                    raise
                if piece is None:
                    break
                if shown := _shown(passage, piece, base):
                    yield shown
            passage.call.end(Stop.END_OF_BODY)
            if rest := passage.rest():
                yield rest

        def _wants_shield(self) -> bool:
            """A caller that is cancelled now would break a read that is wanted all the same."""
            if self._reads.pending is not None or self._shields:
                return True
            return bool(self._passage.call.finish_seen and self._grace_seconds)

        async def aclose(self) -> None:
            if self._closed or self._dropped.detach() is None:
                return
            self._closed = True
            call, pending = self._passage.call, self._reads.pending
            seconds = _stay(call, self._grace_seconds, self._shields)
            if seconds and read_on_async(self._inner, self._iterator, pending, call, seconds):
                return
            try:
                if self._arrivals is not None and call.is_under_way:
                    await self._arrivals.rest(pending)
            finally:
                if pending is not None:
                    pending.cancel()
                call.end(Stop.CALLER_LEFT)
                await self._inner.aclose()

    return AsyncMeteredStream


def _stay(call: MeteredCall, grace_seconds: float, can_drain: bool) -> float | None:
    """For how long to read on; None where there is no loop to do it in."""
    return call.stay(grace_seconds) if grace_seconds or can_drain else None


# How a stream is left. Finalizers run anywhere: they take no lock and do not wait. They come before
# the generators inside are collected, which they keep alive.


def _leave(keeper: Keeper, reading: Reading) -> bool:
    """Have the keeper read what is worth reading and then close. False: there is nothing."""
    if (seconds := reading.call.stay(reading.seconds)) is not None:
        keeper.read_on(reading, seconds)
    elif reading.connection is not None and reading.call.is_under_way:
        keeper.hang_up(reading)
    else:
        reading.call.end(Stop.CALLER_LEFT)
        return False
    return True


def _leave_at_exit(keeper: Keeper, reading: Reading) -> None:
    """A thread that is reading at this moment dies silently with its process: let it."""
    if not getattr(reading.iterator, "gi_running", False):
        _leave(keeper, reading)


def _drop(keeper: Keeper, reading: Reading) -> None:
    """End the call, and the connection with it: else its provider would go on, and bill."""
    if not _leave(keeper, reading):
        keeper.close(reading.inner)


@dataclass(frozen=True, slots=True)
class _Dropped:
    """An async stream that its caller has dropped."""

    source: Any
    iterator: AsyncIterator[bytes]
    reads: ShieldedReads
    call: MeteredCall
    grace_seconds: float
    arrivals: Arrivals | None


def _drop_async(loop: asyncio.AbstractEventLoop | None, dropped: _Dropped) -> None:
    call = dropped.call
    call.left()
    if loop is None or not call.is_under_way:
        call.end(Stop.CALLER_LEFT)
    if loop is None:
        return
    try:
        loop.call_soon_threadsafe(_leave_async, dropped)
    except RuntimeError:  # the loop is closed, and its connections with it
        call.end(Stop.CALLER_LEFT)
    else:
        call.read_on(max(dropped.grace_seconds, ARRIVED_SECONDS))


def _leave_async(dropped: _Dropped) -> None:
    call, pending = dropped.call, dropped.reads.pending
    seconds = _stay(call, dropped.grace_seconds, call.may_drain)
    if seconds and read_on_async(dropped.source, dropped.iterator, pending, call, seconds):
        return
    task = asyncio.ensure_future(_read_and_end(dropped, pending))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _read_and_end(dropped: _Dropped, pending: asyncio.Task[bytes | None] | None) -> None:
    try:
        if dropped.arrivals is not None and dropped.call.is_under_way:
            await dropped.arrivals.rest(pending)
    finally:
        await end_async(dropped.source, dropped.call)


_closing: set[asyncio.Future[None]] = set()


def _source(stream: Any) -> Any:
    """The transport's own stream. The client's wrapper around it may refer to the response, and so
    to its stream: a finalizer that knows it would keep alive what it waits for."""
    return getattr(stream, "_stream", stream)


def _own_socket(response: Any) -> socket.socket | None:
    """The socket, where this response has it for itself: not so in HTTP/2 or without a network."""
    if response.http_version not in ("HTTP/1.1", "HTTP/1.0"):
        return None
    network = response.extensions.get("network_stream")
    found = None if network is None else network.get_extra_info("socket")
    return found if hasattr(found, "fileno") else None


def _patience(response: Any) -> float | None:
    """For how many seconds of silence the HTTP library reads on; None: for ever."""
    times = response.request.extensions.get("timeout")
    return times.get("read") if isinstance(times, dict) else None


def _shown(passage: Passage, piece: bytes, base: type) -> bytes:
    """What the caller sees of a piece. Raises what the client's own decoder would have raised."""
    try:
        return passage.take(piece)
    except UndecodableError as error:
        module = sys.modules[base.__module__.partition(".")[0]]
        raised: Exception = module.DecodingError(str(error))
        raise raised from None


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """None under another event loop, such as trio's: there are no tasks to start there."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
