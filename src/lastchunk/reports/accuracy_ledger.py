"""A ledger's own finished calls as judged numbers: what was counted beside what was reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lastchunk.reports.accuracy_judge import Judged
from lastchunk.settlement.residuals import ResidualRow, Residuals
from lastchunk.settlement.shape import family_in
from lastchunk.usage import Basis, Quantity

COUNTABLE = "finished calls"
UNSURE = "not derivable"


def judged_calls(rows: Iterable[ResidualRow]) -> Iterator[Judged]:
    """Each lesson of a ledger, the oldest first: cold as it was counted, warm as learned by then.

    What kind of prompt or answer it was is not kept, only whether it was derivable.
    """
    residuals = Residuals()
    for row in rows:
        basis = Basis.BOUNDED if row.bounded else Basis.COUNTED
        cold = Quantity(min(row.low, row.counted), row.counted, max(row.counted, row.high), basis)
        truth = max(0, row.counted + row.residual)
        familiar = residuals.knows(row.side, row.shape)
        warm, _ = residuals.corrected(row.side, row.shape, row.family, cold)
        residuals.learn(row.side, row.shape, row.family, cold, truth, row.seen_ms)
        endpoint, _, family = family_in(row.family).partition(" ")
        yield Judged(
            side=row.side,
            provider="",
            endpoint=endpoint,
            family=family,
            kind=UNSURE if row.bounded else COUNTABLE,
            derivable=not row.bounded,
            truth=truth,
            cold=cold,
            warm=warm,
            familiar=familiar,
        )
