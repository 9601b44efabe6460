"""One run from end to end: everything started, played, killed, recovered, stopped and joined."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lastchunk
from lastchunk.demo.clients import Addresses, Clients, Marks, warm_up
from lastchunk.demo.comparison import Result
from lastchunk.demo.killed import kill_in_mid_stream, killed_calls, recover_the_killed
from lastchunk.demo.scenario import READ_TO_THE_END, SILENCE_SECONDS, PlannedCall, plan
from lastchunk.demo.tally import join
from lastchunk.ledger import CallFilter, Reader, verify
from lastchunk.pricing.book import PriceBook
from lastchunk.simulator import BilledCall
from lastchunk.stage.heard import Heard
from lastchunk.stage.servers import (
    address_of_nobody,
    gateway_before,
    simulated_provider,
    true_bill,
)


def play(
    calls: int, seed: int, ledger: str, book: PriceBook, played: Callable[[PlannedCall], None]
) -> Result:
    """Play `calls` calls drawn from `seed` into a ledger; `played` is told of each that is over.

    Raises StageFailed where a part of the stage does not start.
    """
    began = time.monotonic()
    marks = Marks(f"{seed}-{int(time.time())}")
    planned = plan(calls, seed)
    with simulated_provider(seed) as provider:
        gateway = gateway_before(provider, ledger, silence_seconds=SILENCE_SECONDS)
        try:
            addresses = Addresses(provider, gateway.url, address_of_nobody())
            heard, recovered = asyncio.run(
                _played(planned, addresses, ledger, marks, book, (calls, seed), played)
            )
            lastchunk.close()
        finally:
            gateway.stop()
        bill = true_bill(provider)
    with Reader.open(ledger) as reader:
        records = list(reader.calls(CallFilter(tag=("run", marks.run))))
    return Result(
        seed=seed,
        ledger=ledger,
        calls=calls,
        cut=sum(call.way is not READ_TO_THE_END for call in planned),
        joined=join(planned, heard, records, _by_number(bill, marks), book),
        recovered=recovered,
        verification=verify(ledger),
        seconds=time.monotonic() - began,
    )


async def _played(
    planned: list[PlannedCall],
    addresses: Addresses,
    ledger: str,
    marks: Marks,
    book: PriceBook,
    drawn_from: tuple[int, int],
    played: Callable[[PlannedCall], None],
) -> tuple[dict[int, Heard], int]:
    """All calls, and meanwhile the process that is killed; what was heard, what was recovered."""
    killed = killed_calls(planned)
    by_number = {call.number: call for call in planned}
    heard: dict[int, Heard] = {}

    def over(one: Heard) -> None:
        heard[one.number] = one
        played(by_number[one.number])

    async def kill_and_recover() -> int:
        if not killed:
            return 0
        await asyncio.to_thread(kill_in_mid_stream, addresses.provider, ledger, marks, *drawn_from)
        recovered = await asyncio.to_thread(recover_the_killed, ledger, book)
        for call in killed:
            played(call)
        return recovered

    await warm_up(addresses.provider)
    dying = asyncio.create_task(kill_and_recover())
    clients = Clients(addresses, ledger, marks)
    with _cheap_collections():
        await clients.play([call for call in planned if call not in killed], over)
    return heard, await dying


@contextmanager
def _cheap_collections() -> Iterator[None]:
    """Dropped streams are collected at once, by passes over all that lives: leave modules out."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _by_number(bill: list[BilledCall], marks: Marks) -> dict[int, list[BilledCall]]:
    found: dict[int, list[BilledCall]] = defaultdict(list)
    for billed in bill:
        run, _, number = (billed.tag or "").partition(":")
        if run == marks.run:
            found[int(number)].append(billed)
    return found
