"""The ledger beside the provider's true bill, call by call; calls are known by their tag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lastchunk.ledger import CallRecord
from lastchunk.ledger.entries import Standing
from lastchunk.meter.ending import Ending
from lastchunk.simulator import BilledCall
from lastchunk.stage.truth import holds, true_counts
from lastchunk.torture.killing import complaint, is_resolved_once


@dataclass(slots=True)
class Sums:
    """Tokens of one kind: what the ledger says, and the truth."""

    low: int = 0
    best: int = 0
    high: int = 0
    true: int = 0


@dataclass(slots=True)
class Compared:
    """Filled row by row. The lists hold tags."""

    rows: int = 0
    released: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    outside: list[str] = field(default_factory=list)
    """Calls whose true input or output is not within low and high, and what is known of them."""
    outside_by: Counter[str] = field(default_factory=Counter)
    """The same by ending and basis."""
    lost_unbilled: int = 0
    """Lost calls that the provider never heard of: their process died before it sent them."""
    input: Sums = field(default_factory=Sums)
    output: Sums = field(default_factory=Sums)
    output_lost: Sums = field(default_factory=Sums)
    """Of calls whose process died: their intervals are wide. They are not in `output`."""
    lost_whole: int = 0
    """Calls that were read to the end, and whose process died before it had settled them."""
    processes: set[str] = field(default_factory=set)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def complain(self, what: str, tag: str) -> None:
        self.wrong.setdefault(what, []).append(tag)

    def complaints(self) -> list[str]:
        return [complaint(what, tags) for what, tags in self.wrong.items()]


def compare(
    rows: Iterable[CallRecord],
    bill: Iterable[BilledCall],
    whole: set[str],
    refused: set[str],
) -> Compared:
    """`whole` are the calls whose client read the end, `refused` those that a limit refused."""
    found = Compared()
    billed: dict[str, BilledCall] = {}
    for call in bill:
        if (tag := call.tag or "") in billed:
            found.complain("billed more than once", tag)
        billed[tag] = call
    seen: set[str] = set()
    for row in rows:
        tag = dict(row.call.tags).get("call", row.call_id)
        if tag in seen:
            found.complain("with two rows", tag)
        seen.add(tag)
        _compare_row(found, row, tag, billed.get(tag))
        ending = None if row.settlement is None else row.settlement.ending
        if tag in whole and ending is Ending.LOST:
            found.lost_whole += 1
        elif tag in whole and ending is not Ending.COMPLETED:
            found.complain("read whole and not completed", tag)
    for tag in billed.keys() - seen:
        found.complain("billed and without a row", tag)
    for tag in refused & (seen | billed.keys()):
        found.complain("refused, and with a row or a bill", tag)
    return found


def _compare_row(found: Compared, row: CallRecord, tag: str, billed: BilledCall | None) -> None:
    found.rows += 1
    found.processes.add(row.process_id)
    if not is_resolved_once([entry.kind.value for entry in row.entries]):
        found.complain("not resolved exactly once", tag)
    if row.settlement is None:
        return
    ending = row.settlement.ending
    found.endings[ending.value] += 1
    if row.settlement.nothing_used:
        found.released += 1
        if billed is not None and billed.billed:
            found.complain("billed, and released as unused", tag)
        return
    if billed is None:
        if ending is Ending.LOST:
            found.lost_unbilled += 1
        else:
            found.complain(f"settled ({ending.value}) and never billed", tag)
        return
    _compare_tokens(found, row.standing, tag, ending, billed)


def _compare_tokens(
    found: Compared, standing: Standing, tag: str, ending: Ending, billed: BilledCall
) -> None:
    truth = true_counts(billed)
    found.compared += 1
    output = found.output_lost if ending is Ending.LOST else found.output
    pairs = (
        (found.input, standing.tokens.input, truth.input_tokens),
        (output, standing.tokens.output, truth.output_tokens),
    )
    for sums, span, true in pairs:
        sums.true += true or 0
        if span is not None:
            sums.low += span.low
            sums.best += span.best
            sums.high += span.high
    if not holds(standing, truth):
        basis = "none" if standing.basis is None else standing.basis.name.lower()
        spans = ", ".join(
            f"{true} in {span.low}–{span.high}" if span is not None else f"{true}, nothing known"
            for _, span, true in pairs
        )
        found.outside_by[f"{ending.value}, {basis}"] += 1
        found.outside.append(f"{tag} ({ending.value}, {basis}, {billed.ended}): {spans}")


def out_of(names: Mapping[str, int]) -> str:
    """Counts by name, in one line, the most frequent first."""
    ordered = sorted(names.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {name}" for name, count in ordered) or "none"
