"""What a run of the matrix has shown, before anybody decides how it looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import msgspec

from lastchunk.torture.judge import Promise, Verdict
from lastchunk.torture.matrix import Cell, Door, Fault, Moment, Store, all_cells, expected
from lastchunk.torture.selection import Filters, fits
from lastchunk.wire.dialect import Dialect


class Mark(StrEnum):
    """One cell in one character."""

    HELD = "✓"
    BROKEN = "✗"
    NOT_APPLICABLE = "·"
    NOT_PLAYED = " "


@dataclass(frozen=True)
class Result:
    """A run. `stores` are the ledgers that were played on; `left_out` says why one was not."""

    seed: int
    calls: int
    filters: Filters
    sample: int | None
    stores: tuple[Store, ...]
    left_out: str | None
    verdicts: tuple[Verdict, ...]
    seconds: float
    finished: str
    """When it was over, UTC, as people read it."""

    @property
    def broken(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if not verdict.held]

    def mark(self, cell: Cell) -> Mark:
        if isinstance(expected(cell), str):
            return Mark.NOT_APPLICABLE
        held = self._held.get(cell)
        return Mark.NOT_PLAYED if held is None else Mark.HELD if held else Mark.BROKEN

    def marks(self, door: Door, fault: Fault, moment: Moment) -> list[list[tuple[Cell, Mark]]]:
        """For each ledger the marks of each dialect, in the order of their tables."""
        cells = [
            [Cell(fault, dialect, moment, door, store) for dialect in Dialect]
            for store in self.stores
        ]
        return [[(cell, self.mark(cell)) for cell in each] for each in cells]

    def doors(self) -> list[Door]:
        played = {verdict.cell.door for verdict in self.verdicts}
        return [door for door in Door if door in played]

    def promises(self) -> list[tuple[Promise, int]]:
        """Each promise, and in how many cells it was broken."""
        return [
            (
                promise,
                sum(any(b.promise is promise for b in v.broken) for v in self.verdicts),
            )
            for promise in Promise
        ]

    def not_applicable(self) -> dict[str, int]:
        """Why cells do not exist, and how many do not for that reason."""
        reasons: dict[str, int] = {}
        for cell in all_cells():
            reason = expected(cell)
            if isinstance(reason, str) and cell.ledger in self.stores and fits(cell, self.filters):
                reasons[reason] = reasons.get(reason, 0) + 1
        return reasons

    def replay(self, cell: Cell) -> str:
        """The command that plays one cell again."""
        postgres = " --postgres URL" if cell.ledger is Store.POSTGRESQL else ""
        return (
            f"lastchunk torture --only {cell.selector} --seed {self.seed}"
            f" --calls {self.calls}{postgres}"
        )

    @cached_property
    def _held(self) -> dict[Cell, bool]:
        return {verdict.cell: verdict.held for verdict in self.verdicts}


def as_json(result: Result) -> str:
    """The whole run, one object a cell; those that do not exist with their reason."""
    document = {
        "seed": result.seed,
        "calls_per_cell": result.calls,
        "ledgers": [store.value for store in result.stores],
        "left_out": result.left_out,
        "sample": result.sample,
        "finished": result.finished,
        "seconds": round(result.seconds, 1),
        "cells_played": len(result.verdicts),
        "cells_broken": len(result.broken),
        "broken_by_promise": {promise.value: number for promise, number in result.promises()},
        "cells": [_played(result, verdict) for verdict in result.verdicts],
        "not_applicable": list(_not_applicable(result)),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _played(result: Result, verdict: Verdict) -> dict[str, object]:
    outcomes = expected(verdict.cell)
    assert not isinstance(outcomes, str)
    broken: Sequence[object] = [
        {
            "promise": one.promise.value,
            "call": one.call,
            "expected": one.expected,
            "found": one.found,
        }
        for one in verdict.broken
    ]
    return {
        **_axes(verdict.cell),
        "held": verdict.held,
        "calls": verdict.calls,
        "endings": verdict.endings,
        "expected": [
            {"ending": ending.value, "basis_at_least": basis.name.lower()}
            for ending, basis in outcomes
        ],
        "broken": broken,
        "replay": result.replay(verdict.cell),
    }


def _not_applicable(result: Result) -> Iterator[dict[str, str]]:
    for cell in all_cells():
        reason = expected(cell)
        if isinstance(reason, str) and cell.ledger in result.stores and fits(cell, result.filters):
            yield _axes(cell) | {"reason": reason}


def _axes(cell: Cell) -> dict[str, str]:
    return {
        "fault": cell.fault.value,
        "dialect": cell.dialect.value,
        "moment": cell.moment.value,
        "door": cell.door.value,
        "ledger": cell.ledger.value,
    }
