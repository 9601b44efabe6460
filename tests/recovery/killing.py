"""One test's ledger and workers, and what must hold of them."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lastchunk import Ending, Settlement
from lastchunk.ledger import CallRecord
from lastchunk.simulator import Simulator
from lastchunk.torture.killing import (
    ENVIRONMENT,
    Workers,
    complaints,
    outside,
    recovered,
    rows_of,
)

__all__ = ["ALL", "ENVIRONMENT", "PATIENCE_SECONDS", "Place", "lost", "until"]

ALL = bool(os.environ.get("LASTCHUNK_TEST_ALL"))
PATIENCE_SECONDS = 30.0


def until(holds: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.01)
    return found


@dataclass
class Place:
    """One test's ledger, simulator and workers."""

    sim: Simulator
    folder: Path
    workers: Workers | None = field(default=None)

    @property
    def ledger(self) -> str:
        return str(self.folder / "ledger.db")

    def delivered(self) -> list[str]:
        """Ids of the calls of which a byte arrived."""
        return self._workers().delivered()

    def ask(self, command: str) -> int:
        """Have the workers' program do something; its answer."""
        return self._workers().ask(command)

    def said(self) -> str:
        return self._workers().said()

    def kill(self, pid: int) -> None:
        assert self._workers().kill(pid), "it had ended before it was killed"

    def close(self) -> None:
        if self.workers is not None:
            self.workers.close()

    def recover(self) -> list[Settlement]:
        return recovered(self.ledger)

    def rows(self) -> list[CallRecord]:
        return rows_of(self.ledger)

    def assert_sound(self, delivered: list[str] | None = None) -> list[CallRecord]:
        """Each call of which a byte was delivered has exactly one row, resolved exactly once."""
        rows = self.rows()
        told = self.delivered() if delivered is None else delivered
        found = complaints(self.ledger, rows, told)
        assert not found, "; ".join(found)
        return rows

    def assert_truthful(self, rows: list[CallRecord]) -> int:
        """Of each call that had been written down on its way, the truth is in the interval."""
        compared, missed = outside(rows, self.sim.bill(wait_s=10))
        truths = {call.response_id: call.output_tokens for call in self.sim.bill(wait_s=0)}
        assert not missed, "; ".join(_missed(row, truths) for row in missed)
        return compared

    def _workers(self) -> Workers:
        if self.workers is None:
            self.workers = Workers(self.sim.base_url, self.ledger, self.folder)
        return self.workers


def _missed(row: CallRecord, truths: dict[str | None, int]) -> str:
    assert row.settlement is not None
    told, seen = row.settlement.usage.output_tokens, row.settlement.observation
    return f"{row.settlement.ending}: {truths[seen.response_id]} is not in {told}, seen {seen}"


def lost(rows: list[CallRecord]) -> list[CallRecord]:
    return [row for row in rows if row.settlement and row.settlement.ending == Ending.LOST]
