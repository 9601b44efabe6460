"""Reading on when the caller has left: a grace read for the usage alone, or a drain to the end.

Nobody waits for either, and both are over within the seconds that the call itself names. A grace
read costs no token; a drain is made where the rules of `leaving` say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from lastchunk.clock import SystemClock
from lastchunk.instrument.held_back import HeldBack
from lastchunk.meter.departure import Cut
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall

MAX_GRACE_READS = 64
"""Grace reads at once in a process. Beyond it a call is counted instead of read to its end."""

ARRIVED_SECONDS = 1.0
"""How long what had arrived may take to be read: it only waits for a thread or the loop."""

BACKED_UP_BYTES = 32 * 1024
"""Unread in a socket: with so many its peer may be held up. Linux first lets about 64 KB come."""

BACKED_UP_SECONDS = 0.05
"""How much later a provider may be told that its caller left, where it may be held up."""

_clock = SystemClock()


@dataclass(eq=False, slots=True)
class Reading:
    """A sync stream to be read on. `connection` is its socket where it is this stream's alone."""

    inner: Any
    iterator: Iterator[bytes]
    call: MeteredCall
    seconds: float
    connection: socket.socket | None
    deadline: float = 0.0
    over: bool = False
    hung_up: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> None:
        """Read on until nothing more is wanted, the body ended, or `interrupt` broke it."""
        try:
            for piece in self.iterator:
                self.call.receive(piece)
                if not self.call.reads_on and not self.hung_up:
                    break
        except ValueError:  # another thread is reading it, and finds its end at once
            return
        except Exception:  # it broke, or was interrupted: the call is counted instead
            pass
        self._end()

    def _end(self) -> None:
        self.call.end(Stop.CALLER_LEFT)
        with self.lock:  # closed, the connection may be another request's: no interrupt now
            self.over = True
        self.close()

    def interrupt(self) -> None:
        """Time is over. Closing a socket does not wake the thread that reads it: shut it down."""
        self.call.cut(Cut.SECONDS)
        self.call.end(Stop.CALLER_LEFT)
        with self.lock:
            if self.over:
                return
            if self.connection is None:
                self.close()
                return
            shut_down(self.connection)

    def hang_up(self) -> None:
        """Tell the provider at once; what had arrived can still be read, and no more will come."""
        self.hung_up = True
        self.call.left()
        self.call.read_on(ARRIVED_SECONDS)
        if self.connection is not None:
            shut_down(self.connection)

    def close(self) -> None:
        with contextlib.suppress(Exception):  # nobody is left to be told
            self.inner.close()


def shut_down(connection: Any) -> None:
    """Both ways, as its peer is told at once. What had arrived can still be read, then it ends."""
    with contextlib.suppress(OSError):  # it is closed
        if isinstance(
            connection, socket.socket
        ):  # not TLS's own way, which would read in the clear
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
        else:
            with _copy(connection) as copy:
                copy.shutdown(socket.SHUT_RDWR)


def _is_backed_up(connection: Any) -> bool:
    """Whether more than the socket holds may wait at its peer."""
    try:
        with _copy(connection) as copy:  # an event loop's socket never blocks
            return len(copy.recv(BACKED_UP_BYTES, socket.MSG_PEEK)) == BACKED_UP_BYTES
    except OSError:  # nothing is there, or it is closed
        return False


def _copy(connection: Any) -> socket.socket:
    """A socket in place of an event loop's stand-in for it."""
    return socket.socket(fileno=os.dup(connection.fileno()))


