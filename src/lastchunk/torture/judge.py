"""What the ledger says of a call, beside the bill and beside what a bare client would have seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from lastchunk.ledger import CallRecord
from lastchunk.pricing.book import PriceBook
from lastchunk.simulator import BilledCall
from lastchunk.stage.truth import cost_in, holds, true_counts
from lastchunk.torture.ear import Report
from lastchunk.torture.faults import HOLDS, PlannedCall
from lastchunk.torture.matrix import DONE, LEAVES, Cell, Door, Fault, expected


class Promise(StrEnum):
    """What is promised of every call."""

    ONCE = "accounted once"
    ENDING = "right ending"
    BASIS = "strongest basis"
    INTERVAL = "truth within low–high"
    CALLER = "caller unharmed"
    VERIFY = "verify clean"
    WRITTEN = "written down in time"
    PLAYED = "played"
    """The cell could be played at all."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that one call of a cell broke."""

    promise: Promise
    call: int
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one cell. `endings` are those of its calls."""

    cell: Cell
    calls: int
    endings: tuple[str, ...]
    broken: tuple[Broken, ...]

    @property
    def held(self) -> bool:
        return not self.broken


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one call. `bare` is what the bare client saw of the same call."""

    call: PlannedCall
    rows: Sequence[CallRecord]
    billed: Sequence[BilledCall]
    seen: Report | None
    bare: Report | None


def judge(evidence: Evidence, book: PriceBook) -> list[Broken]:
    """The promises that this call broke."""
    found = list(_accounted(evidence))
    if not found:
        row, billed = evidence.rows[0], evidence.billed[0]
        found += _ended(evidence.call, row, billed)
        found += _within(evidence.call, row, billed, book)
    return found + list(_unharmed(evidence))


def _accounted(evidence: Evidence) -> list[Broken]:
    rows, attempts = evidence.rows, len(evidence.billed)
    number = evidence.call.number
    if len(rows) != attempts or attempts != 1:
        found = f"{len(rows)} rows, {attempts} attempts at the provider"
        return [Broken(Promise.ONCE, number, "one attempt, one row", found)]
    kinds = [entry.kind.value for entry in rows[0].entries]
    if rows[0].is_open or len(kinds) != 2:
        return [
            Broken(Promise.ONCE, number, "reserved, then settled or released", ", ".join(kinds))
        ]
    return []


def _ended(call: PlannedCall, row: CallRecord, billed: BilledCall) -> list[Broken]:
    outcomes = expected(call.cell)
    assert not isinstance(outcomes, str)
    if call.cell.fault in LEAVES and billed.ended == "completed":
        outcomes = tuple(dict.fromkeys((*outcomes, *DONE)))
    assert row.settlement is not None
    ending, basis = row.settlement.ending, row.standing.basis
    told = f"{ending.value} ({row.call_id})"
    wanted = [weakest for right, weakest in outcomes if right is ending]
    if not wanted:
        endings = " or ".join(right.value for right, _ in outcomes)
        return [Broken(Promise.ENDING, call.number, endings, told)]
    if basis is None or basis < wanted[0]:
        name = "none" if basis is None else basis.name.lower()
        return [Broken(Promise.BASIS, call.number, wanted[0].name.lower(), f"{name}, {told}")]
    return []


def _within(
    call: PlannedCall, row: CallRecord, billed: BilledCall, book: PriceBook
) -> list[Broken]:
    truth, standing = true_counts(billed), row.standing
    spans = standing.tokens
    broken = []
    if not holds(standing, truth):
        found = f"input {spans.input}, output {spans.output} ({row.call_id})"
        wanted = f"{truth.input_tokens} in, {truth.output_tokens} out"
        broken.append(Broken(Promise.INTERVAL, call.number, wanted, found))
    upstream, at_ms = row.call.request.upstream, row.call.opened_ms
    cost = cost_in(book, truth, billed, upstream=upstream, at_ms=at_ms)
    if standing.cost is None or not standing.cost.low <= cost <= standing.cost.high:
        found = f"cost {standing.cost} ({row.call_id})"
        broken.append(Broken(Promise.INTERVAL, call.number, f"{cost} nano-dollars", found))
    return broken


def _unharmed(evidence: Evidence) -> list[Broken]:
    """What the caller saw is what a bare client sees of the same misfortune."""
    cell, number = evidence.call.cell, evidence.call.number
    seen, bare = evidence.seen, evidence.bare
    if cell.fault in HOLDS or bare is None:  # the door itself is gone
        return []
    if seen is None:
        return [Broken(Promise.CALLER, number, "an end of the call", "it never ended")]
    if cell.door is Door.GATEWAY:  # another connection breaks otherwise, but only where one broke
        same = (seen.error is None) == (bare.error is None)
    else:
        same = seen.error == bare.error
    if not same:
        return [Broken(Promise.CALLER, number, bare.error or "no error", seen.error or "no error")]
    if cell.fault in _READS_ALL and _heard(seen) != _heard(bare):
        return [Broken(Promise.CALLER, number, _told(bare), _told(seen))]
    return []


_READS_ALL = frozenset(Fault) - {
    Fault.CLIENT_FIN,
    Fault.CLIENT_RST,
    Fault.NEVER_READS,
    Fault.UPSTREAM_RST,  # a reset destroys what was not read yet, and sooner or later is a race
}
"""Faults after which every caller has the same text, to its last letter."""


def _heard(report: Report) -> tuple[int, int, bool]:
    return report.chars, report.checksum, report.usage_seen


def _told(report: Report) -> str:
    usage = "with" if report.usage_seen else "without"
    return f"{report.chars} characters ({report.checksum:08x}), {usage} usage"


def endings_of(rows: Sequence[CallRecord]) -> tuple[str, ...]:
    return tuple(row.settlement.ending.value if row.settlement else "open" for row in rows)
