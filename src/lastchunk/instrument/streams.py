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
from functools import lru_cache, partial
from typing import Any

from lastchunk.instrument.attempt import stop_of
from lastchunk.instrument.grace import (
    ARRIVED_SECONDS,
    Keeper,
    Reading,
    end_async,
    keeper,
    read_arrived,
    read_on_async,
    shut_down,
)
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
        self.call.receive(piece)
        if self._hider is None:
            return piece
        if self._decoder is not None:
            piece = self._decoder.decode(piece)
        return self._hider.feed(piece)

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
                try:
                    shown = passage.take(piece)
                except UndecodableError as error:
                    raise _decoding_error(base, error) from None
                if shown:
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
            self._grace_seconds = grace_seconds if loop is not None else 0.0
            self._closed = False
            self._connection = _own_socket(response) if loop is not None else None
            if self._connection is not None:  # its loop is over when the process is
                passage.call.hang_up = partial(shut_down, self._connection)
            self._reading: asyncio.Task[bytes | None] | None = None
            self._dropped = weakref.finalize(
                self,
                _drop_async,
                loop,
                (source, self._iterator, passage.call, self._grace_seconds, self._connection),
            )
            self._dropped.atexit = False

        @property
        def elapsed(self) -> Any:
            return getattr(self._inner, "elapsed", None)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            passage = self._passage
            while True:
                try:
                    if self._reading is not None or (
                        passage.call.finish_seen and self._grace_seconds
                    ):
                        piece = await self._read_shielded()
                    else:
                        piece = await anext(self._iterator, None)
                except BaseException as error:
                    if self._reading is None:  # else the grace read in `aclose` may still end well
                        passage.call.end(stop_of(error))
                    raise
                if piece is None:
                    break
                try:
                    shown = passage.take(piece)
                except UndecodableError as error:
                    raise _decoding_error(base, error) from None
                if shown:
                    yield shown
            passage.call.end(Stop.END_OF_BODY)
            if rest := passage.rest():
                yield rest

        async def _read_shielded(self) -> bytes | None:
            """The next piece, read by a task of its own that outlives a cancelled caller."""
            if self._reading is None:
                self._reading = asyncio.create_task(_next_piece(self._iterator))
                self._reading._log_destroy_pending = False  # type: ignore[attr-defined]
            try:
                piece = await asyncio.shield(self._reading)
            except asyncio.CancelledError:  # the caller's: what is being read is still wanted
                raise
            except BaseException:
                self._reading = None
                raise
            self._reading = None
            return piece

        async def aclose(self) -> None:
            if self._closed or self._dropped.detach() is None:
                return
            self._closed = True
            call, reading, seconds = self._passage.call, self._reading, self._grace_seconds
            wanted = seconds and call.awaits_usage()
            if wanted and read_on_async(self._inner, self._iterator, reading, call, seconds):
                return
            try:
                if reading is not None:
                    reading.cancel()
                elif self._connection is not None and call.is_under_way:
                    shut_down(self._connection)
                    await read_arrived(self._iterator, call)
            finally:
                call.end(Stop.CALLER_LEFT)
                await self._inner.aclose()

    return AsyncMeteredStream


async def _next_piece(iterator: AsyncIterator[bytes]) -> bytes | None:
    return await anext(iterator, None)


# How a stream is left. Finalizers run anywhere: they take no lock and do not wait. They come before
# the generators inside are collected, which they keep alive.


def _leave(keeper: Keeper, reading: Reading) -> bool:
    """Have the keeper read what is worth reading and then close. False: there is nothing."""
    if reading.seconds and reading.call.awaits_usage():
        keeper.read_on(reading)
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


_Dropped = tuple[Any, AsyncIterator[bytes], MeteredCall, float, socket.socket | None]


def _drop_async(loop: asyncio.AbstractEventLoop | None, dropped: _Dropped) -> None:
    call, seconds = dropped[2], dropped[3]
    if loop is None or not call.is_under_way:
        call.end(Stop.CALLER_LEFT)
    if loop is None:
        return
    try:
        loop.call_soon_threadsafe(_leave_async, *dropped)
    except RuntimeError:  # the loop is closed, and its connections with it
        call.end(Stop.CALLER_LEFT)
    else:
        call.read_on(max(seconds, ARRIVED_SECONDS))


def _leave_async(
    source: Any,
    iterator: AsyncIterator[bytes],
    call: MeteredCall,
    grace_seconds: float,
    connection: socket.socket | None,
) -> None:
    wanted = grace_seconds and call.awaits_usage()
    if wanted and read_on_async(source, iterator, None, call, grace_seconds):
        return
    if connection is not None:
        shut_down(connection)
    task = asyncio.ensure_future(_read_and_end(source, iterator, call))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _read_and_end(source: Any, iterator: AsyncIterator[bytes], call: MeteredCall) -> None:
    try:
        if call.is_under_way:
            await read_arrived(iterator, call)
    finally:
        await end_async(source, call)


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


def _decoding_error(base: type, error: UndecodableError) -> Exception:
    """What the client's own decoder would have raised."""
    module = sys.modules[base.__module__.partition(".")[0]]
    raised: Exception = module.DecodingError(str(error))
    return raised


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """None under another event loop, such as trio's: there are no tasks to start there."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
