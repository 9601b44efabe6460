"""Stories of single calls: what is written, what it means for the balance, and what is refused."""

from dataclasses import replace

import pytest
from ledger_facts import (
    COUNTED,
    DAY,
    HOLD,
    NOON,
    REPORTED,
    Stopwatch,
    make_call,
    make_correction,
    make_settlement,
)

from lastchunk.errors import CallNotFound, EntryConflict, LedgerError, LedgerUnavailable
from lastchunk.ledger import EntryKind, Ledger, Reader, verify
from lastchunk.ledger.balances import Balance
from lastchunk.ledger.plan import BalanceView
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.pricing.cost import Cost
from lastchunk.settlement.facts import Charge
from lastchunk.usage import Basis, Quantity, Usage


def test_a_reservation_is_durable_when_its_future_is_done(ledger: Ledger, reader: Reader) -> None:
    call = make_call()
    assert ledger.reserve(call).result() is None
    record = reader.call(call.call_id)
    assert record.call == call
    assert record.is_open
    assert record.process_id == ledger.process_id
    assert reader.balance("team/ann") == Balance(held=HOLD, calls_open=1)


def test_a_settlement_gives_the_hold_back_and_writes_the_cost(
    ledger: Ledger, reader: Reader, clock: Stopwatch
) -> None:
    call = make_call()
    ledger.reserve(call)
    clock.now += 2_000
    settlement = make_settlement(call, Cost(400, 500, 700), usage=COUNTED)
    assert ledger.settle(call, settlement, NOON + 1_000).result() is True
    record = reader.call(call.call_id)
    assert record.settlement == settlement
    assert [entry.kind for entry in record.entries] == [EntryKind.RESERVED, EntryKind.SETTLED]
    settled = record.entries[1]
    assert (settled.occurred_ms, settled.recorded_ms) == (NOON + 1_000, NOON + 2_000)
    assert settled.tokens.output is not None
    assert settled.tokens.output.high == 33
    assert settled.basis is Basis.COUNTED
    assert settled.response_id == settlement.observation.response_id
    assert reader.balance("team/ann") == Balance(
        spent_low=400, spent_best=500, spent_high=700, charge=500, calls_settled=1
    )


def test_a_settlement_may_follow_its_reservation_at_once(ledger: Ledger, reader: Reader) -> None:
    calls = [make_call() for _ in range(300)]
    futures = []
    for call in calls:
        ledger.reserve(call)
        futures.append(ledger.settle(call, make_settlement(call), NOON))
    assert all(future.result() is True for future in futures)
    assert reader.balance("team").calls_settled == 300
    assert ledger.orphans(NOON) == []


def test_a_settled_call_may_cost_more_than_it_held(ledger: Ledger, reader: Reader) -> None:
    call = make_call(hold=10)
    ledger.reserve(call)
    assert ledger.settle(call, make_settlement(call, 1_000), NOON).result()
    assert reader.balance("team/ann").spent_best == 1_000
    assert reader.balance("team/ann").held == 0


def test_a_call_that_used_nothing_is_released(ledger: Ledger, reader: Reader) -> None:
    call = make_call()
    ledger.reserve(call)
    nothing = make_settlement(
        call, None, usage=Usage(), ending=Ending.NEVER_SENT, nothing_used=True
    )
    assert ledger.settle(call, nothing, NOON).result()
    assert reader.call(call.call_id).entries[1].kind is EntryKind.RELEASED
    assert reader.balance("team/ann") == Balance(calls_released=1)


def test_an_unpriced_call_is_counted_and_is_not_free(ledger: Ledger, reader: Reader) -> None:
    call = make_call(hold=None)
    ledger.reserve(call)
    ledger.settle(call, make_settlement(call, None), NOON).result()
    assert reader.call(call.call_id).standing.cost is None
    assert reader.balance("team/ann") == Balance(calls_settled=1, unpriced_calls=1)


