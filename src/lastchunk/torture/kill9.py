"""`python -m lastchunk.torture.kill9`: kill -9 at random moments under load, as often as asked."""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from lastchunk.ledger import CallRecord
from lastchunk.ledger.throwaway import throwaway_ledger
from lastchunk.meter.ending import Ending
from lastchunk.simulator import BilledCall, Simulator
from lastchunk.stage.servers import StageFailed
from lastchunk.torture.killing import Workers, complaints, outside, recovered, rows_of
from lastchunk.torture.matrix import Store

AT_ONCE = 4
"""Workers that live beside each other: one dies, the others go on, and a new one recovers."""

LIFE_SECONDS = 600
BETWEEN_SECONDS = (0.0, 0.25)
"""Between two kills, beside the time that it takes some calls to be under way again. With four at
once a worker lives for half a second on average."""

CALLS_BETWEEN = 3
_ID_BYTES = 32
"""At least so many calls, a line of the log for each: a kill without load would prove little."""

SERVED_SECONDS = 60.0
BILL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Count:
    """What one database went through."""

    store: Store
    kills: int
    attempts: int
    delivered: int
    rows: int
    lost: int
    compared: int
    missed: tuple[str, ...]
    """A line for each interval that misses the truth."""
    complaints: tuple[str, ...]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lastchunk.torture.kill9")
    parser.add_argument("--count", type=int, default=1000, help="kills on each database")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--postgres", metavar="URL", help="a PostgreSQL server, for its half")
    asked = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    console.print(f"{asked.count} kills on each database, seed {asked.seed}")
    counts = []
    for store in Store if asked.postgres else (Store.SQLITE,):
        with tempfile.TemporaryDirectory(prefix="lastchunk-kill9-") as folder:
            server = asked.postgres if store is Store.POSTGRESQL else None
            with throwaway_ledger(Path(folder), server) as ledger:
                counts.append(_kill(store, ledger, Path(folder), asked.count, asked.seed, console))
    print(_table(counts))
    if not asked.postgres:
        print("The PostgreSQL half is left out: name a server with --postgres URL.")
    if any(count.complaints for count in counts):
        sys.exit(1)


def _kill(
    store: Store, ledger: str, folder: Path, kills: int, seed: int, console: Console
) -> Count:
    began = time.monotonic()
    rng = random.Random(seed)
    with Simulator(seed=seed) as provider:
        workers = Workers(provider.base_url, ledger, folder)
        seeds = iter(range(seed, seed + kills + AT_ONCE))
        pids = [workers.ask(f"load {next(seeds)} {LIFE_SECONDS}") for _ in range(AT_ONCE)]
        with Progress(console=console, disable=not console.is_terminal) as bar:
            for _ in bar.track(range(kills), description=store.value):
                _wait_for_calls(workers)
                time.sleep(rng.uniform(*BETWEEN_SECONDS))
                place = rng.randrange(AT_ONCE)
                workers.kill(pids[place])
                pids[place] = workers.ask(f"load {next(seeds)} {LIFE_SECONDS}")
        for pid in pids:
            workers.kill(pid)
        workers.close()
        recovered(ledger)
        bill = provider.bill(wait_s=BILL_SECONDS)
    rows, delivered = rows_of(ledger), workers.delivered()
    told = complaints(ledger, rows, delivered)
    if len(rows) < len(bill):
        told.append(f"{len(bill)} attempts at the provider, and only {len(rows)} rows")
    compared, missed = outside(rows, bill)
    return Count(
        store=store,
        kills=kills + AT_ONCE,
        attempts=len(bill),
        delivered=len(delivered),
        rows=len(rows),
        lost=sum(r.settlement is not None and r.settlement.ending is Ending.LOST for r in rows),
        compared=compared,
        missed=tuple(_told(row, bill) for row in missed),
        complaints=tuple(told),
        seconds=time.monotonic() - began,
    )


def _told(row: CallRecord, bill: Sequence[BilledCall]) -> str:
    """A row beside the truth that its interval misses."""
    assert row.settlement is not None
    seen, told = row.settlement.observation, row.settlement.usage.output_tokens
    truth = next(one.output_tokens for one in bill if one.response_id == seen.response_id)
    why = ", ".join(row.settlement.reasons)
    return f"{row.call_id} {row.settlement.ending}: {told}, true {truth} ({why})"


def _wait_for_calls(workers: Workers) -> None:
    wanted = workers.progress() + CALLS_BETWEEN * _ID_BYTES
    deadline = time.monotonic() + SERVED_SECONDS
    while workers.progress() < wanted:
        if time.monotonic() > deadline:
            raise StageFailed(f"no calls are served any more: {workers.said()[-500:]}")
        time.sleep(0.01)


def _table(counts: list[Count]) -> str:
    lines = [
        f"{'ledger':<12}{'kills':>6}{'attempts':>10}{'delivered':>11}{'rows':>8}{'lost':>7}"
        f"{'truth within':>16}{'seconds':>9}"
    ]
    for count in counts:
        within = f"{count.compared - len(count.missed)} of {count.compared}"
        lines.append(
            f"{count.store:<12}{count.kills:>6}{count.attempts:>10}{count.delivered:>11}"
            f"{count.rows:>8}{count.lost:>7}{within:>16}{count.seconds:>9.0f}"
        )
    for count in counts:
        lines += [f"    {count.store}: {told}" for told in count.missed]
    for count in counts:
        lines += [f"NO  {count.store}: {told}" for told in count.complaints] or [
            f"ok  {count.store}: every delivered call has one row, settled once; verify is clean"
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
