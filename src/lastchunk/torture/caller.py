"""The process that makes the calls of some cells: `python -m lastchunk.torture.caller`.

Its first line of input is an Assignment. It writes a line when a call waits at its moment, one with
a Report when a call is over, and one when all are. The line `go` lets waiting calls go on. When its
input ends, it closes its books and exits.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import openai

import lastchunk
from lastchunk.simulator import write_script
from lastchunk.stage.servers import under_way
from lastchunk.stage.surfaces import create_method
from lastchunk.torture.ear import Ear, Line
from lastchunk.torture.faults import GIVE_UP_SECONDS, SILENCE_SECONDS, Act, PlannedCall, plan_call
from lastchunk.torture.matrix import Fault, Moment, cell_named

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.03
PAUSES = 15
UNREAD_SECONDS = 0.8
"""How long a caller who reads no more keeps its stream open."""

ARRIVAL_POLL_SECONDS = 0.1
AT_ONCE = 16
_COLLECTIONS = 3
"""A dropped stream is a chain of generators: collecting one lets go of the next."""

_RESETS = [(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))]
"""With a linger time of zero whatever closes the connection resets it."""

_package = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]
"""httpx or httpx2, whichever this openai stands on."""

_ONE_CALL_EACH = _package.Limits(max_keepalive_connections=0)
"""No connection is used twice: one that a fault has closed would break the next call, sometimes."""


class Assignment(msgspec.Struct):
    """What to call. `ledger` None: the clients are bare. `calls` are cell names and numbers.

    `at_once` None: all calls at the same time.
    """

    url: str
    provider: str
    ledger: str | None
    is_async: bool
    seed: int
    calls: list[tuple[str, int]]
    at_once: int | None = AT_ONCE
    through_gateway: bool = False

    def planned(self) -> list[PlannedCall]:
        calls = [plan_call(cell_named(name), number, self.seed) for name, number in self.calls]
        # What waits for a timeout goes first: nothing else would run at the end beside it.
        return sorted(calls, key=lambda call: call.cell.fault is not Fault.UPSTREAM_STALL)


class Calls:
    """What sync and async callers share: clients, headers, output."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.planned = assignment.planned()
        self._output = threading.Lock()

    def say(self, line: Line) -> None:
        with self._output:
            sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
            sys.stdout.flush()

    def client(self, kind: Callable[..., Any], **options: Any) -> Any:
        client = kind(base_url=f"{self.assignment.url}/v1", api_key="no-key-needed", **options)
        if self.assignment.ledger is not None:
            lastchunk.instrument(client, ledger=self.assignment.ledger)
        return client

    def create(self, client: Any, call: PlannedCall) -> Any:
        """The answer, or the coroutine that gives it."""
        read = PATIENCE_SECONDS
        if call.cell.fault is Fault.UPSTREAM_STALL and not self.assignment.through_gateway:
            read = SILENCE_SECONDS  # through the gateway it is the gateway that loses patience
        asked = client.with_options(
            max_retries=0, timeout=openai.Timeout(PATIENCE_SECONDS, read=read)
        )
        headers = {"x-sim": write_script(call.script), "x-sim-tag": call.tag}
        if self.assignment.through_gateway:
            headers["x-lastchunk-account"] = "torture"
            headers["x-lastchunk-tags"] = f"call={call.tag}"
        return create_method(asked, call.cell.dialect)(**call.body, extra_headers=headers)

    def label(self, call: PlannedCall) -> AbstractContextManager[None]:
        return lastchunk.label("torture", call=call.tag)


