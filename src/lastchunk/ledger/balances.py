"""What an account has held and spent: sums of its entries, kept beside them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from lastchunk.ledger.entries import Entry, EntryKind, Standing, standing_after


@dataclass(frozen=True, slots=True)
class Balance:
    """The sums of one account, or of all under a prefix. Money is in nano-dollars.

    `held` is what open calls may still cost; `spent_*` what resolved calls did cost, corrections
    included; `charge` what customers are charged. Unpriced calls count with 0 in each and are
    counted in `unpriced_calls`.
    """

    held: int = 0
    spent_low: int = 0
    spent_best: int = 0
    spent_high: int = 0
    charge: int = 0
    calls_open: int = 0
    calls_settled: int = 0
    calls_released: int = 0
    unpriced_calls: int = 0

    def __add__(self, other: Balance) -> Balance:
        return Balance(
            self.held + other.held,
            self.spent_low + other.spent_low,
            self.spent_best + other.spent_best,
            self.spent_high + other.spent_high,
            self.charge + other.charge,
            self.calls_open + other.calls_open,
            self.calls_settled + other.calls_settled,
            self.calls_released + other.calls_released,
            self.unpriced_calls + other.unpriced_calls,
        )


BALANCE_FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Balance))
"""The summed columns of the balances table, in the order of `Balance`."""


def change_by(entry: Entry, before: Standing) -> Balance:
    """What an entry changes in its account's balance, given where its call stood before it."""
    held = entry.held_nano or 0
    if entry.kind is EntryKind.RESERVED:
        return Balance(held=held, calls_open=1)
    cost = entry.cost
    after = standing_after(before, entry)
    resolves = entry.kind is not EntryKind.CORRECTED
    return Balance(
        held=-held if resolves else 0,
        spent_low=cost.low if cost else 0,
        spent_best=cost.best if cost else 0,
        spent_high=cost.high if cost else 0,
        charge=entry.charge_nano or 0,
        calls_open=-1 if resolves else 0,
        calls_settled=int(entry.kind is EntryKind.SETTLED),
        calls_released=int(entry.kind is EntryKind.RELEASED),
        unpriced_calls=int(after.unpriced) - int(before.unpriced),
    )
