"""`python -m lastchunk.torture.full_load`: a thousand open streams, and the ledger beside the bill.

Two workers on one ledger, with keys and limits; half of the calls are cut, two budgets trip, and a
worker is killed. What the ledger says then is compared with the provider's true bill, to the call.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

from lastchunk.clock import SystemClock
from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import CallFilter, Reader, verify
from lastchunk.ledger.keys import KeyTable
from lastchunk.ledger.throwaway import throwaway_ledger
from lastchunk.ledger.windows import FOREVER_MS, Window, WindowSums
from lastchunk.money import NANO_PER_USD, format_usd
from lastchunk.pricing.book import PriceBook
from lastchunk.pricing.cost import ceiling
from lastchunk.simulator import BilledCall
from lastchunk.stage.servers import (
    Place,
    Server,
    StageFailed,
    gateway_before,
    simulated_provider,
    true_bill,
    under_way,
)
from lastchunk.stage.truth import cost_in, true_counts
from lastchunk.torture.bare import raise_file_limit
from lastchunk.torture.billed import Compared, Sums, compare, out_of
from lastchunk.torture.crowd import MODEL, TOKENS, Crowd, End, Payer, slot_tag

WORKERS = 2
BUDGET_SHARE = 0.05
"""Of the streams, for each of the two accounts with a budget."""

STEADY, STRICT, BALANCED = "acme/steady", "acme/strict", "acme/balanced"
MAX_TOKENS = 100
PROMPT_BYTES = 200
"""More than the body of a request has: a prompt is held at a token a byte until it is counted."""

KILL_AT = 0.4
GROW_AT = 0.5
"""Shares of the run: when a worker is killed, and when some answers grow longer."""

SETTINGS = {"when_ledger_down": "refuse", "ledger_wait_seconds": "5"}
"""Where calls pass a ledger that is slow, no cap holds."""

LOOK_SECONDS = 0.25
"""How often the budgets are looked at."""

SAID_SECONDS = 10.0
REPLACED_SECONDS = 60.0
SETTLED_SECONDS = 120.0
SILENCE_SECONDS = 600.0
_NO = textwrap.TextWrapper(80, initial_indent="NO  ", subsequent_indent="    ")
_SHOWN = 10
"""How many calls outside of their interval are told one by one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    streams: int
    minutes: float
    pacing_seconds: float
    seed: int
    postgres: str | None

    @property
    def seconds(self) -> float:
        return self.minutes * 60


@dataclass(slots=True)
class Budget:
    """One capped account. Amounts are in nano-dollars or tokens, as the cap is."""

    account: str
    cap: int
    is_money: bool
    looks: int = 0
    most: int = 0
    """The most that was ever settled and held."""
    settled: int = 0
    billed: int = 0
    """What the provider bills for it in truth."""

    def look(self, sums: WindowSums) -> None:
        self.settled, held = (
            (sums.spent, sums.most) if self.is_money else (sums.tokens, sums.tokens_usual)
        )
        self.most = max(self.most, self.settled + held)
        self.looks += 1

    def shown(self, amount: int) -> str:
        return format_usd(amount) if self.is_money else f"{amount:,} tokens"


@dataclass(slots=True)
class Seen:
    """What was seen while it ran."""

    peak: int = 0
    killed: int | None = None
    replaced_seconds: float | None = None
    looks_failed: int = 0
    never: list[str] = field(default_factory=list)


def main() -> None:
    asked = _arguments()
    raise_file_limit(6 * asked.streams + 256)
    ledger = "postgresql" if asked.postgres else "sqlite"
    _say(f"{asked.streams} streams, {asked.minutes:g} minutes, {ledger}, seed {asked.seed}")
    with tempfile.TemporaryDirectory(prefix="lastchunk-load-") as folder:
        with throwaway_ledger(Path(folder), asked.postgres) as url:
            broken = _prove(asked, url, Path(folder))
    if broken:
        sys.exit(1)


def _arguments() -> Asked:
    parser = argparse.ArgumentParser(prog="python -m lastchunk.torture.full_load")
    parser.add_argument("--streams", type=int, default=1000, help="open at once")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pacing", type=float, default=0.5, help="seconds a token, as a rule")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--postgres", metavar="URL", help="a PostgreSQL server in SQLite's place")
    given = parser.parse_args()
    return Asked(given.streams, given.minutes, given.pacing, given.seed, given.postgres)


