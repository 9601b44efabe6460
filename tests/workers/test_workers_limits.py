"""One account's caps under hundreds of calls at once through several processes."""

import asyncio
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from fleet import STREAMED, Fleet, fleet, until

from lastchunk.clock import SystemClock
from lastchunk.ledger import CallRecord, Reader, verify
from lastchunk.ledger.windows import FOREVER_MS, Window, WindowSums
from lastchunk.limits.habits import SPEAKS, UNKNOWN_OUTPUT_TOKENS
from lastchunk.money import nano_usd
from lastchunk.pricing.book import PriceBook
from lastchunk.simulator import BilledCall, Fault, Script, Simulator
from lastchunk.stage.truth import cost_in, true_counts
from lastchunk.torture.bare import Reply, ask, request_of

CALLS = 500
OVER_SECONDS = 3.0
"""Calls begin at random moments of so long."""

CAP_USD = Decimal("0.0025")
CAP_TOKENS = 10_000
STREAMS = 25
ALL = Window("acme", 0, FOREVER_MS)
CLAUSES = {
    "money": f'usd = "{CAP_USD}"\nper = "ever"',
    "tokens": f'tokens = {CAP_TOKENS}\nper = "ever"',
    "streams": f"streams = {STREAMS}",
}


@dataclass
class Watched:
    """The most that anybody who looked into the ledger ever saw."""

    looks: int = 0
    money: int = 0
    tokens: int = 0
    streams: int = 0
    _over: threading.Event = field(default_factory=threading.Event, repr=False)

    def see(self, sums: WindowSums) -> None:
        self.looks += 1
        self.money = max(self.money, sums.spent + sums.most)
        self.tokens = max(self.tokens, sums.tokens + sums.tokens_most)
        self.streams = max(self.streams, sums.calls_open)

    def watch(self, reader: Reader) -> None:
        while not self._over.is_set():
            self.see(reader.window(ALL))
            self._over.wait(0.01)

    @contextmanager
    def watching(self, url: str) -> Iterator[None]:
        with Reader.open(url) as reader:
            thread = threading.Thread(target=self.watch, args=(reader,))
            thread.start()
            try:
                yield
            finally:
                self._over.set()
                thread.join()
                self.see(reader.window(ALL))


def drawn_script(rng: random.Random) -> Script:
    """Half of the calls end as they should, the others in each way that a provider has."""
    kinds = ("fin", "rst", "error_event", "no_usage", "stall", "http_500", "rst_before_headers")
    fault = None
    if rng.random() < 0.4:
        moment = rng.choice(("headers", "first_chunk", "mid", "after_finish"))
        fault = Fault(rng.choice(kinds), moment, seconds=0.5)  # type: ignore[arg-type]
    tokens = rng.choice((3, 20, 60, 150))
    pacing = rng.choice((0.0, 0.01, 0.02))
    return Script(output_tokens=tokens, pacing_s=pacing, fault=fault, seed=rng.getrandbits(30))


async def call(port: int, tag: str, rng: random.Random) -> int | None:
    """The status; None where the caller left, or its connection broke, before there was one."""
    await asyncio.sleep(rng.uniform(0, OVER_SECONDS))
    body = STREAMED | {"max_tokens": rng.choice((20, 80, 150))}
    if rng.random() < 0.02:
        del body["max_tokens"]  # it holds for 16,384 tokens, which shrinks as it ends
    headers = {"content-type": "application/json", "x-lastchunk-account": "acme", "x-sim-tag": tag}
    request = request_of(body, drawn_script(rng), headers)
    leaves_after = rng.uniform(0, 1.5) if rng.random() < 0.4 else None
    reply = Reply()
    try:
        async with asyncio.timeout(leaves_after):
            await ask(port, request, reply)
    except (TimeoutError, OSError):
        pass
    return reply.status


async def storm(running: Fleet, seed: int) -> Counter[int | None]:
    """All calls, and a worker that is killed among them."""

    async def kill() -> None:
        await asyncio.sleep(OVER_SECONDS / 2)
        os.kill(random.Random(seed).choice(running.pids()), signal.SIGKILL)

    calls = [
        call(running.port, f"{seed}-{number}", random.Random(f"{seed}:{number}"))
        for number in range(CALLS)
    ]
    *statuses, _ = await asyncio.gather(*calls, kill())
    return Counter(statuses)  # type: ignore[arg-type]


