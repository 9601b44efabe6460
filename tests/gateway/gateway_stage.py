"""A gateway in a thread of its own, and the rows that one test's calls leave in the ledger."""

import asyncio
import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import openai
import uvloop

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.gateway.app import Gateway, GatewayOptions
from lastchunk.ledger import CallFilter, CallRecord, Reader
from lastchunk.ledger.keys import KeyTable
from lastchunk.simulator import BilledCall, Script, Simulator, write_script

PATIENCE_SECONDS = 10.0
CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
STREAMED = CHAT | {"stream": True}
ASKED = STREAMED | {"stream_options": {"include_usage": True}}


def until(holds: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait for something to hold, and give it back."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.005)
    return found


class RunningGateway:
    """A gateway on a loop in a thread; `stop` is what SIGTERM does."""

    def __init__(
        self,
        upstream: str | None,
        bookkeeper: Bookkeeper,
        *,
        open_keys: Callable[[], KeyTable] | None = None,
        **options: Any,
    ) -> None:
        metrics = options.pop("metrics", None)
        made = GatewayOptions(upstream=upstream, port=0, **options)
        self.gateway = Gateway(made, bookkeeper, metrics=metrics, open_keys=open_keys)
        self.bookkeeper = bookkeeper
        self.url = ""
        self.tasks_left: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def start(self) -> "RunningGateway":
        self._thread.start()
        assert self._ready.wait(PATIENCE_SECONDS)
        return self

    def ask_to_stop(self) -> None:
        assert self._loop is not None
        assert self._stop is not None
        with contextlib.suppress(RuntimeError):  # it has stopped already
            self._loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        self.ask_to_stop()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def call(self, work: Callable[[], Any]) -> Any:
        """Run something on the gateway's own loop."""
        assert self._loop is not None

        async def run() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE_SECONDS)

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Await something on the gateway's own loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(PATIENCE_SECONDS)

    def _run(self) -> None:
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self.gateway as gateway:
            self.url = gateway.url
            self._ready.set()
            await self._stop.wait()
        self.tasks_left = asyncio.all_tasks() - {asyncio.current_task()}


@contextmanager
def running(
    upstream: str | None, bookkeeper: Bookkeeper, **options: Any
) -> Iterator[RunningGateway]:
    gateway = RunningGateway(upstream, bookkeeper, **options).start()
    try:
        yield gateway
    finally:
        gateway.stop()


@dataclass
class Stage:
    """One test's own corner: its calls are labelled, so that a shared ledger tells them apart."""

    gateway: RunningGateway
    reader: Reader
    sim: Simulator | None = None
    name: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex}")

    @property
    def headers(self) -> dict[str, str]:
        return {"x-lastchunk-account": self.name, "x-sim-tag": self.name}

    def scripted(self, script: Script) -> dict[str, str]:
        """The headers of a call that follows this script."""
        return self.headers | {"x-sim": write_script(script)}

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(**self._options(options))

    def async_client(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**self._options(options))

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        script = options.pop("script", None)
        headers = self.headers if script is None else self.scripted(script)
        given = {"base_url": f"{self.gateway.url}/v1", "api_key": "sk-test", "max_retries": 0}
        return given | {"default_headers": headers} | options

    def rows(self, count: int = 1) -> list[CallRecord]:
        """Exactly so many rows, all settled, in the order of their opening."""

        def settled() -> list[CallRecord]:
            found = list(self.reader.calls(CallFilter(account=self.name), newest_first=False))
            return found if len(found) >= count and not any(r.is_open for r in found) else []

        found: list[CallRecord] = until(settled, f"{count} settled rows") if count else []
        time.sleep(0 if count else 0.1)
        found = list(self.reader.calls(CallFilter(account=self.name), newest_first=False))
        assert len(found) == count
        for row in found:
            kinds = [entry.kind.value for entry in row.entries]
            assert kinds in (["reserved", "settled"], ["reserved", "released"])
        return found

    def row(self) -> CallRecord:
        return self.rows(1)[0]

    def billed(self, count: int = 1) -> list[BilledCall]:
        """The provider's own view of this test's calls."""
        assert self.sim is not None

        def billed() -> list[BilledCall]:
            found = [c for c in self.sim.bill(wait_s=0) if c.tag == self.name]  # type: ignore[union-attr]
            return found if len(found) >= count else []

        found: list[BilledCall] = until(billed, f"{count} billed calls")
        assert len(found) == count
        return found


def body_of(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode()


def sse(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


class Behind(Protocol):
    """Starts a gateway of one's own before any upstream."""

    def __call__(self, upstream: str, **options: Any) -> Stage: ...