def _prove(asked: Asked, ledger: str, folder: Path) -> bool:
    """Runs it all and prints the table; whether a promise is broken."""
    payers, budgets = _payers(asked, ledger), _budgets(asked)
    config = folder / "lastchunk.toml"
    config.write_text(_limits(asked, budgets))
    with simulated_provider(asked.seed) as provider:
        options = ("--config", str(config), "--workers", str(WORKERS))
        gateway = gateway_before(
            provider,
            ledger,
            *options,
            silence_seconds=SILENCE_SECONDS,
            place=Place(folder, SETTINGS),
        )
        try:
            crowd = Crowd(
                int(gateway.url.rpartition(":")[2]), payers, asked.seed, asked.pacing_seconds
            )
            seen = asyncio.run(_run(asked, crowd, gateway, ledger, budgets))
        finally:
            gateway.stop(SETTLED_SECONDS)
        _say("comparing with the provider's bill ...")
        bill = _whole_bill(provider)
    _add_bill(budgets, bill)
    found = _compared(ledger, bill, crowd)
    broken = _broken(ledger, crowd, seen, found, budgets)
    print("\n".join(_table(crowd, seen, found, budgets, len(bill))))
    print("\n".join(_NO.fill(line) for line in broken) or _kept())
    return bool(broken)


def _payers(asked: Asked, ledger: str) -> list[Payer]:
    few = max(2, round(asked.streams * BUDGET_SHARE))
    table = KeyTable(ledger)
    now = SystemClock().now_ms()

    def key(account: str) -> str:
        return table.create(account, "load", now)[1]

    try:
        return [
            Payer(STEADY, key(STEADY), max(1, asked.streams - 2 * few)),
            Payer(STRICT, key(STRICT), few, max_tokens=MAX_TOKENS),
            Payer(BALANCED, key(BALANCED), few, grows=True),
        ]
    finally:
        table.close()


def _budgets(asked: Asked) -> list[Budget]:
    """Caps that trip somewhat after the middle: what is spent until then, and the holds."""
    few = max(2, round(asked.streams * BUDGET_SHARE))
    tokens = sum(TOKENS) / 2
    opening = TOKENS[1] * asked.pacing_seconds / 2  # so long, on average, until a client begins
    seconds = max(0.0, asked.seconds * GROW_AT - opening)
    calls = few * seconds / (0.75 * tokens * asked.pacing_seconds)
    price = PriceBook.load(None).price(MODEL, upstream="", at_ms=SystemClock().now_ms(), tier=None)
    assert price is not None, f"{MODEL} has a price"
    spent = calls * ceiling(price, 15, round(0.75 * tokens))
    held = 0.75 * few * ceiling(price, PROMPT_BYTES, MAX_TOKENS)
    used = calls * (15 + 0.75 * tokens) + few * (PROMPT_BYTES / 3 + TOKENS[1])
    return [
        Budget(STRICT, round(spent + held), is_money=True),
        Budget(BALANCED, round(used), is_money=False),
    ]


def _limits(asked: Asked, budgets: list[Budget]) -> str:
    strict, balanced = budgets
    rows = (
        ("strict", STRICT, f'usd = "{strict.cap / NANO_PER_USD:.9f}"', "ever", "strict"),
        ("balanced", BALANCED, f"tokens = {balanced.cap}", "ever", "balanced"),
        ("requests", "acme", "requests = 1000000", "minute", "strict"),
        ("tokens", "acme/*", "tokens = 100000000000", "day", "balanced"),
    )
    told = "".join(
        f'[[limits]]\nname = "{name}"\naccount = "{account}"\n{amount}\nper = "{per}"\n'
        f'mode = "{mode}"\n\n'
        for name, account, amount, per, mode in rows
    )
    return f'{told}[[limits]]\nname = "streams"\nstreams = {4 * asked.streams}\n'