class SyncCalls(Calls):
    """Calls in threads."""

    def run(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        self._go = threading.Event()
        http = openai.DefaultHttpxClient(limits=_ONE_CALL_EACH)
        self._client = self.client(openai.OpenAI, http_client=http)
        gc.freeze()
        threading.Thread(target=self._play_all, daemon=True).start()
        for line in sys.stdin:
            if line.strip() == "go":
                self._go.set()
        lastchunk.close()

    def _play_all(self) -> None:
        at_once = self.assignment.at_once or max(1, len(self.planned))
        threads = [
            threading.Thread(target=self._play_some, args=(iter(share),), daemon=True)
            for share in (self.planned[n::at_once] for n in range(at_once))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.say(Line(over=True))

    def _play_some(self, calls: Iterator[PlannedCall]) -> None:
        for call in calls:
            ear = Ear(call)
            try:
                with self.label(call):
                    self._play(call, ear)
            except Exception as error:  # whatever it is: it is what the caller saw
                report = ear.over(error)
            else:
                report = ear.over()
            self.say(Line(report=report))

    def _play(self, call: PlannedCall, ear: Ear) -> None:
        if call.act is Act.GATE and call.cell.moment is Moment.HEADERS:
            self._wait_at_the_gate(call)
        stream = self.create(self._client, call)
        dropped = self._read(stream, call, ear)
        if not dropped:
            stream.close()
        del stream
        if dropped:
            for _ in range(_COLLECTIONS):
                gc.collect()

    def _read(self, stream: Any, call: PlannedCall, ear: Ear) -> bool:
        """Whether the stream is to be dropped as it is, without closing it."""
        acted = 0
        if ear.moment_is_here:
            acted = 1
            if (dropped := self._act(call)) is not None:
                return dropped
        for chunk in stream:
            ear.hear(chunk)
            if ear.moment_is_here and acted < (PAUSES if call.act is Act.PAUSE else 1):
                acted += 1
                if (dropped := self._act(call)) is not None:
                    return dropped
        if call.cell.moment is Moment.END:
            self._act(call)
        return False

    def _act(self, call: PlannedCall) -> bool | None:
        """None: read on; else leave, True without closing the stream."""
        match call.act:
            case Act.CLOSE | Act.TEAR:
                if call.cell.moment is Moment.FIRST_CHUNK:
                    time.sleep(GIVE_UP_SECONDS)
                return call.act is Act.TEAR
            case Act.STOP_READING:
                time.sleep(UNREAD_SECONDS)
                return True
            case Act.PAUSE:
                time.sleep(PAUSE_SECONDS)
            case Act.GATE:
                self._wait_at_the_gate(call)
        return None

    def _wait_at_the_gate(self, call: PlannedCall) -> None:
        self.say(Line(reached=call.tag))
        self._go.wait()


class AsyncCalls(Calls):
    """Calls in tasks."""

    def run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
            asyncio.run(self._main())
        lastchunk.close()

    async def _main(self) -> None:
        loop, main = asyncio.get_running_loop(), asyncio.current_task()
        assert main is not None
        loop.add_signal_handler(signal.SIGTERM, main.cancel)
        self._go, closing = asyncio.Event(), asyncio.Event()
        http = openai.DefaultAsyncHttpxClient(limits=_ONE_CALL_EACH)
        self._client = self.client(openai.AsyncOpenAI, http_client=http)
        transport = _package.AsyncHTTPTransport(limits=_ONE_CALL_EACH, socket_options=_RESETS)
        http = openai.DefaultAsyncHttpxClient(transport=transport)
        self._resetting = self.client(openai.AsyncOpenAI, http_client=http)
        gc.freeze()

        def listen() -> None:
            for line in sys.stdin:
                if line.strip() == "go":
                    loop.call_soon_threadsafe(self._go.set)
            loop.call_soon_threadsafe(closing.set)

        threading.Thread(target=listen, daemon=True).start()
        await self._play_all()
        self.say(Line(over=True))
        await closing.wait()

    async def _play_all(self) -> None:
        limit = asyncio.Semaphore(self.assignment.at_once or max(1, len(self.planned)))

        async def play(call: PlannedCall) -> None:
            async with limit:
                await self._play_one(call)

        async with asyncio.TaskGroup() as group:
            for call in self.planned:
                group.create_task(play(call))

    async def _play_one(self, call: PlannedCall) -> None:
        ear = Ear(call)
        # A task of its own, so that tearing it away tears nothing else.
        task = asyncio.create_task(self._labelled(call, ear))
        try:
            await task
        except asyncio.CancelledError:
            if not task.cancelled() or call.act is not Act.TEAR:
                raise
            report = ear.over()
        except Exception as error:  # whatever it is: it is what the caller saw
            report = ear.over(error)
        else:
            report = ear.over()
        self.say(Line(report=report))

    async def _labelled(self, call: PlannedCall, ear: Ear) -> None:
        with self.label(call):
            await self._play(call, ear)

    async def _play(self, call: PlannedCall, ear: Ear) -> None:
        resets = call.act is Act.TEAR and self.assignment.through_gateway
        answer = self.create(self._resetting if resets else self._client, call)
        if call.cell.moment is Moment.HEADERS and call.act is not Act.READ:
            if call.act is Act.GATE:
                await self._wait_at_the_gate(call)
            else:
                await self._give_up_on(answer, call)
                return
        stream = await answer
        if call.act is Act.STOP_READING:
            await self._read(stream, call, ear)
            del stream
            for _ in range(_COLLECTIONS):
                gc.collect()
                await asyncio.sleep(0.01)
            return
        async with stream:
            await self._read(stream, call, ear)

    async def _give_up_on(self, answer: Any, call: PlannedCall) -> None:
        """Leave while the headers are awaited: by a timeout of one's own, or torn away."""
        if call.act is Act.TEAR:
            task = asyncio.current_task()
            assert task is not None
            leaving = asyncio.create_task(self._when_it_arrived(call, task.cancel))
            await answer
            await leaving
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                now = asyncio.get_running_loop().time
                leaving = asyncio.create_task(
                    self._when_it_arrived(call, lambda: limit.reschedule(now()))
                )
                await answer
        await leaving

    async def _when_it_arrived(self, call: PlannedCall, leave: Callable[[], object]) -> None:
        """Leave once the provider has the call: before that there is nothing to account for."""
        provider = self.assignment.provider
        # The provider is another process: there is no event to wait for.
        while call.tag not in (await asyncio.to_thread(under_way, provider)).open:  # noqa: ASYNC110
            await asyncio.sleep(ARRIVAL_POLL_SECONDS)
        await asyncio.sleep(GIVE_UP_SECONDS)
        leave()

    async def _read(self, stream: Any, call: PlannedCall, ear: Ear) -> None:
        acted = 0
        if ear.moment_is_here:
            acted = 1
            if await self._act(call):
                return
        async for chunk in stream:
            ear.hear(chunk)
            if ear.moment_is_here and acted < (PAUSES if call.act is Act.PAUSE else 1):
                acted += 1
                if await self._act(call):
                    return
        if call.cell.moment is Moment.END:
            await self._act(call)

    async def _act(self, call: PlannedCall) -> bool:
        """Whether to leave."""
        match call.act:
            case Act.CLOSE | Act.TEAR:
                if call.cell.moment is Moment.FIRST_CHUNK:
                    await asyncio.sleep(GIVE_UP_SECONDS)
                if call.act is Act.CLOSE or self.assignment.through_gateway:
                    return True
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)  # while it waits for a chunk
            case Act.STOP_READING:
                await asyncio.sleep(UNREAD_SECONDS)
                return True
            case Act.PAUSE:
                await asyncio.sleep(PAUSE_SECONDS)
            case Act.GATE:
                await self._wait_at_the_gate(call)
        return False

    async def _wait_at_the_gate(self, call: PlannedCall) -> None:
        self.say(Line(reached=call.tag))
        await self._go.wait()


def main() -> None:
    assignment = msgspec.json.decode(sys.stdin.readline(), type=Assignment)
    (AsyncCalls(assignment) if assignment.is_async else SyncCalls(assignment)).run()


if __name__ == "__main__":
    main()
