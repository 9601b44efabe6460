"""Exact mode in process: the whole answer is asked for, and replayed as the stream.

The exchange upstream belongs to a thread or a task of its own: a caller that is cancelled or runs
out of time leaves it, and it goes on, because the provider generates and bills the answer anyway.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeout
from functools import lru_cache
from typing import Any

from lastchunk.instrument.attempt import Attempt
from lastchunk.instrument.process import after_fork
from lastchunk.metered_call import MeteredCall
from lastchunk.wire.replay import EVENT_STREAM, replay

LEFT_SECONDS = 600.0
"""How long an answer may take, from one byte to the next, once its caller has left."""

MAX_LEFT = 64
"""Answers that are read for the account alone. Beyond it calls end with their callers."""


def replayed(attempt: Attempt, response: Any) -> Any:
    """The response as the caller asked for it: a stream. What cannot be replayed stays as it is.

    `response` has been read whole.
    """
    if response.status_code != 200:
        return response
    request = attempt.call.call.request
    try:
        frames = replay(request.dialect, response.content, usage_chunk=attempt.wants_usage_chunk)
    except Exception:  # an encoding that the client itself cannot undo: it will say so
        return response
    if frames is None:
        return response
    gone = ("content-length", "content-encoding", "content-type", "transfer-encoding")
    headers = [
        (name, value)
        for name, value in response.headers.raw
        if name.lower().decode("latin-1") not in gone
    ]
    headers += [(b"content-type", EVENT_STREAM.encode()), (b"x-lastchunk-usage", b"exact")]
    replay_response = type(response)(
        response.status_code,
        headers=headers,
        stream=_stream_of(response, frames),
        request=response.request,
        extensions=response.extensions,
        history=response.history,
    )
    replay_response.elapsed = response.elapsed
    return replay_response


def _stream_of(response: Any, frames: list[bytes]) -> Any:
    names = ("SyncByteStream", "AsyncByteStream")
    for base in type(response.stream).__mro__:
        if base.__name__ in names:
            return _stream_class(base)(frames)
    raise TypeError(f"{type(response.stream).__name__} is no stream of httpx or httpx2")


@lru_cache(maxsize=8)
def _stream_class(base: type) -> Any:
    """A stream of frames that are here already, for the client's own kind of response."""

    class Frames(base):  # type: ignore[misc]
        def __init__(self, frames: list[bytes]) -> None:
            self._frames = frames

        def __iter__(self) -> Iterator[bytes]:
            yield from self._frames

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for frame in self._frames:
                yield frame

        def close(self) -> None:
            self._frames = []

        async def aclose(self) -> None:
            self._frames = []

    return Frames


# The exchange, owned by somebody who stays.

_left = 0
_lock = threading.Lock()


def exchange(attempt: Attempt, send: Callable[[], Any]) -> Any:
    """`send()`, which reads the whole answer, while the caller's own time lasts."""
    if _left >= MAX_LEFT:
        return send()
    seconds = _wait_longer(attempt)
    done: Future[Any] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            done.set_result(context.run(send))
        except BaseException as error:  # it is the waiting caller's, if there still is one
            done.set_exception(error)

    threading.Thread(target=run, name="lastchunk-exact", daemon=True).start()
    try:
        return done.result(seconds)
    except WaitTimeout:
        if done.done():  # it is an error of the exchange itself
            raise
        _leave(attempt.call, done)
        raise _read_timeout(attempt.request) from None
    except BaseException:
        if not done.done():  # Ctrl-C, or an exception that was put into this thread
            _leave(attempt.call, done)
        raise


async def exchange_async(attempt: Attempt, send: Callable[[], Awaitable[Any]]) -> Any:
    """The same for a coroutine; a task is what stays."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # another event loop than asyncio's: there are no tasks to start there
        return await send()
    if _left >= MAX_LEFT:
        return await send()
    seconds = _wait_longer(attempt)
    task = asyncio.ensure_future(send())
    try:
        await asyncio.wait({task}, timeout=seconds)
    except BaseException:
        _leave_task(attempt.call, task)
        raise
    if task.done():
        return task.result()
    _leave_task(attempt.call, task)
    raise _read_timeout(attempt.request)


def _leave_task(call: MeteredCall, task: asyncio.Future[Any]) -> None:
    if task.done():
        return
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    _leave(call, task)


_tasks: set[asyncio.Future[Any]] = set()


def _leave(call: MeteredCall, going_on: Any) -> None:
    """The caller is gone. Its exchange goes on, and whatever becomes of it is no one's error."""
    global _left
    call.caller_left = True
    with _lock:
        _left += 1
    going_on.add_done_callback(_over)


def _over(gone_on: Any) -> None:
    global _left
    with _lock:
        _left -= 1
    if not gone_on.cancelled():
        gone_on.exception()  # somebody has looked at it


def _wait_longer(attempt: Attempt) -> float | None:
    """Let the request itself wait longer than its caller; how long the caller waits, in seconds."""
    times = attempt.request.extensions.get("timeout")
    if not isinstance(times, dict):
        return None
    seconds: float | None = times.get("read")
    longer = None if seconds is None else max(seconds, LEFT_SECONDS)
    attempt.request.extensions = {
        **attempt.request.extensions,
        "timeout": {**times, "read": longer},
    }
    return seconds


def _read_timeout(request: Any) -> Exception:
    """What the caller's own client raises where an answer does not come in time."""
    module = sys.modules[type(request).__module__.partition(".")[0]]
    raised: Exception = module.ReadTimeout("The whole answer did not come in time", request=request)
    return raised


def _forget_left() -> None:
    """In a forked child: the parent's threads are not here."""
    global _left, _lock
    _left, _lock = 0, threading.Lock()
    _tasks.clear()


after_fork.append(_forget_left)
