"""What the demo shows: one table by ending, one sentence, what was checked, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from lastchunk.demo.scenario import BY_NAME, KILLED
from lastchunk.demo.tally import Attempt, Joined, Sums, grouped, sums
from lastchunk.ledger.audit import Verification
from lastchunk.meter.ending import Ending
from lastchunk.money import usd
from lastchunk.reports.table import Cell, Column, Kind, Table


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that one run has shown. `recovered` is how many calls were left by the killed."""

    seed: int
    ledger: str
    calls: int
    cut: int
    joined: Joined
    recovered: int
    verification: Verification
    seconds: float

    @property
    def total(self) -> Sums:
        return sums(self.joined.attempts)

    @property
    def outside(self) -> list[Attempt]:
        """Attempts whose truth is not within low–high."""
        return [one for one in self.joined.attempts if not one.within]

    @property
    def unexpected(self) -> list[Attempt]:
        """Attempts that the ledger says ended otherwise than they were made to end."""
        return [one for one in self.joined.attempts if not one.ended_as_expected]

    def by_ending(self) -> list[tuple[str, Sums]]:
        order = [ending.value for ending in Ending]
        return grouped(self.joined.attempts, lambda one: one.ending.value, order)

    def by_way(self) -> list[tuple[str, Sums]]:
        return grouped(self.joined.attempts, lambda one: one.call.way.name, list(BY_NAME))


_WORDS: dict[Ending, str] = {
    Ending.COMPLETED: "completed",
    Ending.UPSTREAM_CUT: "cut off",
    Ending.UPSTREAM_TIMEOUT: "stalled",
    Ending.UPSTREAM_FAILED: "failed",
    Ending.CALLER_LEFT: "caller left",
    Ending.LIMIT_REACHED: "stopped",
    Ending.REFUSED: "refused",
    Ending.NEVER_SENT: "never sent",
    Ending.LOST: "lost (-9)",
}
"""Short ones: nine columns are to stand on one line of a terminal."""


def comparison_table(result: Result) -> Table:
    """The truth, the naive tracker and lastchunk side by side, by how the calls ended."""
    # Amounts are words here: one number of digits for all of them, however small the run.
    columns = (
        Column("ending", "ending"),
        Column("attempts", "calls", Kind.NUMBER),
        Column("true_tokens", "tokens", Kind.NUMBER),
        Column("true_cost", "cost", Kind.NUMBER),
        Column("naive_cost", "naive", Kind.NUMBER),
        Column("lastchunk_cost", "lastchunk", Kind.NUMBER),
        Column("tokens_off", "± tok", Kind.NUMBER),
        Column("cost_off", "± cost", Kind.NUMBER),
        Column("within", "within", Kind.NUMBER),
    )
    return Table(
        name="comparison",
        title="",
        columns=columns,
        rows=tuple(_row(_WORDS[Ending(name)], one) for name, one in result.by_ending()),
        totals=_row("total", result.total),
        notes=(
            "",
            "tokens, cost: the truth, from the provider's own bill. naive: what a tracker has"
            " that trusts the usage chunk and asked for it. ±: lastchunk less the truth."
            " within: calls whose truth lies between lastchunk's low and high.",
        ),
    )


def sentence(result: Result) -> str:
    """The whole demo in a sentence."""
    total = result.total
    lost = total.truth.cost - total.naive.cost
    return (
        f"Of {_dollars(total.truth.cost)} that these calls cost, a tracker that trusts the usage"
        f" chunk missed {_dollars(lost)} ({_percent(lost, total.truth.cost)});"
        f" lastchunk is off by {_signed_percent(_cost_off(total), total.truth.cost)} in the sum"
        f" and by {_percent(total.cost_off_each, total.truth.cost)} call by call."
    )


