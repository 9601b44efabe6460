"""Charges in the ledger: refunds that never go below zero, and what nobody is charged for."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest
from ledger_facts import NOON, Stopwatch, make_call, make_correction, make_settlement

from lastchunk.adjustments import Adjusted, Adjustment, adjust
from lastchunk.errors import AdjustmentRefused, CallNotFound
from lastchunk.ledger import CallFilter, Conduct, Ledger, Reader
from lastchunk.meter.departure import Departure, Done, LeavePolicy, Why
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost
from lastchunk.settlement.facts import Charge, OpenCall
from lastchunk.usage import Basis, Quantity, Usage


@pytest.fixture
def charged(ledger: Ledger) -> OpenCall:
    """A call that cost 500 and is charged 600."""
    call = make_call()
    ledger.reserve(call)
    ledger.settle(call, make_settlement(call, charge=Charge(600, "cost x 1.2")), NOON).result()
    return call


def by(change: int | None, id_: str = "a", reason: str = "broke off") -> Adjustment:
    return Adjustment("call_", change, reason, id_)


def test_a_refund_changes_the_charge_alone(
    ledger: Ledger, reader: Reader, charged: OpenCall
) -> None:
    before = reader.call(charged.call_id).standing
    assert adjust(ledger, reader, by(-100), NOON) == Adjusted(charged.call_id, 600, 500, True)
    record = reader.call(charged.call_id)
    assert record.standing == replace(before, charge_nano=500)
    entry = record.entries[-1]
    assert (entry.reason, entry.charge_nano, entry.cost, entry.price_id) == (
        "broke off",
        -100,
        None,
        None,
    )
    balance = reader.balance("team")
    assert (balance.charge, balance.spent_best) == (500, 500)
    (row,) = reader.spend()
    assert (row.charge, row.adjusted, row.cost.best) == (500, -100, 500)


def test_the_same_id_does_it_once(ledger: Ledger, reader: Reader, charged: OpenCall) -> None:
    for is_new in (True, False, False):
        done = adjust(ledger, reader, by(-100), NOON + 5)
        assert done == Adjusted(charged.call_id, 600, 500, is_new)
    adjust(ledger, reader, by(None, "whole"), NOON)
    adjust(ledger, reader, by(40, "more"), NOON)
    assert not adjust(ledger, reader, by(None, "whole"), NOON).is_new
    assert not adjust(ledger, reader, by(-100), NOON).is_new
    assert reader.call(charged.call_id).standing.charge_nano == 40
    for other in (by(-99), by(None), by(-100, reason="another")):
        with pytest.raises(AdjustmentRefused, match="another id"):
            adjust(ledger, reader, other, NOON)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (by(-601), "no more than that"),
        (by(0), "changes nothing"),
        (by(-1, reason=" "), "give a reason"),
        (by(-1, reason="two\nlines"), "one line"),
        (by(-1, ""), "give an id"),
        (by(10**17), "cannot be meant"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    ledger: Ledger, reader: Reader, charged: OpenCall, wanted: Adjustment, why: str
) -> None:
    with pytest.raises(AdjustmentRefused, match=why):
        adjust(ledger, reader, wanted, NOON)
    assert len(reader.call(charged.call_id).entries) == 2


def test_open_unknown_and_uncharged_calls_have_nothing_to_give_back(
    ledger: Ledger, reader: Reader
) -> None:
    with pytest.raises(CallNotFound):
        adjust(ledger, reader, by(None), NOON)
    call = make_call()
    ledger.reserve(call).result()
    with pytest.raises(AdjustmentRefused, match="still open"):
        adjust(ledger, reader, by(-1), NOON)
    ledger.settle(call, make_settlement(call, None), NOON).result()
    with pytest.raises(AdjustmentRefused, match="no known price"):
        adjust(ledger, reader, by(None), NOON)
    assert adjust(ledger, reader, by(70), NOON).after == 70
    assert reader.balance("team").unpriced_calls == 1, "its cost is as unknown as before"


def test_refunds_at_once_give_back_what_each_says_and_no_more(
    url: str, ledger: Ledger, charged: OpenCall
) -> None:
    outcomes: list[Adjusted | AdjustmentRefused] = []

    def give_back(number: int) -> None:
        with Reader.open(url) as reader:
            try:
                outcomes.append(adjust(ledger, reader, by(-100, f"id {number % 8}"), NOON))
            except AdjustmentRefused as error:
                outcomes.append(error)

    threads = [threading.Thread(target=give_back, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    new = [one for one in outcomes if isinstance(one, Adjusted) and one.is_new]
    assert len(outcomes) == 16
    assert sorted(one.after for one in new) == [0, 100, 200, 300, 400, 500]
    with Reader.open(url) as reader:
        assert reader.call(charged.call_id).standing.charge_nano == 0


def test_a_process_that_comes_back_does_not_undo_a_refund(
    ledger: Ledger, reader: Reader, charged: OpenCall
) -> None:
    adjust(ledger, reader, by(None), NOON)
    stated = Quantity(40, 40, 40, Basis.STATED)
    better = make_correction(
        charged,
        "process:1",
        usage=Usage(input_tokens=stated, output_tokens=stated),
        cost=Cost(700, 700, 700),
        charge=Charge(700, "cost"),
    )
    assert ledger.correct(better, if_better=True).result()
    assert not ledger.correct(better, if_better=True).result(), "the same again is a no-op"
    standing = reader.call(charged.call_id).standing
    assert (standing.charge_nano, standing.cost) == (0, Cost(700, 700, 700))


# How callers behave.

LEFT = Departure(
    Done.DRAINED,
    Why.POLICY_SAYS,
    LeavePolicy.DRAIN,
    "a row",
    NOON,
    Quantity(0, 9, 9, Basis.ASSUMED),
)


def test_conduct_is_what_the_calls_add_up_to(
    ledger: Ledger, reader: Reader, clock: Stopwatch
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    wanted: dict[str, list[int]] = {}
    for _ in range(60):
        account = chance.choice(["acme/a", "acme/b", "zeta"])
        call = make_call(account=account)
        ledger.reserve(call)
        kind = chance.choice(["open", "nothing", "unpriced", "left", "drained", "whole"])
        if kind == "open":
            continue
        cost = None if kind == "unpriced" else chance.randrange(0, 1_000)
        amount = chance.choice([0, cost, None if cost is None else cost * 2])
        settlement = make_settlement(
            call,
            0 if kind == "nothing" else cost,
            charge=Charge(0 if kind == "nothing" else amount, "a rule"),
            ending=Ending.CALLER_LEFT if kind == "left" else Ending.COMPLETED,
            nothing_used=kind == "nothing",
            observation=Observation(status=200, departure=LEFT if kind == "drained" else None),
        )
        written = ledger.settle(call, settlement, NOON)
        if kind == "nothing":
            continue
        charge = amount or 0
        if amount and chance.random() < 0.5:
            written.result()
            adjust(ledger, reader, Adjustment(call.call_id, None, "x", "x"), NOON)
            charge = 0
        row = wanted.setdefault(account, [0, 0, 0, 0, 0])
        row[0] += 1
        row[1] += kind in ("left", "drained")
        if cost is not None:
            row[2] += cost
            row[3] += charge
            row[4] += max(0, cost - charge)
    ledger.beat().result()
    assert reader.conduct() == [Conduct(name, *wanted[name]) for name in sorted(wanted)]
    under = reader.conduct(CallFilter(account="acme"))
    assert [row.account for row in under] == [one for one in sorted(wanted) if one < "b"]
    assert reader.conduct(CallFilter(since_ms=NOON + 1)) == []
    assert reader.count() == 60
