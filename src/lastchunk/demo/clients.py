"""Real openai clients that make the planned calls, and leave them in all the planned ways."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import openai

import lastchunk
from lastchunk.demo.scenario import SILENCE_SECONDS, Act, PlannedCall
from lastchunk.simulator import write_script
from lastchunk.stage.heard import Heard
from lastchunk.stage.surfaces import create_method
from lastchunk.wire.dialect import Dialect

THREADS = 12
TASKS = 20
"""How many sync and async calls are under way at once: enough for two busy cores."""

PATIENCE_SECONDS = 30.0
GIVE_UP_SECONDS = 0.4

PLAIN_ANSWER = {"x-sim": "{}"}

_COLLECTIONS = 3
"""A dropped stream is a chain of generators: collecting one lets go of the next."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Root URLs of the provider, of the gateway, and of a server that does not exist."""

    provider: str
    gateway: str
    nobody: str


@dataclass(frozen=True, slots=True)
class Marks:
    """What finds the calls of one run again: `run` in the ledger's tags and the bill's tags."""

    run: str

    def billed_as(self, number: int) -> str:
        return f"{self.run}:{number}"

    def tags(self, call: PlannedCall) -> dict[str, str]:
        return {"run": self.run, "call": str(call.number), "cut": call.way.name}


class TheCallerFailed(Exception):
    """Something in the caller's own loop, which has nothing to do with the call."""


