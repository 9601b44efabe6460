"""Any sequence of submissions, crashes and reopenings leaves a ledger that adds up."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from ledger_facts import DAY, NOON, Stopwatch, make_call, make_correction, make_settlement

from lastchunk.errors import EntryConflict, LedgerError
from lastchunk.ledger import CallFilter, Ledger, Reader, verify
from lastchunk.ledger.plan import BalanceView
from lastchunk.ledger.windows import FOREVER_MS, Holds, Window, WindowSums
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.usage import Usage

ACCOUNTS = st.sampled_from(["team", "team/ann", "team/bob", "solo"])
AMOUNTS = st.integers(0, 1_000)
COSTS = st.none() | st.builds(
    lambda parts: Cost(*sorted(parts)), st.tuples(AMOUNTS, AMOUNTS, AMOUNTS)
)


class LedgerMachine(RuleBasedStateMachine):
    """The model is two dictionaries: what is open, and what each resolved call stands at."""

    opened = Bundle("opened")
    closed = Bundle("closed")

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.url = str(Path(self.directory) / "ledger.db")
        self.clock = Stopwatch()
        self.ledger = Ledger.open(self.url, clock=self.clock)
        self.reader = Reader.open(self.url)
        self.numbers = 0
        self.open: dict[str, tuple[OpenCall, str]] = {}
        self.costs: dict[str, Cost | None] = {}
        self.accounts: dict[str, str] = {}
        self.left: set[str] = set()
        self.written = 0

    @rule(target=opened, account=ACCOUNTS, hold=st.none() | AMOUNTS, count=st.integers(1, 4))
    def reserve(self, account: str, hold: int | None, count: int) -> Any:
        calls = []
        for _ in range(count):
            self.numbers += 1
            calls.append(make_call(f"call_{self.numbers:06}", account=account, hold=hold))
        for future in [self.ledger.reserve(call) for call in calls]:
            assert future.result() is None
        for call in calls:
            self.open[call.call_id] = (call, self.ledger.process_id)
            self.accounts[call.call_id] = account
        self.written += count
        return multiple(*calls)

    @rule(target=closed, call=consumes(opened), cost=COSTS, nothing=st.booleans())
    def settle(self, call: OpenCall, cost: Cost | None, nothing: bool) -> Any:
        if nothing:
            settlement = make_settlement(call, None, usage=Usage(), nothing_used=True)
        else:
            settlement = make_settlement(call, cost)
        self.clock.now += 1
        assert self.ledger.settle(call, settlement, self.clock.now).result() is True
        del self.open[call.call_id]
        self.left.discard(call.call_id)
        self.costs[call.call_id] = settlement.cost
        self.written += 1
        return call, settlement, self.clock.now

    @rule(resolved=closed)
    def settle_again(self, resolved: tuple[OpenCall, Settlement, int]) -> None:
        call, settlement, occurred_ms = resolved
        assert self.ledger.settle(call, settlement, occurred_ms).result() is False
        other = self.ledger.settle(call, settlement, occurred_ms + 1)
        assert isinstance(other.exception(), EntryConflict)

    @rule(resolved=closed, cost=COSTS, source=st.integers(1, 3))
    def correct(
        self, resolved: tuple[OpenCall, Settlement, int], cost: Cost | None, source: int
    ) -> None:
        call = resolved[0]
        correction = make_correction(call, f"source:{source}", cost=cost)
        future = self.ledger.correct(correction)
        if isinstance(future.exception(), EntryConflict):
            return  # this source has said something else before
        if future.result():
            self.written += 1
            if cost is not None:
                self.costs[call.call_id] = cost
        else:
            assert not self.ledger.correct(correction).result()

    @rule(call=opened, frames=st.integers(0, 9))
    def checkpoint(self, call: OpenCall, frames: int) -> None:
        self.ledger.checkpoint([(call.call_id, Observation(frames=frames))]).result()

    @rule(prefix=st.sampled_from(["", "team", "team/ann", "nobody"]), days=st.integers(-1, 1))
    def ask_for_a_window(self, prefix: str, days: int) -> None:
        """From now on it is kept, and `verify` compares it with the entries."""
        window = Window(prefix, NOON - days * DAY, FOREVER_MS)
        self.numbers += 1
        call = make_call(f"call_{self.numbers:06}")

        def admit(view: BalanceView) -> WindowSums:
            return view.window(window)

        sums = self.ledger.reserve(call, admit).result()
        assert sums.calls_open == (
            0
            if days < 0
            else sum(window.holds(c.account, c.opened_ms) for c, _ in self.open.values())
        )

    @rule(call=opened, most=AMOUNTS)
    def rehold(self, call: OpenCall, most: int) -> None:
        self.ledger.rehold({call.call_id: Holds(most, most // 2, most, 0)}).result()

    @rule(call=opened)
    def reserve_again(self, call: OpenCall) -> None:
        assert self.ledger.reserve(call).result() is None
        other = make_call(call.call_id, account="elsewhere")
        assert isinstance(self.ledger.reserve(other).exception(), EntryConflict)

    @rule(call=opened)
    def correct_too_early(self, call: OpenCall) -> None:
        assert isinstance(self.ledger.correct(make_correction(call)).exception(), LedgerError)

    @rule()
    def refuse(self) -> None:
        assert self.ledger.reserve(make_call("call_refused"), lambda view: "no").result() == "no"

    @precondition(lambda self: self.open)
    @rule()
    def reopen(self) -> None:
        self.left.update(self.open)
        self.ledger.close()
        self.ledger = Ledger.open(self.url, clock=self.clock)

    @invariant()
    def it_holds_together(self) -> None:
        if not hasattr(self, "ledger"):
            return
        found = verify(self.url)
        assert found.discrepancies == ()
        assert found.entries == self.written
        assert {orphan.call.call_id for orphan in self.ledger.orphans(NOON)} == self.left
        listed = {record.call_id for record in self.reader.calls(CallFilter(open_only=True))}
        assert listed == self.open.keys()
        total = self.reader.balance("team")
        mine = [
            cost for call_id, cost in self.costs.items()
            if self.accounts[call_id].startswith("team")
        ]  # fmt: skip
        assert total.spent_best == sum(cost.best for cost in mine if cost)
        assert sum(row.cost.best for row in self.reader.spend(["account"])) == sum(
            cost.best for cost in self.costs.values() if cost
        )

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.reader.close()
            self.ledger.close()
            shutil.rmtree(self.directory)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=100 if os.environ.get("LASTCHUNK_TEST_ALL") else 8, stateful_step_count=25
)
