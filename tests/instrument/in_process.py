"""Instrumented clients before the simulator, and the rows that one test's calls leave."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

import openai

import lastchunk
from lastchunk.ledger import CallFilter, CallRecord, Reader
from lastchunk.simulator import BilledCall, Script, Simulator, write_script

C = TypeVar("C")

PATIENCE_SECONDS = 10.0
MODEL = "gpt-4o-mini"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
STREAMED = CHAT | {"stream": True}
ASKED = STREAMED | {"stream_options": {"include_usage": True}}

SLOW = Script(output_tokens=400, pacing_s=0.01)
"""Four seconds of output: whoever cuts it is there in time."""


def until(holds: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait for something to hold, and give it back."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.005)
    return found


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """An async test, run in an event loop of its own."""

    @wraps(test)
    def run(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return run


@dataclass
class Corner:
    """One test's own: its calls have an account and a tag of their own in what all share."""

    sim: Simulator
    ledger: str
    reader: Reader
    stack: ExitStack
    name: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex}")

    def headers(self, script: Script | None = None) -> dict[str, str]:
        tag = {"x-sim-tag": self.name}
        return tag if script is None else tag | {"x-sim": write_script(script)}

    def options(self, script: Script | None = None, **more: Any) -> dict[str, Any]:
        """What an openai client is made with."""
        given: dict[str, Any] = {"base_url": self.sim.base_url, "api_key": "sk-test"}
        return given | {"max_retries": 0, "default_headers": self.headers(script)} | more

    def metered(self, client: C, **more: Any) -> C:
        return lastchunk.instrument(client, **{"ledger": self.ledger, "account": self.name} | more)

    def client(self, script: Script | None = None, **more: Any) -> openai.OpenAI:
        made = openai.OpenAI(**self.options(script, **more))
        return self.stack.enter_context(self.metered(made))

    @asynccontextmanager
    async def async_client(
        self, script: Script | None = None, **more: Any
    ) -> AsyncIterator[openai.AsyncOpenAI]:
        async with AsyncExitStack() as stack:
            made = openai.AsyncOpenAI(**self.options(script, **more))
            yield await stack.enter_async_context(self.metered(made))

    def rows(self, count: int = 1, *, seconds: float = PATIENCE_SECONDS) -> list[CallRecord]:
        """Exactly so many rows, each resolved exactly once, in the order of their opening."""
        wanted = CallFilter(account=self.name)

        def resolved() -> list[CallRecord]:
            found = list(self.reader.calls(wanted, newest_first=False))
            return found if len(found) >= count and not any(r.is_open for r in found) else []

        if count:
            until(resolved, f"{count} resolved rows", seconds)
        found = list(self.reader.calls(wanted, newest_first=False))
        assert len(found) == count
        for row in found:
            kinds = [entry.kind.value for entry in row.entries]
            assert kinds in (["reserved", "settled"], ["reserved", "released"])
        return found

    def row(self, *, seconds: float = PATIENCE_SECONDS) -> CallRecord:
        return self.rows(1, seconds=seconds)[0]

    def open_rows(self) -> list[CallRecord]:
        found = self.reader.calls(CallFilter(account=self.name, open_only=True))
        return list(found)

    def billed(self, count: int = 1) -> list[BilledCall]:
        """The provider's own view of this test's calls, once it has noticed their end."""

        def billed() -> list[BilledCall]:
            found = [call for call in self.sim.bill(wait_s=0) if call.tag == self.name]
            return found if len(found) >= count else []

        found: list[BilledCall] = until(billed, f"{count} billed calls")
        assert len(found) == count
        return found

    async def billed_soon(self, count: int = 1) -> list[BilledCall]:
        return await asyncio.to_thread(self.billed, count)


def assert_reported(row: CallRecord, billed: BilledCall) -> None:
    """The row says what the provider's bill says, and that it was told so."""
    settlement = row.settlement
    assert settlement is not None
    assert settlement.ending == lastchunk.Ending.COMPLETED
    usage = settlement.usage
    assert usage.basis == lastchunk.Basis.REPORTED
    assert usage.input_tokens is not None
    assert usage.output_tokens is not None
    assert usage.input_tokens.best == billed.prompt_tokens
    assert usage.output_tokens.best == billed.output_tokens
    assert settlement.cost is not None
    assert settlement.cost.best > 0


def assert_within(row: CallRecord, billed: BilledCall) -> None:
    """What was really spent lies within the row's interval, which is no larger than it need be."""
    assert row.settlement is not None
    told = row.settlement.usage.output_tokens
    assert told is not None
    assert told.low <= billed.output_tokens <= told.high, (told, billed)
    assert told.high <= billed.output_tokens + 600


def assert_cut(
    row: CallRecord, billed: BilledCall, ending: lastchunk.Ending, *, read: bool = True
) -> None:
    """The truth is inside, counted where anything was read, and the provider was left midway."""
    assert row.settlement is not None
    assert row.settlement.ending == ending, row.settlement
    basis = row.settlement.usage.basis
    assert basis == lastchunk.Basis.COUNTED or (basis == lastchunk.Basis.ASSUMED and not read)
    assert billed.ended == "client_gone"
    assert_within(row, billed)