class Clients:
    """The four ways in, sync and async, in process and through the gateway."""

    def __init__(self, addresses: Addresses, ledger: str, marks: Marks) -> None:
        self._marks = marks
        self._addresses = addresses
        self._sync = {
            True: _sync_client(addresses.gateway),
            False: _sync_client(addresses.provider),
        }
        self._async = {
            True: _async_client(addresses.gateway),
            False: _async_client(addresses.provider),
        }
        lastchunk.instrument(self._sync[False], ledger=ledger)
        lastchunk.instrument(self._async[False], ledger=ledger)

    async def play(self, calls: list[PlannedCall], played: Callable[[Heard], None]) -> None:
        """Make all calls, many at once; `played` is told of each when it is over."""
        loop = asyncio.get_running_loop()
        tasks = asyncio.Semaphore(TASKS)

        async def play_one(call: PlannedCall, threads: ThreadPoolExecutor) -> None:
            if call.is_async:
                async with tasks:
                    heard = await self._play_async(call)
            else:
                heard = await loop.run_in_executor(threads, self._play, call)
            played(heard)

        with ThreadPoolExecutor(THREADS, "demo-caller") as threads:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(play_one(call, threads))
        for client in self._async.values():
            await client.close()
        for sync_client in self._sync.values():
            sync_client.close()

    # Sync callers.

    def _play(self, call: PlannedCall) -> Heard:
        heard = Heard(call.number)
        with self.labels(call):
            try:
                self._call(call, heard)
            except (openai.OpenAIError, TheCallerFailed) as error:
                heard.error = type(error).__name__
        return heard

    def _call(self, call: PlannedCall, heard: Heard) -> None:
        answer = self.ask(call, is_async=False)
        if not call.request.streamed:
            heard.hear(answer)
        elif call.way.act is Act.DROP:
            _drop(answer, heard, call.leave_after)
            del answer
            _collect()
        elif call.way.act is Act.NEVER_READ:
            del answer
            _collect()
        else:
            with answer:
                for chunk in answer:
                    heard.hear(chunk)
                    if _leaves(call, heard):
                        break

    # Async callers.

    async def _play_async(self, call: PlannedCall) -> Heard:
        heard = Heard(call.number)
        with self.labels(call):
            try:
                if call.way.act is Act.CANCEL:
                    await self._cancelled(call, heard)
                else:
                    await self._call_async(call, heard)
            except (openai.OpenAIError, TheCallerFailed, TimeoutError) as error:
                heard.error = type(error).__name__
        return heard

    async def _call_async(self, call: PlannedCall, heard: Heard) -> None:
        answer = await self.ask(call, is_async=True)
        if not call.request.streamed:
            heard.hear(answer)
        elif call.way.act is Act.DROP:
            await _drop_async(answer, heard, call.leave_after)
            del answer
            await _collect_async()
        elif call.way.act is Act.NEVER_READ:
            del answer
            await _collect_async()
        else:
            seconds = call.leave_after_s if call.way.act is Act.TIME_OUT else None
            async with asyncio.timeout(seconds), answer:
                async for chunk in answer:
                    heard.hear(chunk)
                    if _leaves(call, heard):
                        break

    async def _cancelled(self, call: PlannedCall, heard: Heard) -> None:
        """The task that reads is cancelled while it waits for a chunk."""
        task = asyncio.create_task(self._call_async(call, heard))
        heard.when(call.leave_after, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    # What both need, and who plays a call in his own way.

    def ask(self, call: PlannedCall, *, is_async: bool) -> Any:
        """The answer of the SDK's own method for this surface; a coroutine if async."""
        client: Any = (self._async if is_async else self._sync)[call.through_gateway]
        if call.way.act is Act.NO_SERVER:
            client = client.with_options(base_url=f"{self._addresses.nobody}/v1")
        read = GIVE_UP_SECONDS if call.way.act is Act.GIVE_UP else PATIENCE_SECONDS
        if call.script.fault is not None and "stall" in call.script.fault.kind:
            # Through the gateway it is the gateway that loses patience.
            read = PATIENCE_SECONDS if call.through_gateway else SILENCE_SECONDS
        client = client.with_options(
            max_retries=call.way.retries, timeout=openai.Timeout(PATIENCE_SECONDS, read=read)
        )
        create = create_method(client, call.request.surface)
        return create(**call.request.body, extra_headers=self._headers(call))

    def _headers(self, call: PlannedCall) -> dict[str, str]:
        headers = {
            "x-sim": write_script(call.script),
            "x-sim-tag": self._marks.billed_as(call.number),
        }
        if call.through_gateway:
            tags = self._marks.tags(call)
            headers["x-lastchunk-account"] = call.request.account
            headers["x-lastchunk-tags"] = ",".join(f"{key}={tag}" for key, tag in tags.items())
        return headers

    def labels(self, call: PlannedCall) -> AbstractContextManager[None]:
        """Who spends; a call through the gateway says so in its headers."""
        if call.through_gateway:
            return contextlib.nullcontext()
        return lastchunk.label(call.request.account, **self._marks.tags(call))


async def warm_up(provider: str) -> None:
    """One answer of each kind, outside the run: SDKs import and build much at their first calls.

    Callers that starve for want of it would read late, as no application does all the time.
    """
    async with _async_client(provider) as client:
        for surface in Dialect:
            body: dict[str, Any] = {"model": "gpt-4o", "stream": True}
            match surface:
                case Dialect.CHAT:
                    body["messages"] = [{"role": "user", "content": "hello"}]
                case Dialect.RESPONSES:
                    body["input"] = "hello"
                case Dialect.COMPLETIONS:
                    body |= {"model": "gpt-3.5-turbo-instruct", "prompt": "hello"}
            async for _ in await create_method(client, surface)(**body, extra_headers=PLAIN_ANSWER):
                pass


def _sync_client(root: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{root}/v1", api_key="no-key-needed")


def _async_client(root: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{root}/v1", api_key="no-key-needed")


def _leaves(call: PlannedCall, heard: Heard) -> bool:
    """Whether the caller goes now; one whose own code fails raises."""
    match call.way.act:
        case Act.CLOSE:
            return heard.chunks >= call.leave_after
        case Act.RAISE if heard.chunks >= call.leave_after:
            raise TheCallerFailed
        case Act.LEAVE_AT_FINISH:
            return heard.finished >= call.request.choices
        case Act.LEAVE_AT_USAGE:
            return heard.usage is not None
        case _:
            return False


def _drop(answer: Iterator[Any], heard: Heard, chunks: int) -> None:
    for chunk in answer:
        heard.hear(chunk)
        if heard.chunks >= chunks:
            return


async def _drop_async(answer: AsyncIterator[Any], heard: Heard, chunks: int) -> None:
    async for chunk in answer:
        heard.hear(chunk)
        if heard.chunks >= chunks:
            return


def _collect() -> None:
    for _ in range(_COLLECTIONS):
        gc.collect()


async def _collect_async() -> None:
    for _ in range(_COLLECTIONS):
        gc.collect()
        await asyncio.sleep(0.01)
