"""Hidden reasoning of a cut call, from how fast this model reasoned in finished calls."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lastchunk.settlement.residuals import MISSED
from lastchunk.settlement.shape import upstream_in
from lastchunk.tokens.encodings import base_model
from lastchunk.tokens.families import Family, family_of
from lastchunk.usage import Basis, Quantity

PACES = 128
"""Finished calls remembered of each model and shape: the latest."""

SHAPES = 1024
"""Models and shapes remembered, least recently used first out. About 8 KB each when full."""

SPEAKS = 8
"""Finished calls of a model from which its pace is trusted; a shape's from `SHAPE_SPEAKS` on."""

SHAPE_SPEAKS = 3

WIDER = 2.0
"""While too few calls are known for a 95 % quantile, the ends seen are moved out by this factor."""

FASTEST_TOKENS_PER_SECOND = 5_000
"""A call that reasoned faster than any model writes was buffered on its way, or its report is made
up: it teaches nothing."""

SHORTEST_SECONDS = 0.05
"""A silence shorter than this is network, not thought; it is taken for that long."""

_STEPS = {Family.O_SERIES: 64, Family.GPT_5: 64}
"""Families that round reasoning down to a multiple (299 of 299 recordings); others are exact."""

_SILENT = ("o1", "o3", "o4", "gpt-5")

_WORK_SECONDS = 3600 * 24


_Key = tuple[str, str, str | None]
"""Upstream, model or family, shape or None for all of them."""


@dataclass(frozen=True, slots=True)
class ReasoningRow:
    """One finished call that reasoned, as it is stored. `seen_ms` is Unix milliseconds."""

    model: str
    shape: str
    silent_ms: int
    reasoning_tokens: int
    seen_ms: int


def reasons_silently(model: str) -> bool:
    """Whether a model of this name is known to reason without showing it."""
    name = base_model(model)
    return name.startswith(_SILENT) and "-chat" not in name


def rounding_of(model: str) -> int:
    """The multiple that reported reasoning is rounded to; 1 where it is exact."""
    return _STEPS.get(family_of(model), 1)


class ReasoningPaces:
    """Tokens a second of silence, by model and shape. Pure, bounded, without content.

    The silence of a call is the time from its start to its first token. `shape` is any name of
    what changes how much is thought, the asked effort first of all, with the upstream behind it
    (`effort_at`): the calls of one upstream teach nothing about another.
    """

    def __init__(self) -> None:
        self._paces: OrderedDict[_Key, deque[float]] = OrderedDict()

    @classmethod
    def from_rows(cls, rows: Iterable[ReasoningRow]) -> ReasoningPaces:
        """All that stored rows teach, the oldest first."""
        paces = cls()
        for row in rows:
            seconds = row.silent_ms / 1000
            paces.learn_reasoning(row.model, row.shape, seconds, row.reasoning_tokens, row.seen_ms)
        return paces

    def learn_reasoning(
        self,
        model: str,
        shape: str,
        silent_seconds: float,
        reasoning_tokens: int,
        seen_ms: int = 0,
    ) -> ReasoningRow:
        """Learns one finished call; the row is what to store."""
        name = base_model(model)
        silent_ms = round(_seconds(silent_seconds) * 1000)
        pace = max(0, reasoning_tokens) / (silent_ms / 1000)
        if pace > FASTEST_TOKENS_PER_SECOND:
            return ReasoningRow(name, shape, silent_ms, max(0, reasoning_tokens), seen_ms)
        for key in _keys(model, shape):
            paces = self._paces.setdefault(key, deque(maxlen=PACES))
            paces.append(pace)
            self._paces.move_to_end(key)
        while len(self._paces) > SHAPES:
            self._paces.popitem(last=False)
        return ReasoningRow(name, shape, silent_ms, max(0, reasoning_tokens), seen_ms)

    def hidden_reasoning(self, model: str, shape: str, silent_seconds: float) -> Quantity | None:
        """Tokens thought in so many silent seconds, BOUNDED; None where nothing was learned.

        The ends are quantiles of the paces seen: of n, the floor((n + 1)α/2)-th smallest and the
        ceil((n + 1)(1 - α/2))-th (two-sided split conformal, see residuals.py), outward by `WIDER`
        while n is too small for them. Rounded as the family rounds; never zero.
        """
        paces = self._known(model, shape)
        if not paces:
            return None
        seconds = _seconds(silent_seconds)
        slow, usual, fast = _quantiles(paces)
        step = rounding_of(model)
        best = max(step, round(usual * seconds / step) * step)
        low = min(best, int(slow * seconds) // step * step)
        high = max(best, math.ceil(fast * seconds / step) * step)
        return Quantity(low, best, high, Basis.BOUNDED)

    def _known(self, model: str, shape: str) -> Sequence[float]:
        """The paces of the closest group that was seen often enough, else of the closest."""
        keys = _keys(model, shape)
        least = (SHAPE_SPEAKS, SPEAKS, SPEAKS)
        groups = [list(self._paces.get(key, ())) for key in keys]
        enough = (group for group, few in zip(groups, least, strict=True) if len(group) >= few)
        return next(enough, next((group for group in groups if group), []))


def _keys(model: str, shape: str) -> tuple[_Key, _Key, _Key]:
    """The groups whose paces may speak for a call, the closest first."""
    upstream = upstream_in(shape)
    name = base_model(model)
    return (upstream, name, shape), (upstream, name, None), (upstream, family_of(model).value, None)


def _quantiles(paces: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(paces)
    low_rank = math.floor((len(ordered) + 1) * MISSED / 2)
    high_rank = math.ceil((len(ordered) + 1) * (1 - MISSED / 2))
    slow = ordered[low_rank - 1] if low_rank >= 1 else ordered[0] / WIDER
    fast = ordered[high_rank - 1] if high_rank <= len(ordered) else ordered[-1] * WIDER
    return slow, ordered[len(ordered) // 2], fast


def _seconds(value: float) -> float:
    """A silence as it is used; what is no number of seconds counts as none."""
    return min(max(value, SHORTEST_SECONDS), _WORK_SECONDS) if value == value else SHORTEST_SECONDS
