"""Clients that keep streams open, call after call, and cut half of them at random moments."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from lastchunk.simulator import Script
from lastchunk.torture.bare import Reply, ask, request_of

MODEL = "gpt-4o-mini"
PROMPT = "Tell me of the sea, at length."
TOKENS = (10, 60)
"""Of an answer, drawn evenly."""

GROWN = 5
"""So many times as long, in as much time, are the answers of who grows."""

CUT_SHARE = 0.5
REFUSED_PAUSE_SECONDS = 2.0
"""How long a client that was refused waits before its next call."""

BROKEN_PAUSE_SECONDS = 0.2


class End(StrEnum):
    """How a call ended for its client."""

    WHOLE = "whole"
    CUT = "cut"
    STOPPED = "stopped"
    """The gateway ended it at a limit, with a proper end."""
    REFUSED = "refused"
    BROKEN = "broken"
    """The connection broke, or was refused: its worker was killed."""
    FAILED = "failed"
    """Anything else that is no answer."""


@dataclass(frozen=True, slots=True)
class Payer:
    """Who calls: a share of all streams. `max_tokens` None: not given."""

    account: str
    key: str
    streams: int
    max_tokens: int | None = None
    grows: bool = False
    """In the second half its answers are longer than they were."""


@dataclass(slots=True)
class Told:
    """What the clients of one payer saw: by end, and the tags of the calls that were answered."""

    ends: Counter[End] = field(default_factory=Counter)
    whole: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


class Crowd:
    """All clients. `open_streams` are those whose answer has begun."""

    def __init__(self, port: int, payers: list[Payer], seed: int, pacing_seconds: float) -> None:
        self._port = port
        self._payers = payers
        self._seed = seed
        self._pacing_seconds = pacing_seconds
        self._over = asyncio.Event()
        self.told = {payer.account: Told() for payer in payers}
        self.under_way: set[Reply] = set()
        self.grown = False

    @property
    def open_streams(self) -> int:
        return sum(reply.status == 200 for reply in self.under_way)

    @property
    def longest_seconds(self) -> float:
        return TOKENS[1] * self._pacing_seconds

    async def run(self) -> None:
        """Until `stop`; then what is open ends."""
        slots = [(payer, n) for payer in self._payers for n in range(payer.streams)]
        async with asyncio.TaskGroup() as group:
            for place, (payer, number) in enumerate(slots):
                rng = random.Random(f"{self._seed}:{payer.account}:{number}")
                delay = self.longest_seconds * place / len(slots)
                group.create_task(self._slot(payer, number, rng, delay))

    def stop(self) -> None:
        """Begin no more calls."""
        self._over.set()

    def sums(self) -> Counter[End]:
        return sum((told.ends for told in self.told.values()), Counter())

    async def _slot(self, payer: Payer, number: int, rng: random.Random, delay: float) -> None:
        await self._pause(delay)  # so that not all begin at once
        for tag in _tags(payer, number):
            if self._over.is_set():
                return
            end = await self._call(payer, tag, rng)
            told = self.told[payer.account]
            told.ends[end] += 1
            if end is End.WHOLE:
                told.whole.add(tag)
            elif end is End.REFUSED:
                told.refused.add(tag)
                await self._pause(REFUSED_PAUSE_SECONDS)
            elif end is End.BROKEN:
                await self._pause(BROKEN_PAUSE_SECONDS)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            pass

    async def _call(self, payer: Payer, tag: str, rng: random.Random) -> End:
        tokens = rng.randint(*TOKENS)
        seconds, grown = tokens * self._pacing_seconds, GROWN if payer.grows and self.grown else 1
        script = Script(
            output_tokens=tokens * grown,
            pacing_s=seconds / (tokens * grown),
            seed=rng.getrandbits(30),
        )
        patience = rng.uniform(0, seconds) if rng.random() < CUT_SHARE else None
        reply = Reply()
        self.under_way.add(reply)
        try:
            async with asyncio.timeout(patience):
                await ask(self._port, _request(payer, tag, script), reply)
        except TimeoutError:
            return End.CUT
        except OSError:
            return End.BROKEN
        finally:
            self.under_way.discard(reply)
        return _end_of(reply)


def _request(payer: Payer, tag: str, script: Script) -> bytes:
    body = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    if payer.max_tokens is not None:
        body["max_tokens"] = payer.max_tokens
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {payer.key}",
        "x-lastchunk-tags": f"call={tag}",
        "x-sim-tag": tag,
    }
    return request_of(body, script, headers)


def _end_of(reply: Reply) -> End:
    match reply.status:
        case 200 if reply.is_whole:
            return End.STOPPED if b'"error"' in reply.tail else End.WHOLE
        case 402 | 429:
            return End.REFUSED
        case 200 | None:
            return End.BROKEN
        case _:
            return End.FAILED


def _tags(payer: Payer, number: int) -> Iterator[str]:
    """One for each call of a slot, known again at the provider and in the ledger."""
    for count in itertools.count(1):
        yield f"{slot_tag(payer.account)}{number}-{count}"


def slot_tag(account: str) -> str:
    """What the tags of all calls of an account begin with."""
    return f"{account.rpartition('/')[2]}-"
