"""The stages with sockets: an instrumented client, sync or async, and one behind the gateway."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from story import Json, Leave, Story
from story_judge import Account, Play, body_of, objects_for_caller, told_by
from story_tape import TapeServer

import lastchunk
from lastchunk.gateway.app import Gateway, GatewayOptions
from lastchunk.ledger import Reader
from lastchunk.ledger.calls import CallFilter
from lastchunk.settings import load_settings
from lastchunk.simulator import Simulator, write_script
from lastchunk.startup import open_books

PATIENCE_SECONDS = 15.0
"""For rows to appear, on two busy cores."""

SHORT_TIMEOUT_SECONDS = 0.6
_numbers = itertools.count(1)


class Boom(Exception):
    """What a caller raises in the middle of its own work."""


@dataclass(frozen=True)
class Scenery:
    """The providers behind every stage."""

    sim: Simulator
    tape: TapeServer


@dataclass(frozen=True)
class Clients:
    """One client a provider."""

    of_sim: Any
    of_tape: Any


class Stage:
    """One way to play stories: a client, a ledger, a simulator."""

    def __init__(self, name: str, scenery: Scenery, ledger: Path, clients: Clients) -> None:
        self.name = name
        self.sim = scenery.sim
        self.tape = scenery.tape
        self.clients = clients
        self._reader = Reader.open(str(ledger))

    def play(self, story: Story) -> Play:
        tag = f"{self.name}-{next(_numbers)}"
        got: list[Json] = []
        rendered = told_by(story)
        if story.retold is not None:
            self.tape.tape = story.retold(rendered)
        error = self._read(story, tag, got)
        accounts = self.accounts(tag, len(story.expected(self.name)))
        if story.retold is not None:
            return Play(accounts, [rendered.billed_at(len(rendered.body))], got, error)
        return Play(accounts, self.sim.billed(tag, wait_s=PATIENCE_SECONDS), got, error)

    def accounts(self, tag: str, wanted: int) -> list[Account]:
        """The resolved calls of this tag, first opened first; waits until as many are there."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            tagged = CallFilter(tag=("story", tag))
            found = list(self._reader.calls(tagged, newest_first=False))
            if len(found) >= wanted and not any(call.is_open for call in found):
                return [Account(c.settlement, c.call.attempt_of, c.entries) for c in found]  # type: ignore[arg-type]
            assert time.monotonic() < until, f"{len(found)} of {wanted} calls are in the ledger"
            time.sleep(0.004)

    def client_for(self, story: Story) -> Any:
        return self.clients.of_sim if story.retold is None else self.clients.of_tape

    def close(self) -> None:
        self._reader.close()

    def _read(self, story: Story, tag: str, got: list[Json]) -> str | None:
        with lastchunk.watch(), lastchunk.label(story=tag):
            return read_sync(self.client_for(story), story, headers_for(story, tag), got)


class AsyncStage(Stage):
    """The same through an async client in a loop of its own."""

    def __init__(
        self, scenery: Scenery, ledger: Path, clients: Clients, runner: asyncio.Runner
    ) -> None:
        super().__init__("async", scenery, ledger, clients)
        self._runner = runner

    def _read(self, story: Story, tag: str, got: list[Json]) -> str | None:
        async def reading() -> str | None:
            async with lastchunk.watch():
                with lastchunk.label(story=tag):
                    headers = headers_for(story, tag)
                    return await read_async(self.client_for(story), story, headers, got)

        return self._runner.run(reading())


class GatewayStage(Stage):
    """A client that knows nothing of lastchunk, behind the gateway."""

    def _read(self, story: Story, tag: str, got: list[Json]) -> str | None:
        headers = {**headers_for(story, tag), "x-lastchunk-tags": f"story={tag}"}
        return read_sync(self.client_for(story), story, headers, got)


def headers_for(story: Story, tag: str) -> dict[str, str]:
    return {"x-sim": write_script(story.script), "x-sim-tag": tag}


def how_many_arrive(story: Story) -> int:
    """Objects that the caller is certain to be given before it leaves."""
    return len(objects_for_caller(story, body_of(story)))


