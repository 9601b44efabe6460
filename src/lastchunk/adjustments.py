"""Refunds and adjustments: what a call is charged, changed afterwards, with a reason.

An adjustment is a CORRECTED entry that touches the charge alone. The provider's cost stays.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from lastchunk.errors import AdjustmentRefused, EntryConflict
from lastchunk.ledger import CallRecord, Correction, EntryKind, Ledger, Reader
from lastchunk.ledger.entries import ADJUSTMENT, MAX_AMOUNT
from lastchunk.money import format_usd
from lastchunk.settlement.facts import Charge

MAX_REASON_CHARS = 500
MAX_ID_CHARS = 100

_ATTEMPTS = 20
"""How often to read again where others correct the same call at the same moment."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A wanted change of a charge. `change` is signed nano-dollars; None: all of it is given back.

    `adjustment_id` makes it happen once, however often it is asked for.
    """

    call_id: str
    change: int | None
    reason: str
    adjustment_id: str


@dataclass(frozen=True, slots=True)
class Adjusted:
    """What came of it, in nano-dollars. `is_new` False: the same was done before."""

    call_id: str
    before: int
    after: int
    is_new: bool


def adjust(ledger: Ledger, reader: Reader, wanted: Adjustment, now_ms: int) -> Adjusted:
    """Changes what a call is charged; waits until it is durable.

    Raises CallNotFound, or AdjustmentRefused where the call is open, the charge would fall below
    zero, there is nothing to give back, or the id was used for something else.
    """
    _check(wanted)
    for _ in range(_ATTEMPTS):
        record = reader.call(wanted.call_id)
        if done := _done_before(record, wanted):
            return done
        before, after = _change(record, wanted)
        correction = Correction(
            call_id=record.call_id,
            correction_id=ADJUSTMENT + wanted.adjustment_id,
            reason=wanted.reason,
            usage=None,
            cost=None,
            charge=Charge(after, "refunded" if after < before else "adjusted"),
            price_id=None,
            occurred_ms=max(now_ms, record.entries[-1].occurred_ms),
        )
        seen = len(record.corrections)
        with suppress(EntryConflict):  # of another who used this id just now: read what it did
            if ledger.correct(correction, if_corrected=seen).result():
                return Adjusted(record.call_id, before, after, is_new=True)
    raise AdjustmentRefused(
        f"call {wanted.call_id} is being corrected all the time: nothing was changed; try again"
    )


def _check(wanted: Adjustment) -> None:
    reason, id_ = wanted.reason, wanted.adjustment_id
    if not reason.strip() or len(reason) > MAX_REASON_CHARS or not reason.isprintable():
        raise AdjustmentRefused(f"give a reason: one line of at most {MAX_REASON_CHARS} characters")
    if not 0 < len(id_) <= MAX_ID_CHARS or not id_.isprintable():
        raise AdjustmentRefused(f"give an id of 1 to {MAX_ID_CHARS} characters")
    if wanted.change == 0:
        raise AdjustmentRefused("an amount of $0 changes nothing")


def _done_before(record: CallRecord, wanted: Adjustment) -> Adjusted | None:
    """What this id did before, if anything. Raises where that is not what is wanted now."""
    standing = 0
    for entry in record.entries:
        if entry.kind is EntryKind.RESERVED:
            continue
        before, standing = standing, standing + (entry.charge_nano or 0)
        if entry.correction_id != ADJUSTMENT + wanted.adjustment_id:
            continue
        is_same = standing == 0 if wanted.change is None else standing - before == wanted.change
        if not is_same or entry.reason != wanted.reason:
            raise AdjustmentRefused(
                f"the id {wanted.adjustment_id} changed call {record.call_id} by"
                f" {format_usd(standing - before)} already ({entry.reason}): take another id for"
                " another adjustment"
            )
        return Adjusted(record.call_id, before, standing, is_new=False)
    return None


def _change(record: CallRecord, wanted: Adjustment) -> tuple[int, int]:
    if record.is_open:
        raise AdjustmentRefused(
            f"call {record.call_id} is still open: nothing is charged for it yet; wait until it is"
            " settled"
        )
    charged = record.standing.charge_nano
    before = charged or 0
    after = 0 if wanted.change is None else before + wanted.change
    if before == 0 and after <= 0:
        why = "it has no known price" if charged is None else "its charge is $0"
        raise AdjustmentRefused(f"call {record.call_id}: there is nothing to give back, {why}")
    if after < 0:
        raise AdjustmentRefused(
            f"call {record.call_id} is charged {format_usd(before)}: no more than that can be given"
            " back"
        )
    if after > MAX_AMOUNT:
        raise AdjustmentRefused(f"{format_usd(after)} for one call cannot be meant")
    return before, after
