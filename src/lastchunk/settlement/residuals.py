"""Learns from finished calls how far our counts are off, by shape, and how sure one can be.

Intervals are split conformal prediction intervals: Vovk, Gammerman and Shafer, Algorithmic Learning
in a Random World (2005); Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, Distribution-Free
Predictive Inference for Regression, JASA 113 (2018), section 2.2, with the local scale of 5.2.
Each finished call is predicted before it is learned. Its score is the error in units of the
built-in interval: a share of a large uncertain count, some tokens of a small or certain one. Of n
scores the ceil((n + 1)(1 - alpha))-th smallest gives the interval: it holds at least 1 - alpha of
exchangeable calls, whatever their distribution. Calls are compared with their like only (Vovk's
Mondrian conformal predictors): the same family at the same upstream, the same way of correcting,
derivable or not.

An upstream may report anything, so what it may teach is bounded. It teaches for itself alone. A
report that is not plausible (plausible.py) corrects nothing, and its score can only widen. Until a
shape's own corrections were held against a report, the built-in interval stays inside the learned.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from lastchunk.settlement.learned import Past
from lastchunk.settlement.plausible import is_plausible, within_plausible
from lastchunk.settlement.shape import pool_of, rounds_reasoning, stem_of
from lastchunk.usage import Basis, Quantity

MISSED = 0.05
"""Alpha: the share of truths that may lie outside low to high."""

SHAPES = 4096
"""Shapes (and as many stems) remembered; the least recently used is forgotten first. About 3 KB
each when full: some 25 MB at the very most."""

FAMILIES = 256
"""Families remembered, least recently used first out."""

SCORES = 512
"""Scores kept a group: the latest, so that intervals follow a provider's changes."""

SCORES_OF_A_SHAPE = 64
"""Scores kept of one shape; from `SHAPE_SPEAKS` on they replace its family's."""

SHAPE_SPEAKS = 39
"""Finished calls of one shape from which its own scores give its interval."""

OWN_MISSES = 8
"""A shape's latest scores, of which the second largest is the least reach of its interval, whatever
its like achieve: two misses of its own in so few calls are no accident, one may be."""

GROUP_SPEAKS = 79
"""Scores of a family from which they replace those of all families like it. Of fewer, the quantile
is one of the three largest scores, and a single odd call would widen every interval."""

FAMILY_SPEAKS = 8
"""Finished calls of a family before its residuals may correct a shape that was never seen."""

CLEARLY_BETTER = 0.7
"""An unseen shape is corrected where this share of its family's recent loss, or less, is left."""

_LARGEST = 2**53
"""No count is larger."""

_ROUNDING = 1e-6
"""Of a token: a score times the width it was divided by must give the same whole number."""


class Side(StrEnum):
    """Which number of a call: they are learned apart."""

    PROMPT = "prompt"
    OUTPUT = "output"


class Level(StrEnum):
    """By whose residuals a count was corrected."""

    SHAPE = "shape"
    STEM = "stem"
    FAMILY = "family"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ResidualRow:
    """One finished call as it is stored: numbers and hashes, no content.

    `residual` is reported minus counted; `low` and `high` are the built-in interval's ends;
    `bounded` is whether the count's basis was BOUNDED or weaker; `seen_ms` is Unix milliseconds.
    """

    side: Side
    shape: str
    family: str
    residual: int
    counted: int
    low: int
    high: int
    bounded: bool
    seen_ms: int