def test_the_same_said_twice_is_written_once(ledger: Ledger, reader: Reader) -> None:
    call = make_call()
    settlement = make_settlement(call)
    for _ in range(2):
        assert ledger.reserve(call).result() is None
    outcomes = [ledger.settle(call, settlement, NOON).result() for _ in range(3)]
    assert outcomes == [True, False, False]
    assert len(reader.entries(call.call_id)) == 2


def test_the_same_said_twice_in_one_batch_is_written_once(ledger: Ledger, reader: Reader) -> None:
    call = make_call()
    settlement = make_settlement(call)
    futures = [ledger.reserve(call) for _ in range(3)]
    settled = [ledger.settle(call, settlement, NOON) for _ in range(3)]
    assert [future.result() for future in futures] == [None] * 3
    assert sorted(future.result() for future in settled) == [False, False, True]
    assert len(reader.entries(call.call_id)) == 2


@pytest.mark.parametrize(
    "changes", [{"account": "team/bob"}, {"hold": 1}, {"model": "other"}, {"tags": ()}]
)
def test_another_call_under_the_same_id_is_a_conflict(
    ledger: Ledger, reader: Reader, changes: dict[str, object]
) -> None:
    call = make_call()
    ledger.reserve(call).result()
    with pytest.raises(EntryConflict, match=call.call_id):
        ledger.reserve(make_call(call.call_id, **changes)).result()
    assert reader.call(call.call_id).call == call


def test_a_second_resolution_with_other_content_is_a_conflict(
    ledger: Ledger, reader: Reader
) -> None:
    call = make_call()
    ledger.reserve(call)
    ledger.settle(call, make_settlement(call, 500), NOON).result()
    with pytest.raises(EntryConflict, match="correction"):
        ledger.settle(call, make_settlement(call, 501), NOON).result()
    with pytest.raises(EntryConflict):
        ledger.settle(call, make_settlement(call, 500, nothing_used=True), NOON).result()
    assert reader.balance("team/ann").spent_best == 500


def test_a_settlement_must_be_of_the_call_that_was_reserved(ledger: Ledger) -> None:
    call = make_call()
    ledger.reserve(call).result()
    stranger = replace(call, account="team/bob")
    with pytest.raises(EntryConflict, match="account"):
        ledger.settle(stranger, make_settlement(call), NOON).result()
    with pytest.raises(LedgerError, match="given the settlement of"):
        ledger.settle(call, make_settlement(make_call()), NOON).result()


def test_what_was_never_reserved_cannot_be_settled_or_corrected(ledger: Ledger) -> None:
    call = make_call()
    with pytest.raises(CallNotFound, match=call.call_id):
        ledger.settle(call, make_settlement(call), NOON).result()
    with pytest.raises(CallNotFound, match=call.call_id):
        ledger.correct(make_correction(call)).result()


def test_an_open_call_cannot_be_corrected(ledger: Ledger) -> None:
    call = make_call()
    ledger.reserve(call)
    with pytest.raises(LedgerError, match="still open"):
        ledger.correct(make_correction(call, cost=Cost(1, 1, 1))).result()


def test_a_bad_item_does_not_spoil_its_batch(ledger: Ledger, reader: Reader) -> None:
    good, bad = [make_call() for _ in range(20)], make_call()
    futures = [ledger.reserve(call) for call in good[:10]]
    conflict = ledger.settle(bad, make_settlement(bad), NOON)
    impossible = ledger.reserve(make_call(opened_ms=2**70))  # no database holds this number
    futures += [ledger.reserve(call) for call in good[10:]]
    assert [future.result() for future in futures] == [None] * 20
    assert isinstance(conflict.exception(), CallNotFound)
    assert isinstance(impossible.exception(), LedgerError)
    assert reader.balance("team").calls_open == 20


@pytest.mark.parametrize("text", ["nul\0here", "half \ud800 pair", "snow ☃ man", "", "a'b\"c\\%s"])
def test_any_text_can_be_written(ledger: Ledger, reader: Reader, text: str) -> None:
    call = make_call(account=f"team/{text}", model=text or "m", tags=(("key", text), (text, "v")))
    ledger.reserve(call).result()
    settlement = make_settlement(call, observation=Observation(model_served=text, response_id="r"))
    ledger.settle(call, settlement, NOON).result()
    assert reader.call(call.call_id).settlement is not None
    assert reader.balance("team").calls_settled == 1


