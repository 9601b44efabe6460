"""What was learned about one shape or one family: recent residuals, and who predicts them best."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median

REMEMBERED = 16
"""Residuals kept of each shape and family. A provider's change is learned within half of these."""


@dataclass(slots=True)
class Past:
    """The last residuals of one group, and how far each way to use them would have been off.

    Four ways are tried beside each other on every finished call before it is learned, so that none
    is judged by a number it has seen. The one with the smallest recent loss speaks.
    """

    seen: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """(residual, counted) of finished calls, the latest last."""
    losses: deque[tuple[float, ...]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """What each way lost on a call, in the order of `ways`: the logarithm of 1 + its error, so that
    exact numbers count most and a single far one does not decide."""

    def ways(self, counted: int) -> tuple[int, ...]:
        """What each way makes of a count: median residual, latest, median share, as counted."""
        residuals = [residual for residual, _ in self.seen]
        shares = [(residual + base) / base for residual, base in self.seen if base > 0]
        usual = median(residuals)
        return (
            max(0, counted + round(usual)),
            max(0, counted + residuals[-1]),
            round(counted * median(shares)) if shares else counted,
            counted,
        )

    def best(self, counted: int) -> int:
        """The leading way's number; the first of equals leads."""
        totals = self._totals()
        return self.ways(counted)[min(range(len(totals)), key=totals.__getitem__)]

    def improvement(self) -> float:
        """The leading way's recent loss as a share of the plain count's; 1.0 for no gain."""
        totals = self._totals()
        return min(totals) / totals[-1] if totals[-1] else 1.0

    def learn(self, counted: int, reported: int) -> None:
        """Judges the ways on this call, then learns it."""
        if self.seen:
            errors = (abs(way - reported) for way in self.ways(counted))
            self.losses.append(tuple(math.log1p(error) for error in errors))
        self.seen.append((reported - counted, counted))

    def _totals(self) -> list[float]:
        if not self.losses:
            return [0.0, 0.0, 0.0, 0.0]
        return [math.fsum(losses) for losses in zip(*self.losses, strict=True)]
