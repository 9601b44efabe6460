"""A process that is killed with -9 while it holds open streams, and what is recovered of it.

    python -m lastchunk.demo.killed PROVIDER LEDGER RUN CALLS SEED

is that process: it opens its share of the plan, says so, and reads until it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time

from lastchunk.clock import SystemClock
from lastchunk.demo.clients import Addresses, Clients, Marks
from lastchunk.demo.scenario import Act, PlannedCall, plan
from lastchunk.ledger import CallFilter, Ledger, Reader
from lastchunk.meter.ending import Ending
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover
from lastchunk.stage.servers import StageFailed, python

READY = "streaming"

LIFE_SECONDS = (1.8, 2.8)
"""How long it reads before it is killed: long enough for its state to be written down once, and any
part of a second, so that what is written down is not always equally old."""


def kill_in_mid_stream(provider: str, ledger: str, marks: Marks, calls: int, seed: int) -> None:
    """Start that process, wait until it reads, and kill it."""
    arguments = (provider, ledger, marks.run, str(calls), str(seed))
    process = python("-m", "lastchunk.demo.killed", *arguments)
    assert process.stdout is not None
    with process.stdout:
        if process.stdout.readline().strip() != READY:
            raise StageFailed(f"the process to be killed ended by itself: {process.wait()}")
        time.sleep(random.Random(seed).uniform(*LIFE_SECONDS))
        process.kill()
        process.wait()


def recover_the_killed(ledger: str, book: PriceBook) -> int:
    """What `lastchunk recover` does, unless a living process was quicker; how many are settled."""
    clock = SystemClock()
    with Ledger.open(ledger, clock=clock) as opened:
        for _ in recover(opened, book, clock):
            pass
    with Reader.open(ledger) as reader:
        return sum(1 for _ in reader.calls(CallFilter(ending=Ending.LOST)))


def killed_calls(planned: list[PlannedCall]) -> list[PlannedCall]:
    """The calls of the plan that are this process's."""
    return [call for call in planned if call.way.act is Act.KILLED]


async def _read_until_death(clients: Clients, calls: list[PlannedCall]) -> None:
    waiting = {call.number for call in calls}

    async def read(call: PlannedCall) -> None:
        with clients.labels(call):
            stream = await clients.ask(call, is_async=True)
        async for _ in stream:
            if call.number in waiting:
                waiting.remove(call.number)
                if not waiting:
                    print(READY, flush=True)

    await asyncio.gather(*(read(call) for call in calls))


def _main() -> None:
    provider, ledger, run, calls, seed = sys.argv[1:]
    clients = Clients(Addresses(provider, provider, provider), ledger, Marks(run))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_read_until_death(clients, killed_calls(plan(int(calls), int(seed)))))


if __name__ == "__main__":
    _main()
