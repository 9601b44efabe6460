"""The grace read: the caller left after the finish and before the usage, which is worth a moment.

It costs no token, nobody waits for it, and it is over within the seconds that the settings give.
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
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall

MAX_GRACE_READS = 64
"""Grace reads at once in a process. Beyond it a call is counted instead of read to its end."""

ARRIVED_SECONDS = 1.0
"""How long what had arrived may take to be read: it only waits for a thread or the loop."""

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
        """Read on until the usage came, the body ended, or `interrupt` broke it."""
        try:
            for piece in self.iterator:
                self.call.receive(piece)
                if not self.call.finish_seen and not self.hung_up:
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
        else:  # an event loop's stand-in for a socket
            with socket.socket(fileno=os.dup(connection.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)


class Keeper:
    """One thread that starts grace reads and ends those that take too long.

    Streams come to it through a queue: a stream may be closed in a finalizer, in the middle of
    anything, where no lock may be taken and no thread be started.
    """

    def __init__(self) -> None:
        self._inbox: SimpleQueue[Reading | Any] = SimpleQueue()
        self._readings: list[Reading] = []
        self._thread = threading.Thread(target=self._run, name="lastchunk-grace", daemon=True)
        self._thread.start()

    def read_on(self, reading: Reading) -> None:
        """Read this stream for its usage, then close it. Safe in finalizers."""
        reading.call.read_on(reading.seconds)
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
        if len(self._readings) >= MAX_GRACE_READS:
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


# The same for async streams, as tasks of their event loop.

_tasks: set[asyncio.Task[None]] = set()


def read_on_async(
    inner: Any,
    iterator: AsyncIterator[bytes],
    reading: asyncio.Task[bytes | None] | None,
    call: MeteredCall,
    seconds: float,
) -> bool:
    """Read this stream for its usage, then close it. False: too many are being read already.

    `reading` is the read of the next piece, where one is under way.
    """
    if len(_tasks) >= MAX_GRACE_READS:
        return False
    call.read_on(seconds)
    task = asyncio.create_task(_read_on(inner, iterator, reading, call, seconds))
    # Its loop may be closed while it runs: that is no fault worth a log line, the call is ended by
    # the accountant then.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return True


async def read_arrived(iterator: AsyncIterator[bytes], call: MeteredCall) -> None:
    """Read what had arrived and the caller left unread; the connection is shut down."""
    try:
        async with asyncio.timeout(ARRIVED_SECONDS):
            async for piece in iterator:
                call.receive(piece)
    except Exception:  # there is no more, or the connection broke
        pass


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
            while call.finish_seen and (piece := await anext(iterator, None)) is not None:
                call.receive(piece)
    except GeneratorExit:  # the loop was closed under us: nothing can be awaited any more
        call.end(Stop.CALLER_LEFT)
        raise
    except Exception:  # time is over or the connection broke: the call is counted instead
        pass
    except BaseException:
        await end_async(inner, call)
        raise
    await end_async(inner, call)


async def end_async(inner: Any, call: MeteredCall) -> None:
    """The call is over, and its connection."""
    call.end(Stop.CALLER_LEFT)
    with contextlib.suppress(Exception):  # nobody is left to be told
        await inner.aclose()