class Keeper:
    """One thread that starts the reads and ends those that take too long.

    Streams come to it through a queue: a stream may be closed in a finalizer, in the middle of
    anything, where no lock may be taken and no thread be started.
    """

    def __init__(self) -> None:
        self._inbox: SimpleQueue[Reading | Any] = SimpleQueue()
        self._readings: list[Reading] = []
        self._thread = threading.Thread(target=self._run, name="lastchunk-grace", daemon=True)
        self._thread.start()

    def read_on(self, reading: Reading, seconds: float) -> None:
        """Read this stream while its call wants it, then close it. Safe in finalizers."""
        reading.seconds = seconds
        self._inbox.put(reading)

    def hang_up(self, reading: Reading) -> None:
        """Leave this stream: count what had arrived unread, then close it. Safe in finalizers.

        Providers run ahead of callers: what waits in buffers was generated, and is billed.
        """
        reading.hang_up()
        self._inbox.put(reading)

    def close(self, stream: Any) -> None:
        """Close a stream that its caller has dropped. Safe in finalizers."""
        self._inbox.put(stream)

    def _run(self) -> None:
        while True:
            now = _clock.elapsed()
            due = min((reading.deadline for reading in self._readings), default=None)
            try:
                item = self._inbox.get(timeout=None if due is None else max(0.0, due - now))
                self._take(item)
            except Empty:
                pass
            self._end_overdue()

    def _take(self, item: Any) -> None:
        if not isinstance(item, Reading):
            with contextlib.suppress(Exception):  # as in Reading.close
                item.close()
            return
        if item.hung_up:  # it is at its end: reading it does not wait
            item.read()
            return
        self._readings = [reading for reading in self._readings if not reading.over]
        graces = sum(not reading.call.is_draining for reading in self._readings)
        if graces >= MAX_GRACE_READS and not item.call.is_draining:
            item.call.end(Stop.CALLER_LEFT)
            item.close()
            return
        item.deadline = _clock.elapsed() + item.seconds
        self._readings.append(item)
        try:
            threading.Thread(target=item.read, name="lastchunk-grace-read", daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down: this thread has nothing else to do
            item.read()

    def _end_overdue(self) -> None:
        now = _clock.elapsed()
        for reading in self._readings:
            if not reading.over and reading.deadline <= now:
                reading.interrupt()
        self._readings = [r for r in self._readings if not r.over and r.deadline > now]


_keeper: Keeper | None = None
_keeper_lock = threading.Lock()


def keeper() -> Keeper:
    """This process's keeper. Called where threads may be started: when a stream is opened."""
    global _keeper
    if _keeper is None:
        with _keeper_lock:
            _keeper = _keeper or Keeper()
    return _keeper


def forget_keeper() -> None:
    """In a forked child: the parent's thread is not here."""
    global _keeper, _keeper_lock
    _keeper, _keeper_lock = None, threading.Lock()
    _tasks.clear()
    _drains.clear()


# The same for async streams, as tasks of their event loop.

_tasks: set[asyncio.Task[None]] = set()
_drains: set[asyncio.Task[None]] = set()


def read_on_async(
    inner: Any,
    iterator: AsyncIterator[bytes],
    reading: asyncio.Task[bytes | None] | None,
    call: MeteredCall,
    seconds: float,
) -> bool:
    """Read this stream while its call wants it, then close it. False: too many are being read.

    `reading` is the read of the next piece, where one is under way.
    """
    tasks = _drains if call.is_draining else _tasks
    if tasks is _tasks and len(_tasks) >= MAX_GRACE_READS:
        return False
    task = asyncio.create_task(_read_on(inner, iterator, reading, call, seconds))
    # Its loop may be closed while it runs: that is no fault worth a log line, the call is ended by
    # the accountant then.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return True


class Arrivals:
    """Reads one async stream for a caller whose leaving loses nothing of what had arrived.

    `connection` is this stream's alone. `patience` is for how many seconds of silence the HTTP
    library reads on; None: for ever.
    """

    def __init__(
        self,
        iterator: AsyncIterator[bytes],
        call: MeteredCall,
        connection: Any,
        patience: float | None,
    ) -> None:
        self._iterator = iterator
        self._call = call
        self._connection = connection
        self._patience = patience
        self._reads_until = 0.0
        self._left, self._left_at = False, 0.0
        self._hung_up = False

    async def next_piece(self) -> bytes | None:
        """The next piece, None at the end. Cancelled, it reads what had arrived before it raises.

        It runs in its caller's own task.
        """
        if self._patience is not None:
            self._reads_until = _clock.elapsed() + self._patience
        return await HeldBack(self._next_or_rest(), ARRIVED_SECONDS, self._is_left)

    async def rest(self, reading: asyncio.Task[bytes | None] | None) -> None:
        """Read what had arrived and the caller left unread; `reading` is the read under way."""
        self._leave()
        with contextlib.suppress(Exception):  # there is no more, or the connection broke
            await HeldBack(self._rest(reading), ARRIVED_SECONDS)

    async def _next_or_rest(self) -> bytes | None:
        piece = await anext(self._iterator, None)
        if self._left and piece is not None:
            await self._take_all(piece)
        return piece

    async def _rest(self, reading: asyncio.Task[bytes | None] | None) -> None:
        piece = await (anext(self._iterator, None) if reading is None else reading)
        if piece is not None:
            await self._take_all(piece)

    async def _take_all(self, piece: bytes | None) -> None:
        while piece is not None:
            self._call.receive(piece)
            self._hang_up()
            piece = await anext(self._iterator, None)

    def _is_left(self) -> bool:
        """Asked at a cancellation. False: it may be the library that ends its own silent read."""
        if self._patience is not None and _clock.elapsed() >= self._reads_until:
            return False
        self._leave()
        return True

    def _leave(self) -> None:
        self._left, self._left_at = True, _clock.elapsed()
        self._call.left()
        self._call.read_on(ARRIVED_SECONDS)
        self._hang_up()

    def _hang_up(self) -> None:
        """Tell the provider: at once, unless more may be on its way than the socket could take.

        That comes as the socket is emptied, and would be lost. Where this takes long the loop
        lags on, and its provider is not to make more meanwhile.
        """
        if self._hung_up:
            return
        is_time = _clock.elapsed() - self._left_at >= BACKED_UP_SECONDS
        if is_time or not _is_backed_up(self._connection):
            self._hung_up = True
            shut_down(self._connection)


async def _read_on(
    inner: Any,
    iterator: AsyncIterator[bytes],
    reading: asyncio.Task[bytes | None] | None,
    call: MeteredCall,
    seconds: float,
) -> None:
    try:
        async with asyncio.timeout(seconds):
            if reading is not None and (piece := await reading) is not None:
                call.receive(piece)
            while call.reads_on and (piece := await anext(iterator, None)) is not None:
                call.receive(piece)
    except GeneratorExit:  # the loop was closed under us: nothing can be awaited any more
        call.cut(Cut.SHUTDOWN)
        call.end(Stop.CALLER_LEFT)
        raise
    except TimeoutError:  # time is over: the call is counted instead
        call.cut(Cut.SECONDS)
    except Exception:  # the connection broke: as above
        call.cut(Cut.UPSTREAM)
    except BaseException:
        call.cut(Cut.SHUTDOWN)
        await end_async(inner, call)
        raise
    await end_async(inner, call)


async def end_async(inner: Any, call: MeteredCall) -> None:
    """The call is over, and its connection."""
    call.end(Stop.CALLER_LEFT)
    with contextlib.suppress(Exception):  # nobody is left to be told
        await inner.aclose()