async def _run(
    asked: Asked, crowd: Crowd, gateway: Server, ledger: str, budgets: list[Budget]
) -> Seen:
    seen = Seen()
    with Reader.open(ledger) as reader:
        clients = asyncio.create_task(crowd.run())
        watch = asyncio.create_task(_watch(reader, budgets, seen))
        events = asyncio.create_task(_events(asked, crowd, gateway, seen))
        began = time.monotonic()
        said = 0.0
        while (now := time.monotonic() - began) < asked.seconds:
            seen.peak = max(seen.peak, crowd.open_streams)
            if now >= said:
                _say(_progress(now, crowd, budgets))
                said += SAID_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
        crowd.stop()
        _say("the open streams end ...")
        await clients
        await events
        await _settled(reader)
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
    return seen


async def _watch(reader: Reader, budgets: list[Budget], seen: Seen) -> None:
    """Where the budgets stand, as anybody sees it who reads the ledger."""
    while True:
        for budget in budgets:
            try:
                window = Window(budget.account, 0, FOREVER_MS)
                budget.look(await asyncio.to_thread(reader.window, window))
            except LedgerUnavailable:
                seen.looks_failed += 1
        await asyncio.sleep(LOOK_SECONDS)


async def _events(asked: Asked, crowd: Crowd, gateway: Server, seen: Seen) -> None:
    """What happens in the middle."""
    await asyncio.sleep(asked.seconds * KILL_AT)
    before = _workers(gateway)
    os.kill(before[0], signal.SIGKILL)
    seen.killed = before[0]
    killed = time.monotonic()
    _say(f"worker {before[0]} is killed")
    asyncio.get_running_loop().call_later(
        asked.seconds * (GROW_AT - KILL_AT), lambda: setattr(crowd, "grown", True)
    )
    while time.monotonic() - killed < REPLACED_SECONDS:
        if len(new := set(_workers(gateway)) - set(before)) and len(_workers(gateway)) == WORKERS:
            seen.replaced_seconds = time.monotonic() - killed
            _say(f"worker {new.pop()} takes its place")
            return
        await asyncio.sleep(0.05)


def _workers(gateway: Server) -> list[int]:
    pid = gateway.pid
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def _settled(reader: Reader) -> None:
    """Until no call is open in the ledger; what stays open is told by the comparison."""
    deadline = time.monotonic() + SETTLED_SECONDS
    everything = Window("", 0, FOREVER_MS)
    while time.monotonic() < deadline:
        with contextlib.suppress(LedgerUnavailable):
            if not (await asyncio.to_thread(reader.window, everything)).calls_open:
                return
        await asyncio.sleep(LOOK_SECONDS)


def _whole_bill(provider: str) -> list[BilledCall]:
    deadline = time.monotonic() + SETTLED_SECONDS
    while under_way(provider).open:  # small to read; the bill is not
        if time.monotonic() > deadline:
            raise StageFailed("calls are still open at the provider: nobody knows its bill")
        time.sleep(0.2)
    return true_bill(provider)


def _add_bill(budgets: list[Budget], bill: list[BilledCall]) -> None:
    book, now = PriceBook.load(None), SystemClock().now_ms()
    for budget in budgets:
        for call in bill:
            if not (call.tag or "").startswith(slot_tag(budget.account)):
                continue
            counts = true_counts(call)
            if budget.is_money:
                budget.billed += cost_in(book, counts, call, upstream="", at_ms=now)
            else:
                budget.billed += (counts.input_tokens or 0) + (counts.output_tokens or 0)


def _compared(ledger: str, bill: list[BilledCall], crowd: Crowd) -> Compared:
    whole = set().union(*(told.whole for told in crowd.told.values()))
    refused = set().union(*(told.refused for told in crowd.told.values()))
    with Reader.open(ledger) as reader:
        return compare(reader.calls(CallFilter(), newest_first=False), bill, whole, refused)


