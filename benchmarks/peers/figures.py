"""What was measured beside the peers: a table with the ratios first, and a plot."""

from __future__ import annotations

import math
import os
import platform
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.results import aligned

BEGIN, END = "<!-- figures: make bench-gateway -->", "<!-- /figures -->"
NONE = "-"


@dataclass(frozen=True)
class Measured:
    """One load through one gateway, or directly. Pairs are the median and the 99th percentile.

    `share` of the events that were asked for came in time; `lag_ms` is from the provider's sending
    of an event to the caller's receiving it.
    """

    name: str
    load: str
    share: float
    cpu_us: float | None
    events_per_second: float
    lag_ms: list[float] | None
    first_ms: list[float] | None
    resident_mb: float | None

    def in_short(self) -> str:
        cpu = f"{self.cpu_us:.1f} µs an event" if self.cpu_us is not None else "no CPU told"
        return f"{self.name}: {cpu}, {self.share:.0%} came"


@dataclass(frozen=True)
class Figures:
    """All runs, the peers that were not there with the reason, and the loads in their order."""

    runs: Sequence[Measured]
    missing: dict[str, str]
    loads: Sequence[str]

    def as_data(self) -> dict[str, object]:
        return {"runs": [asdict(run) for run in self.runs], "missing": self.missing}

    def as_text(self) -> str:
        tables = [self._table(load) for load in self.loads]
        told = [f"not measured: {name}: {why}" for name, why in self.missing.items()]
        return "\n\n".join([*tables, *told])

    def of(self, name: str, load: str) -> list[Measured]:
        return [run for run in self.runs if run.name == name and run.load == load]

    def names(self) -> list[str]:
        return list(dict.fromkeys(run.name for run in self.runs))

    def cpu(self, name: str, load: str) -> float | None:
        """Microseconds an event, the median of the rounds."""
        found = [run.cpu_us for run in self.of(name, load) if run.cpu_us is not None]
        return statistics.median(found) if found else None

    def _table(self, load: str) -> str:
        head = ["× nginx", "CPU µs", "events/s", "came", "+lag ms", "99 %", "+first ms", "99 %"]
        rows = [[*head, "MB", load]]
        for name in self.names():
            if runs := self.of(name, load):
                rows.append([*self._cells(name, load, runs), name])
        return aligned(rows, left=1)

    def _cells(self, name: str, load: str, runs: list[Measured]) -> list[str]:
        cpu, physical = self.cpu(name, load), self.cpu("nginx", load)
        direct = self.of("direct", load)
        resident = [run.resident_mb for run in runs if run.resident_mb is not None]
        return [
            f"{cpu / physical:.2f}" if cpu and physical else NONE,
            f"{cpu:.1f}" if cpu is not None else NONE,
            f"{statistics.median(run.events_per_second for run in runs):,.0f}",
            f"{statistics.median(run.share for run in runs):.0%}",
            *(_added([r.lag_ms for r in runs], [r.lag_ms for r in direct], at) for at in (0, 1)),
            *(
                _added([r.first_ms for r in runs], [r.first_ms for r in direct], at)
                for at in (0, 1)
            ),
            f"{statistics.median(resident):.0f}" if resident else NONE,
        ]


def _added(
    told: Sequence[list[float] | None], direct: Sequence[list[float] | None], at: int
) -> str:
    """What a gateway adds to the way without one, in milliseconds."""
    here = [pair[at] for pair in told if pair]
    there = [pair[at] for pair in direct if pair]
    if not here or not there:
        return NONE
    return f"{statistics.median(here) - statistics.median(there):.1f}"


def write(path: Path, figures: Figures) -> None:
    """The table between the marks of a page, and the plot beside the page."""
    where = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    body = f"{BEGIN}\n\nMeasured on {time.strftime('%Y-%m-%d')}: {where}.\n\n"
    body += f"```text\n{figures.as_text()}\n```\n\n{END}"
    text = path.read_text()
    if BEGIN not in text:
        raise SystemExit(f"{path} has no place for figures: {BEGIN}")
    path.write_text(
        re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: body, text, flags=re.S)
    )
    path.with_suffix(".svg").write_text(plot(figures))


def plot(figures: Figures) -> str:
    """CPU an event relative to nginx's as bars on a logarithmic scale, the paced loads only."""
    bars: list[tuple[str, float]] = []
    for load in figures.loads:
        physical = figures.cpu("nginx", load)
        for name in figures.names():
            cpu = figures.cpu(name, load)
            if physical and cpu and not load.startswith("burst"):
                bars.append((f"{name}, {load}", cpu / physical))
    width, row, left = 720, 22, 240
    most = max([math.log(ratio) for _, ratio in bars] + [1.0])
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{row * len(bars) + 40}" '
        'font-family="sans-serif" font-size="12">',
        '<text x="8" y="18">CPU an event, nginx = 1 (logarithmic)</text>',
    ]
    for place, (label, ratio) in enumerate(bars):
        top = 30 + place * row
        length = 4 + max(0.0, math.log(ratio)) / most * (width - left - 70)
        colour = "#2a6f97" if label.startswith("lastchunk") else "#a9b4bd"
        lines += [
            f'<text x="{left - 8}" y="{top + 13}" text-anchor="end">{label}</text>',
            f'<rect x="{left}" y="{top}" width="{length:.0f}" height="16" fill="{colour}"/>',
            f'<text x="{left + length + 6:.0f}" y="{top + 13}">{ratio:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
