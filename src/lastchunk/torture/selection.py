"""Which cells are played: `--only` filters, and a seeded sample of what they leave."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum

from lastchunk.errors import SettingsError
from lastchunk.torture.matrix import Cell, Door, Fault, Moment, Store, all_cells, is_applicable
from lastchunk.wire.dialect import Dialect

AXES: dict[str, type[StrEnum]] = {
    "fault": Fault,
    "dialect": Dialect,
    "moment": Moment,
    "door": Door,
    "ledger": Store,
}

Filters = dict[str, frozenset[str]]


def read_filters(only: Sequence[str]) -> Filters:
    """`fault=stall,door=sync` and the like; of one axis any, of several all must fit.

    Raises SettingsError naming the axis or value that does not exist.
    """
    found: dict[str, set[str]] = {}
    for pair in (pair for text in only for pair in text.split(",") if pair.strip()):
        axis, _, value = (part.strip() for part in pair.partition("="))
        if axis not in AXES:
            raise SettingsError(f"--only {pair.strip()}: filter by {', '.join(AXES)}")
        values = [one.value for one in AXES[axis]]
        if value not in values:
            raise SettingsError(f"--only {pair.strip()}: {axis} is one of {', '.join(values)}")
        found.setdefault(axis, set()).add(value)
    return {axis: frozenset(values) for axis, values in found.items()}


def fits(cell: Cell, filters: Filters) -> bool:
    return all(getattr(cell, axis) in values for axis, values in filters.items())


def select(filters: Filters, stores: Sequence[Store], sample: int | None, seed: int) -> list[Cell]:
    """The applicable cells that fit, in order; `sample` draws so many of them from the seed."""
    cells = [
        cell
        for cell in all_cells()
        if cell.ledger in stores and fits(cell, filters) and is_applicable(cell)
    ]
    if sample is None or sample >= len(cells):
        return cells
    drawn = random.Random(f"torture:{seed}").sample(range(len(cells)), sample)
    return [cells[place] for place in sorted(drawn)]