def checks(result: Result) -> list[tuple[bool, str]]:
    """What was checked, in words, and whether it holds."""
    attempts, verification = result.joined.attempts, result.verification
    retries = sum(not one.is_last for one in attempts)
    within = result.total.within
    as_meant = len(attempts) - len(result.unexpected)
    killed = sum(one.call.way is KILLED for one in attempts)
    audited = f"{verification.entries} entries and every balance recomputed"
    found = [
        (
            not result.joined.odd,
            f"one row for each of {len(attempts)} attempts: {result.calls} calls,"
            f" {retries} retries",
        ),
        (within == len(attempts), f"{within} of {len(attempts)} truths lie within low–high"),
        (as_meant == len(attempts), f"{as_meant} of {len(attempts)} endings are the true ones"),
        (
            verification.is_clean,
            f"verify: {audited}, {verification.found or 'no'} discrepancies",
        ),
    ]
    if killed:  # a small run has none
        said = f"{result.recovered} open calls of a process killed with -9 were recovered"
        found.insert(-1, (result.recovered >= killed, said))
    return found


def example(result: Result) -> Attempt | None:
    """A cut call that is worth explaining: counted, and of the largest output."""
    cut = [one for one in result.joined.attempts if one.ending is Ending.CALLER_LEFT]
    return max(cut or result.joined.attempts, key=lambda one: one.recorded.cost, default=None)


def as_json(result: Result) -> str:
    """Everything, exact: amounts in USD as decimals."""
    document = {
        "seed": result.seed,
        "ledger": result.ledger,
        "calls": result.calls,
        "cut": result.cut,
        "recovered": result.recovered,
        "seconds": round(result.seconds, 1),
        "total": _record(result.total),
        "endings": {name: _record(one) for name, one in result.by_ending()},
        "ways": {name: _record(one) for name, one in result.by_way()},
        "rows_that_do_not_match": result.joined.odd,
        "outside": [_named(one) for one in result.outside],
        "unexpected_endings": [_named(one) for one in result.unexpected],
        "discrepancies": result.verification.found,
    }
    encoded = msgspec.json.Encoder(decimal_format="number").encode(document)
    return msgspec.json.format(encoded, indent=2).decode()


def _row(name: str, one: Sums) -> tuple[Cell, ...]:
    return (
        name,
        one.attempts,
        one.truth.tokens,
        _dollars(one.truth.cost),
        _dollars(one.naive.cost),
        _dollars(one.recorded.cost),
        _signed(one.recorded.tokens - one.truth.tokens),
        _signed_percent(_cost_off(one), one.truth.cost),
        one.within,
    )


def _record(one: Sums) -> dict[str, int | Decimal]:
    return {
        "attempts": one.attempts,
        "true_tokens": one.truth.tokens,
        "true_cost_usd": usd(one.truth.cost),
        "naive_tokens": one.naive.tokens,
        "naive_cost_usd": usd(one.naive.cost),
        "lastchunk_tokens": one.recorded.tokens,
        "lastchunk_cost_usd": usd(one.recorded.cost),
        "error_each_usd": usd(one.cost_off_each),
        "within": one.within,
    }


def _named(one: Attempt) -> dict[str, str | int]:
    return {
        "call_id": one.record.call_id,
        "way": one.call.way.name,
        "ending": one.ending.value,
        "true_tokens": one.truth.tokens,
        "lastchunk_tokens": one.recorded.tokens,
    }


def _dollars(nano: int) -> str:
    return "-" if not nano else f"${usd(nano):,.4f}"


def _cost_off(one: Sums) -> int:
    return one.recorded.cost - one.truth.cost


def _signed(number: int) -> str:
    return f"{number:+,}" if number else "0"


def _signed_percent(part: int, whole: int) -> str:
    if not part:
        return "0"
    return f"{100 * part / whole:+.1f}%" if whole else "-"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "0%"


def failures(result: Result) -> Sequence[str]:
    """What did not hold, one line each, for whoever has to find out why."""
    told = [*result.joined.odd]
    for word, attempts in (("outside", result.outside), ("ending", result.unexpected)):
        told += [
            f"{word}: {one.record.call_id} ({one.call.way.name}) {one.ending},"
            f" {one.truth.tokens} true tokens, {one.recorded.tokens} recorded"
            for one in attempts
        ]
    return told
