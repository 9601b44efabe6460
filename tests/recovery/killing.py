"""Processes that are killed, and what the ledger says of their calls afterwards."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import lastchunk
from lastchunk import Ending, Settlement
from lastchunk.clock import SystemClock
from lastchunk.ledger import CallFilter, CallRecord, Ledger, Reader, verify
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover
from lastchunk.simulator import BilledCall, Simulator

ALL = bool(os.environ.get("LASTCHUNK_TEST_ALL"))
PATIENCE_SECONDS = 30.0
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(lastchunk.__file__).parents[1])}


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
    workers: subprocess.Popen[str] | None = field(default=None)

    @property
    def ledger(self) -> str:
        return str(self.folder / "ledger.db")

    @property
    def log(self) -> Path:
        return self.folder / "delivered"

    def delivered(self) -> list[str]:
        """Ids of the calls of which a byte arrived."""
        return self.log.read_text().split() if self.log.exists() else []

    def ask(self, command: str) -> int:
        """Have the workers' program do something; its answer."""
        if self.workers is None:
            with (self.folder / "said").open("w") as said:
                self._start(said)
        assert self.workers is not None
        assert self.workers.stdin is not None
        assert self.workers.stdout is not None
        self.workers.stdin.write(command + "\n")
        self.workers.stdin.flush()
        return int(self.workers.stdout.readline())

    def _start(self, said: IO[str]) -> None:
        program = str(Path(__file__).with_name("workers.py"))
        self.workers = subprocess.Popen(
            [sys.executable, program, self.sim.base_url, self.ledger, str(self.log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=ENVIRONMENT,
        )

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        assert self.ask(f"wait {pid}") == signal.SIGKILL, "it had ended before it was killed"

    def close(self) -> None:
        if self.workers is not None:
            assert self.workers.stdin is not None
            assert self.workers.stdout is not None
            self.workers.stdin.close()
            self.workers.wait(PATIENCE_SECONDS)
            self.workers.stdout.close()

    def recover(self) -> list[Settlement]:
        clock = SystemClock()
        with Ledger.open(self.ledger, clock=clock) as ledger:
            return list(recover(ledger, PriceBook.load(None), clock))

    def rows(self) -> list[CallRecord]:
        with Reader.open(self.ledger) as reader:
            return list(reader.calls(CallFilter(), newest_first=False))

    def assert_sound(self) -> list[CallRecord]:
        """Each call of which a byte was delivered has exactly one row, resolved exactly once."""
        rows = self.rows()
        for row in rows:
            kinds = [entry.kind.value for entry in row.entries]
            assert kinds in (["reserved", "settled"], ["reserved", "released"]), row
        ids = [row.call_id for row in rows]
        assert len(ids) == len(set(ids))
        delivered = self.delivered()
        assert len(delivered) == len(set(delivered))
        assert set(delivered) <= set(ids)
        settled = {row.call_id for row in rows if not _released(row)}
        assert set(delivered) <= settled
        assert verify(self.ledger).is_clean
        return rows

    def assert_truthful(self, rows: list[CallRecord]) -> int:
        """Of each call that had been written down on its way, the truth is in the interval."""
        billed = {call.response_id: call for call in self.sim.bill(wait_s=10)}
        compared = 0
        for row in rows:
            assert row.settlement is not None
            provider = billed.get(row.settlement.observation.response_id)
            if provider is not None and row.settlement.observation.response_id is not None:
                compared += 1
                _assert_within(row.settlement, provider)
        return compared


def lost(rows: list[CallRecord]) -> list[CallRecord]:
    return [row for row in rows if row.settlement and row.settlement.ending == Ending.LOST]


def _released(row: CallRecord) -> bool:
    return row.settlement is not None and row.settlement.nothing_used


def _assert_within(settlement: Settlement, billed: BilledCall) -> None:
    told = settlement.usage.output_tokens
    assert told is not None
    assert told.low <= billed.output_tokens <= told.high, (settlement, billed.output_tokens)