_Group = tuple[Side, str, Level, bool]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Residuals:
    """What finished calls taught. Pure: the same calls in the same order teach the same."""

    def __init__(self) -> None:
        self._shapes: OrderedDict[tuple[Side, str], Past] = OrderedDict()
        self._stems: OrderedDict[tuple[Side, str], Past] = OrderedDict()
        self._families: OrderedDict[tuple[Side, str, bool], Past] = OrderedDict()
        self._scores: OrderedDict[_Group, deque[float]] = OrderedDict()
        self._shape_scores: OrderedDict[tuple[Side, str, bool], deque[float]] = OrderedDict()

    @classmethod
    def from_rows(cls, rows: Iterable[ResidualRow]) -> Residuals:
        """All that stored rows teach, the oldest first: as if their calls had just been learned."""
        residuals = cls()
        for row in rows:
            basis = Basis.BOUNDED if row.bounded else Basis.COUNTED
            low, high = min(row.low, row.counted), max(row.counted, row.high)
            counted = Quantity(max(0, low), max(0, row.counted), max(0, high), basis)
            reported = max(0, row.counted + row.residual)
            residuals.learn(row.side, row.shape, row.family, counted, reported, row.seen_ms)
        return residuals

    def learn(
        self,
        side: Side,
        shape: str,
        family: str,
        counted: Quantity,
        reported: int,
        seen_ms: int = 0,
    ) -> ResidualRow:
        """Learns one finished call; the row is what to store, and all that `from_rows` needs.

        `family` names whose calls teach one another (`class_of`). A report that is not plausible
        is scored, and corrects nothing.
        """
        reported = max(0, min(reported, _LARGEST))
        bounded = counted.basis < Basis.COUNTED
        best, level = self._predict(side, shape, family, counted)
        below, above = _units(counted, level)
        score = max((reported - best) / above, (best - reported) / below)
        for like in (family, pool_of(family)):
            group = (side, like, level, bounded)
            _touched(self._scores, group, _many_scores, FAMILIES * len(Level)).append(score)
        if level is Level.SHAPE:
            own = (side, shape, bounded)
            _touched(self._shape_scores, own, _few_scores, SHAPES).append(score)
        if is_plausible(counted, reported):
            self._teach(side, shape, family, counted, reported)
        return ResidualRow(
            side=side,
            shape=shape,
            family=family,
            residual=reported - counted.best,
            counted=counted.best,
            low=counted.low,
            high=counted.high,
            bounded=bounded,
            seen_ms=seen_ms,
        )

    def _teach(self, side: Side, shape: str, family: str, counted: Quantity, reported: int) -> None:
        """Corrects later counts of this shape, its stem and its family by this call."""
        bounded = counted.basis < Basis.COUNTED
        for past in (
            _touched(self._shapes, (side, shape), Past, SHAPES),
            _touched(self._stems, (side, stem_of(shape)), Past, SHAPES),
            _touched(self._families, (side, family, bounded), Past, FAMILIES),
        ):
            past.learn(counted.best, reported)

    def knows(self, side: Side, shape: str) -> bool:
        """Whether a finished call of this very shape was learned and is not forgotten."""
        return (side, shape) in self._shapes

    def corrected(
        self, side: Side, shape: str, family: str, counted: Quantity
    ) -> tuple[Quantity, tuple[str, ...]]:
        """The count as finished calls of its like would have it, with a 95 % interval, and why.

        The basis stays: a corrected count is still no report. Numbers that a provider reported are
        given back as they are.
        """
        if counted.basis >= Basis.REPORTED_SO_FAR:
            return counted, ()
        best, level = self._predict(side, shape, family, counted)
        reasons = () if level is Level.NONE else (f"corrected_by_{level}",)
        reach = self._reach(side, shape, family, level, counted.basis < Basis.COUNTED)
        if reach is None:
            low, high = best - (counted.best - counted.low), best + (counted.high - counted.best)
        else:
            below, above = _units(counted, level)
            low = best - int(reach * below + _ROUNDING)
            high = best + int(reach * above + _ROUNDING)
            reasons = (*reasons, "interval_learned")
        if level is not Level.NONE and not self._was_tried(side, shape, level, counted):
            low, high = min(low, counted.low), max(high, counted.high)
        return Quantity(max(0, low), best, min(high, max(best, _LARGEST)), counted.basis), reasons

    def _predict(self, side: Side, shape: str, family: str, counted: Quantity) -> tuple[int, Level]:
        """The best guess, and by whose residuals.

        What rounding hides in an output is no constant: such a count stays what it is.
        """
        if side is Side.OUTPUT and rounds_reasoning(family):
            return counted.best, Level.NONE
        past, level = self._past(side, shape, family, counted.basis < Basis.COUNTED)
        if past is None:
            return counted.best, Level.NONE
        return within_plausible(counted, past.best(counted.best)), level

    def _past(
        self, side: Side, shape: str, family: str, bounded: bool
    ) -> tuple[Past | None, Level]:
        """The closest group that may correct this shape."""
        if (past := self._shapes.get((side, shape))) is not None:
            return past, Level.SHAPE
        if (past := self._stems.get((side, stem_of(shape)))) is not None:
            return past, Level.STEM
        past = self._families.get((side, family, bounded))
        tried = past is not None and len(past.losses) >= FAMILY_SPEAKS
        if past is not None and tried and past.improvement() <= CLEARLY_BETTER:
            return past, Level.FAMILY
        return None, Level.NONE

    def _reach(
        self, side: Side, shape: str, family: str, level: Level, bounded: bool
    ) -> float | None:
        """How many built-in half-widths hold 95 % of the like; None where too few are known."""
        own = self._shape_scores.get((side, shape, bounded), ()) if level is Level.SHAPE else ()
        if len(own) >= SHAPE_SPEAKS:
            return conformal_quantile(own, MISSED)
        alike = self._scores.get((side, family, level, bounded), ())
        if len(alike) < GROUP_SPEAKS:
            alike = self._scores.get((side, pool_of(family), level, bounded), ())
        reach = conformal_quantile(alike, MISSED) if len(alike) >= GROUP_SPEAKS else None
        latest = sorted(list(own)[-OWN_MISSES:])
        return reach if reach is None or len(latest) < 2 else max(reach, latest[-2])

    def _was_tried(self, side: Side, shape: str, level: Level, counted: Quantity) -> bool:
        """Whether this very shape's corrections have been held against a report."""
        own = self._shape_scores.get((side, shape, counted.basis < Basis.COUNTED))
        return level is Level.SHAPE and bool(own)


def _many_scores() -> deque[float]:
    return deque(maxlen=SCORES)


def _few_scores() -> deque[float]:
    return deque(maxlen=SCORES_OF_A_SHAPE)


def _touched(
    known: OrderedDict[_Key, _Value], key: _Key, make: Callable[[], _Value], most: int
) -> _Value:
    """The value of a key, made if need be, as the latest used; beyond `most` the oldest goes."""
    value = known.get(key)
    if value is None:
        value = known[key] = make()
        if len(known) > most:
            known.popitem(last=False)
    known.move_to_end(key)
    return value


def conformal_quantile(scores: Iterable[float], missed: float) -> float | None:
    """The ceil((n + 1)(1 - missed))-th smallest of n scores; None where that is beyond the last."""
    ordered = sorted(scores)
    rank = math.ceil((len(ordered) + 1) * (1 - missed))
    return ordered[rank - 1] if 0 < rank <= len(ordered) else None


def _units(counted: Quantity, level: Level) -> tuple[float, float]:
    """What an error is measured in, below and above: the built-in half-widths, and one token.

    A corrected number stands somewhere else in the built-in interval: both of its sides are
    measured in half of the whole width.
    """
    if level is Level.NONE:
        return counted.best - counted.low + 1, counted.high - counted.best + 1
    half = (counted.high - counted.low) / 2 + 1
    return half, half
