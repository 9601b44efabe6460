"""Workers that are killed, and what the ledger says of their calls afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import lastchunk
from lastchunk.clock import SystemClock
from lastchunk.ledger import CallFilter, CallRecord, Ledger, Reader, verify
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover
from lastchunk.settlement.facts import Settlement
from lastchunk.simulator import BilledCall

END_SECONDS = 30.0
NAMED = 5
"""How many calls one complaint names."""

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(lastchunk.__file__).parents[1])}


class Workers:
    """The program that forks workers, and the notes that they leave in a folder."""

    def __init__(self, base_url: str, ledger: str, folder: Path) -> None:
        self._log, self._said = folder / "delivered", folder / "said"
        with self._said.open("w") as said:
            self._program = subprocess.Popen(
                [sys.executable, "-m", "lastchunk.torture.load", base_url, ledger, str(self._log)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env=ENVIRONMENT,
            )

    def ask(self, command: str) -> int:
        """Have the program do something (see `load`); its answer, as a rule a pid."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(command + "\n")
        self._program.stdin.flush()
        return int(self._program.stdout.readline())

    def kill(self, pid: int) -> bool:
        """SIGKILL a worker. False: it had ended before."""
        os.kill(pid, signal.SIGKILL)
        return self.ask(f"wait {pid}") == signal.SIGKILL

    def delivered(self) -> list[str]:
        """Ids of the calls of which a byte arrived."""
        return self._log.read_text().split() if self._log.exists() else []

    def progress(self) -> int:
        """Grows with each call of which a byte arrived."""
        return self._log.stat().st_size if self._log.exists() else 0

    def said(self) -> str:
        """What workers wrote to stderr."""
        return self._said.read_text()

    def close(self) -> None:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.close()
        self._program.wait(END_SECONDS)
        self._program.stdout.close()


def recovered(ledger: str) -> list[Settlement]:
    """What `lastchunk recover` settles."""
    clock = SystemClock()
    with Ledger.open(ledger, clock=clock) as opened:
        return list(recover(opened, PriceBook.load(None), clock))


def rows_of(ledger: str) -> list[CallRecord]:
    with Reader.open(ledger) as reader:
        return list(reader.calls(CallFilter(), newest_first=False))


def complaints(ledger: str, rows: Sequence[CallRecord], delivered: Sequence[str]) -> list[str]:
    """What does not hold: each call of which a byte was delivered has one row, resolved once."""
    kinds = {row.call_id: [entry.kind.value for entry in row.entries] for row in rows}
    resolved = {call_id for call_id, each in kinds.items() if is_resolved_once(each)}
    settled = {call_id for call_id in resolved if "settled" in kinds[call_id]}
    twice = (
        call_id for call_id, count in Counter(row.call_id for row in rows).items() if count > 1
    )
    clashing = (call_id for call_id, count in Counter(delivered).items() if count > 1)
    found = {
        "delivered, and no row": sorted(set(delivered) - set(kinds)),
        "delivered, and not settled": sorted(set(delivered) & set(kinds) - settled),
        "not resolved exactly once": sorted(set(kinds) - resolved),
        "two rows": list(twice),
        "one id for two calls": list(clashing),
    }
    told = [complaint(what, ids) for what, ids in found.items() if ids]
    verification = verify(ledger)
    if not verification.is_clean:
        told.append(f"verify: {verification.found} discrepancies")
    return told


def is_resolved_once(kinds: Sequence[str]) -> bool:
    """Reserved and resolved, and after that only corrected: where a spool knew better."""
    if kinds[:1] != ["reserved"] or len(kinds) < 2:
        return False
    later = kinds[2:]
    return kinds[1] in ("settled", "released") and all(kind == "corrected" for kind in later)


def outside(rows: Iterable[CallRecord], bill: Iterable[BilledCall]) -> tuple[int, list[CallRecord]]:
    """How many rows name their answer, and those of them whose interval misses the true output."""
    billed = {call.response_id: call for call in bill if call.response_id is not None}
    compared, missed = 0, []
    for row in rows:
        if row.settlement is None or row.settlement.nothing_used:
            continue
        truth = billed.get(row.settlement.observation.response_id or "")
        told = row.settlement.usage.output_tokens
        if truth is None or told is None:
            continue
        compared += 1
        if not told.low <= truth.output_tokens <= told.high:
            missed.append(row)
    return compared, missed


def complaint(what: str, ids: Sequence[str]) -> str:
    """One line: how many calls, and the first few of them."""
    named = ", ".join(ids[:NAMED]) + (", …" if len(ids) > NAMED else "")
    return f"{len(ids)} calls {what}: {named}"
