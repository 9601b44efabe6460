"""How good counts were, added up in bounded memory: hits exactly, percentiles to three digits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lastchunk.reports.accuracy_judge import Judged
from lastchunk.settlement.residuals import Side
from lastchunk.usage import Quantity

NEAR_SHARE = 0.02
NEAR_TOKENS = 2
"""What counts as near: 2 % of the truth, or two tokens."""

MOST_PERCENT = 10_000
"""An error or a width counts as at most a hundred times the truth: one odd recording, a picture
billed as one token, must not decide a mean."""

MOST_GROUPS = 2_000
"""Groups told apart; what comes beyond is added up as one. Providers' names are the files' own."""

BEYOND = "(more)"


class Dimension(StrEnum):
    """What judged exchanges may be grouped by."""

    CLASS = "class"
    FAMILY = "family"
    ENDPOINT = "endpoint"
    PROVIDER = "provider"


class Counted(StrEnum):
    """By whom: without learning, with what the exchanges before taught, or by the plain rule."""

    COLD = "cold"
    WARM = "warm"
    COOKBOOK = "cookbook"


@dataclass(slots=True)
class Percents:
    """Numbers in percent, kept as a histogram of three significant digits."""

    n: int = 0
    total: float = 0.0
    seen: Counter[float] = field(default_factory=Counter)

    def add(self, percent: float) -> None:
        percent = min(percent, MOST_PERCENT)
        self.n += 1
        self.total += percent
        self.seen[float(f"{percent:.3g}")] += 1

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else 0.0

    def quantile(self, share: float) -> float:
        """The smallest of these that `share` of them do not exceed."""
        left = share * self.n
        for percent in sorted(self.seen):
            left -= self.seen[percent]
            if left <= 1e-9:
                return percent
        return 0.0


@dataclass(slots=True)
class Score:
    """All that is told about one group of counts."""

    n: int = 0
    exact: int = 0
    near_share: int = 0
    near_tokens: int = 0
    inside: int = 0
    errors: Percents = field(default_factory=Percents)
    widths: Percents = field(default_factory=Percents)

    def add(self, counted: Quantity, truth: int) -> None:
        """One count against a truth above 0."""
        error = abs(counted.best - truth)
        self.n += 1
        self.exact += error == 0
        self.near_share += error <= truth * NEAR_SHARE
        self.near_tokens += error <= NEAR_TOKENS
        self.inside += counted.low <= truth <= counted.high
        self.errors.add(100 * error / truth)
        self.widths.add(100 * (counted.high - counted.low) / truth)


Group = tuple[str, ...]
ALL = "all"
DERIVABLE = "derivable"
FAMILIAR = "shape known"
"""The derivable ones of which an exchange of the same shape was learned before."""


class Scores:
    """Scores by side, group and counter; then the sums of several groups."""

    def __init__(self, by: Sequence[Dimension]) -> None:
        self.by = tuple(by)
        self._scores: dict[tuple[Side, Group], dict[Counted, Score]] = {}
        self._whole: dict[tuple[Side, str], dict[Counted, Score]] = {}

    def add(self, judged: Judged) -> None:
        """One judged number."""
        group = tuple(_value(judged, dimension) for dimension in self.by)
        key = (judged.side, group)
        if key not in self._scores and len(self._scores) >= MOST_GROUPS:
            key = (judged.side, (BEYOND,) * len(self.by))
        places = [self._scores.setdefault(key, {})]
        names = [DERIVABLE] * judged.derivable + [FAMILIAR] * (judged.derivable and judged.familiar)
        for name in (*names, ALL):
            places.append(self._whole.setdefault((judged.side, name), {}))
        for place in places:
            place.setdefault(Counted.COLD, Score()).add(judged.cold, judged.truth)
            place.setdefault(Counted.WARM, Score()).add(judged.warm, judged.truth)
            if judged.cookbook is not None:
                plain = judged.cookbook
                number = Quantity(plain, plain, plain, judged.cold.basis)
                place.setdefault(Counted.COOKBOOK, Score()).add(number, judged.truth)

    def groups(self, side: Side) -> list[tuple[Group, dict[Counted, Score]]]:
        """Each group of this side with its scores, in the order of their names."""
        return sorted((group, found) for (of, group), found in self._scores.items() if of is side)

    def whole(self, side: Side) -> list[tuple[str, dict[Counted, Score]]]:
        """`derivable`, `shape known` and `all`, as far as there are such."""
        names = (DERIVABLE, FAMILIAR, ALL)
        found = ((name, self._whole.get((side, name))) for name in names)
        return [(name, scores) for name, scores in found if scores]


def _value(judged: Judged, dimension: Dimension) -> str:
    match dimension:
        case Dimension.CLASS:
            return judged.kind
        case Dimension.FAMILY:
            return judged.family
        case Dimension.ENDPOINT:
            return judged.endpoint
        case Dimension.PROVIDER:
            return judged.provider or "(unnamed)"