def test_an_impossible_amount_is_refused_by_name(ledger: Ledger) -> None:
    call = make_call()
    ledger.reserve(call)
    with pytest.raises(LedgerError, match="cost of"):
        ledger.settle(call, make_settlement(call, 10**30), NOON).result()
    with pytest.raises(LedgerError, match="low <= best <= high"):
        ledger.settle(call, make_settlement(call, Cost(3, 2, 1)), NOON).result()


# Corrections.


def test_a_correction_brings_the_call_to_what_it_says(ledger: Ledger, reader: Reader) -> None:
    call = make_call()
    ledger.reserve(call)
    ledger.settle(call, make_settlement(call, Cost(400, 500, 700), usage=COUNTED), NOON)
    receipt = make_correction(
        call, usage=REPORTED, cost=Cost(520, 520, 520), charge=Charge(600, "agreed")
    )
    assert ledger.correct(receipt).result() is True
    record = reader.call(call.call_id)
    assert record.corrections == (receipt,)
    correction = record.entries[2]
    assert correction.cost == Cost(120, 20, -180)
    assert correction.charge_nano == 100
    standing = record.standing
    assert standing.cost == Cost(520, 520, 520)
    assert standing.basis is Basis.REPORTED
    assert standing.tokens.output is not None
    assert (standing.tokens.output.low, standing.tokens.output.high) == (30, 30)
    assert reader.balance("team/ann") == Balance(
        spent_low=520, spent_best=520, spent_high=520, charge=600, calls_settled=1
    )


def test_two_sources_that_correct_at_once_do_not_add_up(ledger: Ledger, reader: Reader) -> None:
    call = make_call()
    ledger.reserve(call)
    ledger.settle(call, make_settlement(call, 500), NOON)
    exact = Cost(600, 600, 600)
    outcomes = [
        ledger.correct(make_correction(call, source, cost=exact)) for source in ("a", "b", "a")
    ]
    assert [future.result() for future in outcomes] == [True, True, False]
    assert reader.balance("team/ann").spent_best == 600


def test_a_source_that_says_something_else_is_a_conflict(ledger: Ledger) -> None:
    call = make_call()
    ledger.reserve(call)
    ledger.settle(call, make_settlement(call, 500), NOON)
    ledger.correct(make_correction(call, cost=Cost(600, 600, 600))).result()
    with pytest.raises(EntryConflict, match=r"receipt:1"):
        ledger.correct(make_correction(call, cost=Cost(601, 601, 601))).result()


def test_a_correction_can_price_what_was_unpriced(ledger: Ledger, reader: Reader) -> None:
    call = make_call(hold=None)
    ledger.reserve(call)
    ledger.settle(call, make_settlement(call, None), NOON)
    ledger.correct(make_correction(call, cost=Cost(7, 7, 7))).result()
    assert reader.balance("team/ann") == Balance(
        spent_low=7, spent_best=7, spent_high=7, calls_settled=1
    )


def test_a_released_call_that_was_billed_after_all_is_corrected(
    ledger: Ledger, reader: Reader
) -> None:
    call = make_call()
    ledger.reserve(call)
    released = make_settlement(call, None, usage=Usage(), nothing_used=True)
    ledger.settle(call, released, NOON)
    ledger.correct(make_correction(call, "bill", usage=REPORTED)).result()
    assert reader.balance("team/ann").unpriced_calls == 1
    ledger.correct(make_correction(call, "price", cost=Cost(5, 5, 5))).result()
    assert reader.balance("team/ann") == Balance(
        spent_low=5, spent_best=5, spent_high=5, calls_released=1
    )


# Admission.