@pytest.mark.parametrize("clause", CLAUSES)
def test_a_strict_cap_holds_and_no_hold_is_left_however_calls_end(
    clause: str, url: str, sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LASTCHUNK_WHEN_LEDGER_DOWN", "refuse")  # else no cap holds while it is slow
    monkeypatch.setenv("LASTCHUNK_LEDGER_WAIT_SECONDS", "5")
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    config = tmp_path / "lastchunk.toml"
    config.write_text(f'[[limits]]\nname = "a cap"\naccount = "acme"\n{CLAUSES[clause]}\n')
    seen = Watched()
    with fleet(sim.url, url, tmp_path, "--config", str(config), workers=3) as running:
        with Reader.open(url) as reader, seen.watching(url):
            statuses = asyncio.run(storm(running, seed))
            until(lambda: not reader.window(ALL).calls_open, "all calls are settled")
        assert running.end() == 0, running.said()
        rows = running.assert_sound()
    with Reader.open(url) as reader:
        left = reader.window(ALL)
    print(f"{dict(statuses)}, most seen in {seen.looks} looks: {seen}")
    bill = [one for one in sim.bill() if (one.tag or "").startswith(f"{seed}-") and one.billed]
    holds = (left.most, left.usual, left.tokens_most, left.tokens_usual, left.calls_open)
    assert holds == (0, 0, 0, 0, 0)
    assert verify(url).is_clean
    assert statuses[402 if clause == "money" else 429] > 20, "the cap was never near"
    assert len(rows) >= len(bill) > 50
    cap, most = {
        "money": (nano_usd(CAP_USD), seen.money),
        "tokens": (CAP_TOKENS, seen.tokens),
        "streams": (STREAMS, seen.streams),
    }[clause]
    assert cap * 0.7 < most <= cap
    if clause != "streams":
        # What is settled of a cut call is a best guess: the truth may be above it.
        truth, doubt = spent_in_truth(bill, clause), doubtful(rows.values(), clause)
        print(f"the bill is {truth} of {cap}, of which {doubt} are in doubt")
        assert truth <= cap + doubt


def spent_in_truth(bill: list[BilledCall], clause: str) -> int:
    if clause == "tokens":
        return sum(one.prompt_tokens + one.output_tokens for one in bill)
    book, now = PriceBook.load(None), SystemClock().now_ms()
    return sum(cost_in(book, true_counts(one), one, upstream="", at_ms=now) for one in bill)


def doubtful(rows: Iterable[CallRecord], clause: str) -> int:
    """How far the calls may have come above what is settled of them."""
    standings = [row.standing for row in rows]
    if clause == "money":
        return sum(one.cost.high - one.cost.best for one in standings if one.cost is not None)
    spans = [span for one in standings for span in (one.tokens.input, one.tokens.output)]
    return sum(span.high - span.best for span in spans if span is not None)


def test_what_calls_usually_come_to_is_known_again_after_a_restart(
    url: str, sim: Simulator, tmp_path: Path
) -> None:
    config = tmp_path / "lastchunk.toml"
    config.write_text('[[limits]]\nname = "c"\ntokens = 9000\nper = "ever"\nmode = "balanced"\n')
    headers = {"content-type": "application/json", "x-lastchunk-account": "acme"}

    async def whole(running: Fleet, calls: int) -> None:
        script = Script(output_tokens=60)
        for _ in range(calls):
            await ask(running.port, request_of(STREAMED, script, headers), Reply())

    async def held(running: Fleet, reader: Reader) -> int:
        """By one call, while nothing came of it."""
        stalled = Script(fault=Fault("stall", "headers"))
        request = request_of(STREAMED, stalled, headers)
        call = asyncio.create_task(ask(running.port, request, Reply()))
        while not (sums := await asyncio.to_thread(reader.window, ALL)).calls_open:
            assert not call.done()
            await asyncio.sleep(0.01)
        call.cancel()
        return sums.tokens_usual

    with fleet(sim.url, url, tmp_path, "--config", str(config), workers=2) as running:
        with Reader.open(url) as reader:
            before = asyncio.run(held(running, reader))
        asyncio.run(whole(running, SPEAKS))
        assert running.end() == 0
    with fleet(sim.url, url, tmp_path, "--config", str(config), workers=2) as running:
        with Reader.open(url) as reader:
            after = asyncio.run(held(running, reader))
        assert running.end() == 0
    assert before > UNKNOWN_OUTPUT_TOKENS, "nothing was known"
    assert 60 <= after < 200
