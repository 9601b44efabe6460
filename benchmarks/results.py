"""What was measured, as rows, and the rows as an aligned table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Compared:
    """One thing measured with and without metering: microseconds of CPU for each `unit`."""

    what: str
    unit: str
    plain_us: float
    metered_us: float
    spread: float
    """Half the distance between the middle half of the runs' ratios."""

    @property
    def ratio(self) -> float:
        return self.metered_us / self.plain_us


@dataclass(frozen=True)
class Timed:
    """One thing that takes time, in milliseconds."""

    what: str
    median_ms: float
    p99_ms: float
    times: int


@dataclass(frozen=True)
class Report:
    """All that one run has measured."""

    compared: Sequence[Compared]
    timed: Sequence[Timed]

    def as_data(self) -> dict[str, object]:
        return {
            "compared": [asdict(row) | {"ratio": row.ratio} for row in self.compared],
            "timed": [asdict(row) for row in self.timed],
        }

    def as_text(self) -> str:
        tables = []
        if self.compared:
            head = ["added", "±", "plain µs", "metered µs", "per", "what"]
            rows = [
                [
                    f"{row.ratio - 1:+.1%}",
                    f"{row.spread:.1%}",
                    f"{row.plain_us:.1f}",
                    f"{row.metered_us:.1f}",
                    row.unit,
                    row.what,
                ]
                for row in self.compared
            ]
            tables.append(aligned([head, *rows], left=2))
        if self.timed:
            head = ["median ms", "99 % ms", "times", "what"]
            rows = [
                [f"{row.median_ms:.3f}", f"{row.p99_ms:.3f}", str(row.times), row.what]
                for row in self.timed
            ]
            tables.append(aligned([head, *rows], left=1))
        return "\n\n".join(tables)


def aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns of one width, numbers to the right, the last `left` columns to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = len(widths) - left
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place < numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def compare(what: str, unit: str, plain_us: list[float], metered_us: list[float]) -> Compared:
    """Medians of runs that took turns; the spread is of the ratios of neighbours."""
    ratios = [metered / plain for plain, metered in zip(plain_us, metered_us, strict=True)]
    quarters = statistics.quantiles(ratios, n=4)
    return Compared(
        what,
        unit,
        statistics.median(plain_us),
        statistics.median(metered_us),
        (quarters[2] - quarters[0]) / 2,
    )


def timed(what: str, seconds: list[float]) -> Timed:
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return Timed(what, statistics.median(ordered) * 1000, last * 1000, len(ordered))
