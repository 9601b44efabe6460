"""The provider's bill, the ledger and what callers heard, joined attempt by attempt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lastchunk.demo.scenario import PlannedCall
from lastchunk.ledger import CallRecord
from lastchunk.ledger.entries import TokenSpan
from lastchunk.meter.ending import Ending
from lastchunk.pricing.book import PriceBook
from lastchunk.pricing.cost import Cost
from lastchunk.simulator import BilledCall
from lastchunk.stage.heard import Heard
from lastchunk.stage.truth import NOTHING, cost_in, holds, true_counts
from lastchunk.usage import TokenCounts


@dataclass(frozen=True, slots=True)
class Priced:
    """Tokens, input and output together, and their cost in nano-dollars."""

    tokens: int
    cost: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row of the ledger beside its truth and beside what the naive tracker has.

    `within` tells whether the true input, output and cost each lie in the recorded low–high.
    """

    call: PlannedCall
    record: CallRecord
    billed: BilledCall | None
    ending: Ending
    truth: Priced
    naive: Priced
    recorded: Priced
    within: bool
    is_last: bool

    @property
    def tokens_off(self) -> int:
        return self.recorded.tokens - self.truth.tokens

    @property
    def ended_as_expected(self) -> bool:
        """As planned; or whole, where the provider sent all of it before the caller could go."""
        way = self.call.way
        if not self.is_last:
            return self.ending is way.retried
        all_sent = self.billed is not None and self.billed.ended == "completed"
        return self.ending in way.endings or (self.ending is Ending.COMPLETED and all_sent)


@dataclass(frozen=True, slots=True)
class Sums:
    """Attempts added up. `cost_off_each` adds the sizes of the errors: none cancels another."""

    attempts: int
    truth: Priced
    naive: Priced
    recorded: Priced
    cost_off_each: int
    within: int


@dataclass(frozen=True, slots=True)
class Joined:
    """All attempts of a run. `odd` are calls whose rows and billed attempts are not as many."""

    attempts: tuple[Attempt, ...]
    odd: tuple[str, ...]


def join(
    planned: Sequence[PlannedCall],
    heard: Mapping[int, Heard],
    records: Iterable[CallRecord],
    bill: Mapping[int, Sequence[BilledCall]],
    book: PriceBook,
) -> Joined:
    """Every row of the ledger with its truth; the first of a call's rows is its first attempt."""
    rows: dict[int, list[CallRecord]] = defaultdict(list)
    odd: list[str] = []
    for record in records:
        if record.is_open:
            odd.append(f"{record.call_id} is still open")
        else:
            rows[int(dict(record.call.tags)["call"])].append(record)
    attempts: list[Attempt] = []
    for call in planned:
        mine = sorted(rows.pop(call.number, []), key=lambda record: record.call_id)
        billed = list(bill.get(call.number, ()))
        reached = [record for record in mine if _ending(record) is not Ending.NEVER_SENT]
        if not mine or len(reached) != len(billed):
            odd.append(
                f"call {call.number} ({call.way.name}): {len(mine)} rows, {len(billed)} attempts"
            )
        told = heard.get(call.number, Heard(call.number))
        for record, truth in _paired(mine, billed):
            last = record is mine[-1]
            usage = told.usage if last else None
            attempts.append(_attempt(call, record, truth, usage, book, is_last=last))
    odd += [f"call {number} is not in the plan" for number in rows]
    return Joined(tuple(attempts), tuple(odd))


def sums(attempts: Sequence[Attempt]) -> Sums:
    """All of them added up."""
    return Sums(
        attempts=len(attempts),
        truth=_added(one.truth for one in attempts),
        naive=_added(one.naive for one in attempts),
        recorded=_added(one.recorded for one in attempts),
        cost_off_each=sum(abs(one.recorded.cost - one.truth.cost) for one in attempts),
        within=sum(one.within for one in attempts),
    )


def grouped(
    attempts: Sequence[Attempt], key: Callable[[Attempt], str], order: Sequence[str]
) -> list[tuple[str, Sums]]:
    """Sums by a key, in the given order of keys."""
    groups: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        groups[key(attempt)].append(attempt)
    return [(name, sums(groups[name])) for name in order if name in groups]


def _paired(
    rows: list[CallRecord], billed: list[BilledCall]
) -> list[tuple[CallRecord, BilledCall | None]]:
    """Rows with what was billed: by the provider's id where the row knows it, else in order."""
    by_id = {one.response_id: one for one in billed}
    by_id.pop(None, None)
    found = {row.call_id: by_id.pop(_response_id(row), None) for row in rows}
    taken = {one.call for one in found.values() if one is not None}
    rest = iter([one for one in billed if one.call not in taken])
    return [
        (row, found[row.call_id] or (None if _is_unsent(row) else next(rest, None))) for row in rows
    ]


def _attempt(
    call: PlannedCall,
    record: CallRecord,
    billed: BilledCall | None,
    heard: TokenCounts | None,
    book: PriceBook,
    *,
    is_last: bool,
) -> Attempt:
    truth = true_counts(billed)
    upstream, at_ms = record.call.request.upstream, record.call.opened_ms

    def priced(counts: TokenCounts) -> Priced:
        tokens = (counts.input_tokens or 0) + (counts.output_tokens or 0)
        return Priced(tokens, cost_in(book, counts, billed, upstream=upstream, at_ms=at_ms))

    standing = record.standing
    cost = standing.cost or Cost(0, 0, 0)
    true = priced(truth)
    return Attempt(
        call=call,
        record=record,
        billed=billed,
        ending=_ending(record),
        truth=true,
        naive=priced(heard or NOTHING),
        recorded=Priced(_best(standing.tokens.input) + _best(standing.tokens.output), cost.best),
        within=holds(standing, truth) and cost.low <= true.cost <= cost.high,
        is_last=is_last,
    )


def _best(span: TokenSpan | None) -> int:
    return 0 if span is None else span.best


def _ending(record: CallRecord) -> Ending:
    assert record.settlement is not None, f"{record.call_id} is still open"
    return record.settlement.ending


def _response_id(record: CallRecord) -> str | None:
    return record.settlement.observation.response_id if record.settlement is not None else None


def _is_unsent(record: CallRecord) -> bool:
    return _ending(record) is Ending.NEVER_SENT


def _added(priced: Iterable[Priced]) -> Priced:
    every = list(priced)
    return Priced(sum(one.tokens for one in every), sum(one.cost for one in every))