def test_admission_sees_what_its_own_batch_has_held(ledger: Ledger, reader: Reader) -> None:
    def admit(view: BalanceView) -> str | None:
        below_budget = view.under("team").held + HOLD <= 3 * HOLD
        return None if below_budget else "over budget"

    calls = [make_call(account=f"team/{number}") for number in range(10)]
    outcomes = [ledger.reserve(call, admit).result() for call in calls]
    assert outcomes == [None] * 3 + ["over budget"] * 7
    assert reader.balance("team").held == 3 * HOLD
    with pytest.raises(CallNotFound):
        ledger.settle(calls[5], make_settlement(calls[5]), NOON).result()


def test_admission_of_many_at_once_never_overshoots(ledger: Ledger, reader: Reader) -> None:
    futures = [
        ledger.reserve(make_call(), lambda view: view.of("team/ann").calls_open >= 25 or None)
        for _ in range(200)
    ]
    assert sum(future.result() is None for future in futures) == 25
    assert reader.balance("team/ann").calls_open == 25


def test_a_call_that_is_reserved_already_is_not_asked_again(ledger: Ledger) -> None:
    call = make_call()
    ledger.reserve(call).result()
    assert ledger.reserve(call, lambda view: "no").result() is None


def test_an_admission_that_fails_concerns_only_its_own_call(ledger: Ledger) -> None:
    fine = make_call()

    def broken(view: BalanceView) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.reserve(make_call(), broken).result()
    assert ledger.reserve(fine).result() is None


# Checkpoints, closing.


def test_a_checkpoint_is_kept_while_the_call_is_open(ledger: Ledger, reader: Reader) -> None:
    calls = [make_call() for _ in range(3)]
    seen = Observation(phase=Phase.STREAMING, frames=7, status=200)
    for call in calls:
        ledger.reserve(call)
    ledger.checkpoint([(call.call_id, seen) for call in calls])
    later = replace(seen, frames=9)
    ledger.checkpoint([(calls[0].call_id, later), ("call_unknown", seen)]).result()
    found = {record.call_id: record.seen for record in reader.calls()}
    assert found == {calls[0].call_id: later, calls[1].call_id: seen, calls[2].call_id: seen}
    ledger.settle(calls[0], make_settlement(calls[0]), NOON)
    ledger.checkpoint([(calls[0].call_id, seen)]).result()
    assert reader.call(calls[0].call_id).seen is None


def test_a_call_can_be_seen_and_settled_in_the_batch_that_opens_it(
    ledger: Ledger, reader: Reader
) -> None:
    first, second = make_call(), make_call()
    ledger.reserve(first)
    ledger.reserve(second)
    ledger.checkpoint([(first.call_id, Observation(frames=1)), (second.call_id, Observation())])
    ledger.settle(first, make_settlement(first), NOON).result()
    assert reader.call(first.call_id).seen is None
    assert reader.call(second.call_id).seen == Observation()


def test_a_closed_ledger_has_written_everything_and_takes_nothing_more(
    url: str, clock: Stopwatch
) -> None:
    ledger = Ledger.open(url, clock=clock)
    futures = [ledger.reserve(make_call()) for _ in range(1_000)]
    ledger.close()
    assert all(future.done() and future.exception() is None for future in futures)
    assert verify(url).calls == 1_000
    with pytest.raises(LedgerUnavailable, match="closed"):
        ledger.reserve(make_call()).result()
    ledger.close()


def test_a_cancelled_future_does_not_take_its_entry_back(ledger: Ledger, reader: Reader) -> None:
    call = make_call()
    assert not ledger.reserve(call).cancel()
    ledger.beat().result()
    assert reader.call(call.call_id).is_open


def test_an_ended_day_changes_nothing_for_an_old_call(
    ledger: Ledger, reader: Reader, clock: Stopwatch
) -> None:
    call = make_call()
    ledger.reserve(call).result()
    clock.now -= 3 * DAY  # somebody set the machine's clock back
    assert ledger.settle(call, make_settlement(call), NOON).result()
    assert ledger.orphans(clock.now) == []
    quantity = reader.call(call.call_id).standing.tokens.input
    assert quantity is not None
    assert quantity.best == Quantity.reported(12).best