def _creating(client: Any, story: Story) -> Callable[..., Any]:
    timeout = SHORT_TIMEOUT_SECONDS if story.leave is Leave.TIMEOUT else PATIENCE_SECONDS
    client = client.with_options(max_retries=story.retries, timeout=timeout)
    by_endpoint = {
        "chat/completions": client.chat.completions.create,
        "responses": client.responses.create,
        "completions": client.completions.create,
    }
    return by_endpoint[story.endpoint]


def read_sync(client: Any, story: Story, headers: dict[str, str], got: list[Json]) -> str | None:
    """One call by a sync client, left as the story says; the name of the error that came of it."""
    try:
        answer = _creating(client, story)(**story.request, extra_headers=headers)
        if not story.streamed:
            got.append(answer.to_dict())
            return None
        match story.leave:
            case Leave.AT_END | Leave.TIMEOUT:
                for chunk in answer:
                    got.append(_json(chunk))
            case Leave.RAISE:
                with answer:
                    _take(answer, story, got)
                    raise Boom
            case Leave.DROP:
                _take(answer, story, got)
                del answer
                gc.collect()
            case Leave.NEVER:
                del answer
                gc.collect()
            case _:
                _take(answer, story, got)
                answer.close()
    except Boom:
        pass
    except openai.OpenAIError as error:
        return type(error).__name__
    return None


def _take(stream: Any, story: Story, got: list[Json]) -> None:
    for _ in range(how_many_arrive(story)):
        got.append(_json(next(stream)))


async def read_async(
    client: Any, story: Story, headers: dict[str, str], got: list[Json]
) -> str | None:
    """The same by an async client; it can be cancelled, too."""
    try:
        answer = await _creating(client, story)(**story.request, extra_headers=headers)
        if not story.streamed:
            got.append(answer.to_dict())
            return None
        match story.leave:
            case Leave.AT_END | Leave.TIMEOUT:
                async for chunk in answer:
                    got.append(_json(chunk))
            case Leave.RAISE:
                async with answer:
                    await _take_async(answer, story, got)
                    raise Boom
            case Leave.DROP:
                await _take_async(answer, story, got)
                del answer
                await _collect()
            case Leave.NEVER:
                del answer
                await _collect()
            case Leave.CANCEL | Leave.DEADLINE:
                await _read_until_cancelled(answer, story, got)
            case _:
                await _take_async(answer, story, got)
                await answer.close()
    except Boom:
        pass
    except openai.OpenAIError as error:
        return type(error).__name__
    return None


async def _collect() -> None:
    gc.collect()
    await asyncio.sleep(0.02)  # what finalizers asked the loop to do is done now


async def _take_async(stream: Any, story: Story, got: list[Json]) -> None:
    for _ in range(how_many_arrive(story)):
        got.append(_json(await anext(stream)))


async def _read_until_cancelled(stream: Any, story: Story, got: list[Json]) -> None:
    """A task of its own reads all there is, waits for more, and is cancelled while it waits."""
    wanted, arrived = how_many_arrive(story), asyncio.Event()

    async def reading() -> None:
        deadline = SHORT_TIMEOUT_SECONDS if story.leave is Leave.DEADLINE else None
        async with asyncio.timeout(deadline), stream:
            async for chunk in stream:
                got.append(_json(chunk))
                if len(got) == wanted:
                    arrived.set()

    task = asyncio.create_task(reading())
    waiting = asyncio.create_task(arrived.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if story.leave is Leave.CANCEL:
        await asyncio.sleep(0.01)  # it waits in the socket now
        task.cancel()
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    assert isinstance(outcome, asyncio.CancelledError | TimeoutError)


def _json(chunk: Any) -> Json:
    return chunk.to_dict(mode="json", exclude_unset=True, warnings=False)


@contextmanager
def running_gateway(upstream: str, ledger: Path, **options: Any) -> Iterator[str]:
    """A gateway in a thread with a loop of its own; gives its base URL."""
    bookkeeper = open_books(load_settings(ledger=str(ledger)))
    started, stop = threading.Event(), threading.Event()
    told: dict[str, str] = {}

    async def serve() -> None:
        made = GatewayOptions(upstream=upstream, port=0, stop_seconds=0.1, **options)
        async with Gateway(made, bookkeeper) as gateway:
            told["url"] = gateway.url
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="gateway")
    thread.start()
    try:
        assert started.wait(PATIENCE_SECONDS)
        yield f"{told['url']}/v1"
    finally:
        stop.set()
        thread.join()
        bookkeeper.close()