def _broken(
    ledger: str, crowd: Crowd, seen: Seen, found: Compared, budgets: list[Budget]
) -> list[str]:
    """Each promise that does not hold, and each thing that was to happen and did not."""
    strict = budgets[0]
    broken = found.complaints()
    if found.outside:
        broken.append(f"{len(found.outside)} truths are not within low and high")
    if strict.most > strict.cap:
        over = strict.shown(strict.most - strict.cap)
        broken.append(f"strict: settled and held came to {over} above the cap")
    with Reader.open(ledger) as reader:
        left = reader.window(Window("", 0, FOREVER_MS))
    if left.calls_open or left.most or left.usual or left.tokens_most or left.tokens_usual:
        broken.append(f"holds are left: {left}")
    if (verification := verify(ledger)).found:
        broken.append(f"verify: {verification.found} discrepancies")
    if seen.replaced_seconds is None:
        broken.append("the killed worker was not replaced")
    if len(found.processes) <= WORKERS:
        broken.append("no call went through the worker that took the killed one's place")
    for budget in budgets:
        if not crowd.told[budget.account].ends[End.REFUSED]:
            broken.append(f"the budget of {budget.account} did not trip: nothing is shown by it")
    if not crowd.told[BALANCED].ends[End.STOPPED]:
        broken.append("no stream was stopped at its limit: nothing is shown by it")
    if failed := crowd.sums()[End.FAILED]:
        broken.append(f"{failed} calls were answered with an error that is no limit's")
    return broken


def _table(
    crowd: Crowd, seen: Seen, found: Compared, budgets: list[Budget], billed: int
) -> list[str]:
    ends = list(End)
    lines = [f"{'account':<16}" + "".join(f"{end.value:>10}" for end in ends)]
    for account, told in crowd.told.items():
        lines.append(f"{account:<16}" + "".join(f"{told.ends[end]:>10,}" for end in ends))
    lines += [
        "",
        f"open streams at the peak    {seen.peak:,}",
        f"calls the provider billed   {billed:,}",
        f"rows in the ledger          {found.rows:,}, of which released {found.released:,}",
        *_wrapped("endings", out_of(found.endings)),
        f"lost, although read whole   {found.lost_whole:,}; never sent: {found.lost_unbilled:,}",
        f"truth within low and high   {found.compared - len(found.outside):,} of"
        f" {found.compared:,}",
        _sums("input", found.input),
        _sums("output", found.output),
        _sums("lost: output", found.output_lost),
    ]
    if seen.replaced_seconds is not None:
        started = f"another started {seen.replaced_seconds:.1f} s later"
        lines.append(f"{'a worker was killed':<28}{started}; {len(found.processes)} had calls")
    for budget in budgets:
        over = max(0, budget.billed - budget.cap)
        stands = (
            f"cap {budget.shown(budget.cap)}, settled {budget.shown(budget.settled)},"
            f" billed {budget.shown(budget.billed)}"
        )
        lines += _wrapped(budget.account, stands)
        lines.append(
            f"{'':<28}settled and held at most {budget.shown(budget.most)} in {budget.looks:,}"
            f" looks"
        )
        lines.append(
            f"{'':<28}the bill is {budget.shown(over)} above the cap ({over / budget.cap:.1%})"
        )
    if found.outside:
        lines += ["", *_wrapped("not within", out_of(found.outside_by))]
        lines += [f"  {told}" for told in found.outside[:_SHOWN]]
    return lines


def _wrapped(name: str, told: str) -> list[str]:
    indent = " " * 28
    return textwrap.wrap(
        told, 80, initial_indent=f"{name:<28}", subsequent_indent=indent, break_long_words=False
    )


def _sums(kind: str, sums: Sums) -> str:
    return (
        f"{kind + ' tokens':<28}true {sums.true:,}; best {sums.best:,}, {sums.low:,}–{sums.high:,}"
    )


def _kept() -> str:
    return "\n".join(
        f"ok  {line}"
        for line in (
            "every billed call has one row, settled once, and its truth within low and high",
            "strict: settled and held never came above the cap; no hold is left",
            "verify is clean",
        )
    )


def _progress(seconds: float, crowd: Crowd, budgets: list[Budget]) -> str:
    used = ", ".join(
        f"{budget.account.rpartition('/')[2]} {budget.settled / budget.cap:.0%}"
        for budget in budgets
    )
    ends = crowd.sums()
    return (
        f"{seconds / 60:5.1f} min {crowd.open_streams:6} open {ends.total():8,} over,"
        f" {ends[End.CUT]:,} cut; {used}"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
