"""What the load proof compares: each promise that does not hold is told, and none that does."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from lastchunk.ledger import CallRecord
from lastchunk.ledger.entries import reserved_entry, settled_entry
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost
from lastchunk.settlement.facts import Charge, Forecast, OpenCall, Settlement
from lastchunk.simulator import BilledCall, Simulator
from lastchunk.torture.billed import Compared, compare
from lastchunk.torture.crowd import Crowd, End, Payer
from lastchunk.usage import Basis, Quantity, Usage
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest


def row(tag: str, *, ending: Ending = Ending.COMPLETED, resolved: int = 1) -> CallRecord:
    """12 tokens in, 28 to 33 out; resolved so many times."""
    request = CallRequest(Dialect.CHAT, "gpt-4o-mini", True, False, "127.0.0.1", 200)
    tokens = Quantity(12, 12, 12, Basis.COUNTED), Quantity(28, 30, 33, Basis.COUNTED)
    call = OpenCall(
        call_id=f"call_{tag:0>26}",
        attempt_of=None,
        account="acme",
        tags=(("call", tag),),
        request=request,
        forecast=Forecast(tokens[0], tokens[1], 10),
        way="gateway",
        opened_ms=1_780_056_000_000,
    )
    released = ending is Ending.NEVER_SENT
    settlement = Settlement(
        call_id=call.call_id,
        ending=ending,
        usage=Usage() if released else Usage(tokens[0], output_tokens=tokens[1]),
        cost=Cost(0, 0, 0) if released else Cost(5, 5, 5),
        charge=Charge(5, "cost"),
        price_id=None,
        reasons=(),
        observation=Observation(),
        nothing_used=released,
    )
    entries = [reserved_entry(call, "p1")]
    entries += [settled_entry(call, settlement, call.opened_ms, "p1")] * resolved
    return CallRecord(call, tuple(entries), settlement if resolved else None, (), None)


def billed(tag: str, output_tokens: int = 30) -> BilledCall:
    values: dict[str, Any] = dict.fromkeys(one.name for one in dataclasses.fields(BilledCall))
    values |= {"billed": True, "prompt_tokens": 12, "output_tokens": output_tokens, "tag": tag}
    return BilledCall(**values | {"ended": "completed"})


CLEAN: dict[str, Any] = {
    "rows": [row("a"), row("b", ending=Ending.CALLER_LEFT), row("c", ending=Ending.NEVER_SENT)],
    "bill": [billed("a"), billed("b", 33)],
    "whole": {"a"},
    "refused": {"d"},
}


def compared(**changes: Any) -> Compared:
    return compare(**CLEAN | changes)


def test_what_agrees_is_found_to_agree() -> None:
    found = compared()
    assert (found.complaints(), found.outside) == ([], [])
    assert (found.rows, found.compared, found.released) == (3, 2, 1)
    assert (found.output.low, found.output.best, found.output.high) == (56, 60, 66)
    assert found.output.true == 63


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bill": [*CLEAN["bill"], billed("x")]}, "billed and without a row: x"),
        ({"bill": [*CLEAN["bill"], billed("a")]}, "billed more than once: a"),
        ({"bill": [billed("a")]}, "settled (caller_left) and never billed: b"),
        ({"bill": [*CLEAN["bill"], billed("c")]}, "billed, and released as unused: c"),
        ({"rows": [*CLEAN["rows"], row("a")]}, "with two rows: a"),
        ({"rows": [row("a", resolved=2), *CLEAN["rows"][1:]]}, "not resolved exactly once: a"),
        ({"rows": [row("a", resolved=0), *CLEAN["rows"][1:]]}, "not resolved exactly once: a"),
        ({"whole": {"a", "b"}}, "read whole and not completed: b"),
        ({"refused": {"b"}}, "refused, and with a row or a bill: b"),
    ],
)
def test_what_does_not_agree_is_told_with_the_call(changes: dict[str, Any], said: str) -> None:
    (complaint, *_) = compared(**changes).complaints()
    assert complaint == f"1 calls {said}"


@pytest.mark.parametrize(("tokens", "outside"), [(27, 1), (28, 0), (33, 0), (34, 1)])
def test_a_truth_beside_its_interval_is_counted(tokens: int, outside: int) -> None:
    found = compared(bill=[billed("a"), billed("b", tokens)])
    assert len(found.outside) == outside
    assert found.outside_by == ({"caller_left, counted": 1} if outside else {})


def test_a_lost_call_may_be_read_whole_or_never_billed_and_is_counted_apart() -> None:
    lost = [row("a", ending=Ending.LOST), row("b", ending=Ending.LOST)]
    found = compared(rows=lost, bill=[billed("a")])
    assert found.complaints() == []
    assert (found.lost_whole, found.lost_unbilled) == (1, 1)
    assert (found.output_lost.true, found.output.true) == (30, 0)


def test_clients_cut_about_half_of_their_calls_and_say_how_the_others_ended() -> None:
    with Simulator() as sim:
        crowd = Crowd(sim.port, [Payer("acme/steady", "k", 20)], seed=3, pacing_seconds=0.01)

        async def run() -> None:
            clients = asyncio.create_task(crowd.run())
            await asyncio.sleep(4)
            crowd.stop()
            await clients

        asyncio.run(run())
        ends = crowd.sums()
        tags = [call.tag for call in sim.bill()]
    assert set(ends) == {End.WHOLE, End.CUT}
    assert 0.35 < ends[End.CUT] / ends.total() < 0.65
    assert len(set(tags)) == len(tags) <= ends.total()
    assert crowd.told["acme/steady"].whole <= set(tags)
