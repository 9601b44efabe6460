"""Hidden reasoning of a cut call, from how fast this model reasoned in finished calls."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lastchunk.settlement.residuals import MISSED
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

SHORTEST_SECONDS = 0.05
"""A silence shorter than this is network, not thought; it is taken for that long."""

_STEPS = {Family.O_SERIES: 64, Family.GPT_5: 64}
"""Families that round reasoning down to a multiple (299 of 299 recordings); others are exact."""

_SILENT = ("o1", "o3", "o4", "gpt-5")

_WORK_SECONDS = 3600 * 24


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


class ReasoningPaces:
    """Tokens a second of silence, by model and shape. Pure, bounded, without content.

    The silence of a call is the time from its start to its first token. `shape` is any name of
    what changes how much is thought, the asked effort first of all; empty where none is known.
    """

    def __init__(self) -> None:
        self._paces: OrderedDict[tuple[str, str | None], deque[float]] = OrderedDict()

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
        for key in ((name, shape), (name, None), (family_of(model).value, None)):
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
        step = _STEPS.get(family_of(model), 1)
        best = max(step, round(usual * seconds / step) * step)
        low = min(best, int(slow * seconds) // step * step)
        high = max(best, math.ceil(fast * seconds / step) * step)
        return Quantity(low, best, high, Basis.BOUNDED)

    def _known(self, model: str, shape: str) -> Sequence[float]:
        """The paces of the closest group that was seen often enough, else of the closest."""
        name = base_model(model)
        keys = ((name, shape), (name, None), (family_of(model).value, None))
        least = (SHAPE_SPEAKS, SPEAKS, SPEAKS)
        groups = [list(self._paces.get(key, ())) for key in keys]
        enough = (group for group, few in zip(groups, least, strict=True) if len(group) >= few)
        return next(enough, next((group for group in groups if group), []))


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
