"""Calls whose caller is gone and whose answer is read on: for the usage alone, or to the end.

The server cancels a request's handler when its client leaves. What is read on lives in tasks of its
own, which are kept here, and which end within the seconds that the call itself names.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine

from lastchunk.gateway.leg import BROKE, Answer
from lastchunk.gateway.upstream import arrived
from lastchunk.meter.departure import Cut
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall

MAX_GRACE_READS = 256
"""Grace reads at once. Beyond it a call is counted instead of read to its end."""


class LeftCalls:
    """All of one gateway's. Used in its event loop."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._grace_reads: set[asyncio.Task[None]] = set()
        self._drains: set[asyncio.Task[None]] = set()
        self._drained = asyncio.Event()
        self._drained.set()
        self.is_stopping = False
        """Who is cut off from now on has not left: we stopped."""

    def leave(self, answer: Answer, call: MeteredCall) -> None:
        """The caller is gone. Read on where that is wanted, else stop the upstream at once."""
        stop = self.stop_of_leaving()
        call.left()
        if rest := arrived(answer.content):
            call.receive(rest)
        seconds = self._stay(call, stop)
        if seconds is not None:
            self._start(_read_on(answer, call, stop, seconds), call)
            return
        call.end(stop)
        answer.close()

    async def outlive(self, sending: Coroutine[None, None, Answer], call: MeteredCall) -> Answer:
        """The answer to a request that is not taken back when its caller leaves before it comes.

        Where this is cancelled and the call is drained, the call goes on and ends by itself.
        """
        task = asyncio.create_task(sending)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            stop = self.stop_of_leaving()
            seconds = self._stay(call, stop)
            if seconds is None:
                task.cancel()
                task.add_done_callback(_close_unread)
            else:
                self._start(_read_unanswered(task, call, seconds), call)
            raise

    def count(self) -> int:
        """Answers that are read to the end although their callers left."""
        return len(self._drains)

    async def settle(self, seconds: float) -> None:
        """Let drains under way end, for so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), max(0.0, seconds))

    def hurry(self) -> None:
        """Let drains end no longer."""
        self._drained.set()

    async def finish(self, seconds: float) -> None:
        """Cut drains that are left, and let grace reads end."""
        drains = list(self._drains)
        for task in drains:
            task.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
        if self._grace_reads:
            await asyncio.wait(self._grace_reads, timeout=seconds)

    def stop_of_leaving(self) -> Stop:
        return Stop.SHUT_DOWN if self.is_stopping else Stop.CALLER_LEFT

    def _stay(self, call: MeteredCall, stop: Stop) -> float | None:
        """For how long to read on; who is cut off by us is not drained."""
        if stop is Stop.SHUT_DOWN and not call.awaits_usage():
            return None
        seconds = call.stay(self._grace_seconds)
        if not call.is_draining and len(self._grace_reads) >= MAX_GRACE_READS:
            return None
        return seconds

    def _start(self, reading: Coroutine[None, None, None], call: MeteredCall) -> None:
        tasks = self._drains if call.is_draining else self._grace_reads
        task = asyncio.create_task(reading)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if tasks is self._drains:
            self._drained.clear()
            task.add_done_callback(self._note_drained)

    def _note_drained(self, _: asyncio.Task[None]) -> None:
        if not self._drains:
            self._drained.set()


async def _read_on(answer: Answer, call: MeteredCall, stop: Stop, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            while call.reads_on and (piece := await answer.content.readany()):
                call.receive(piece)
    except TimeoutError:
        call.cut(Cut.SECONDS)  # it is counted instead
    except BROKE:
        if rest := arrived(answer.content):
            call.receive(rest)
    except asyncio.CancelledError:
        call.cut(Cut.SHUTDOWN)
        raise
    finally:
        call.end(stop)
        answer.close()


async def _read_unanswered(
    sending: asyncio.Task[Answer], call: MeteredCall, seconds: float
) -> None:
    """The caller left before the answer's head: wait for it, then read to the end."""
    try:
        async with asyncio.timeout(seconds):
            answer = await sending
    except (TimeoutError, *BROKE) as error:
        call.cut(Cut.SECONDS if isinstance(error, TimeoutError) else Cut.UPSTREAM)
        call.end(Stop.CALLER_LEFT)
        return
    except asyncio.CancelledError:
        call.cut(Cut.SHUTDOWN)
        call.end(Stop.CALLER_LEFT)
        raise
    note_head(answer, call)
    await _read_on(answer, call, Stop.CALLER_LEFT, seconds)


def note_head(answer: Answer, call: MeteredCall) -> None:
    """Tell the call of its answer's head."""
    told = answer.headers
    call.headed(answer.status, told.get("content-type"), told.get("content-encoding"))


def _close_unread(task: asyncio.Task[Answer]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
