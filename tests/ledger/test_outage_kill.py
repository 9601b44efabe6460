"""Outages, returns, kills, damage in any order: each acknowledged entry is there exactly once."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from ledger_facts import NOON, Stopwatch, make_settlement
from outages import held, options, until

import lastchunk
from lastchunk.ledger import CallFilter, Ledger, Reader, verify

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {
    "PYTHONPATH": f"{Path(lastchunk.__file__).parents[1]}{os.pathsep}{HERE}",
}


class Workers:
    """Processes that spool, and what they were told was durable."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.said = url, folder / "spool", folder / "said"
        self.alive: list[int] = []
        self.names = 0
        self._program = subprocess.Popen(
            [sys.executable, HERE / "spooling_process.py", url, self.folder, self.said],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def start(self, seconds: float = 60.0) -> None:
        self.names += 1
        self.alive.append(self._ask(f"start w{self.names} {seconds}"))

    def kill(self, pid: int) -> None:
        self.alive.remove(pid)
        os.kill(pid, signal.SIGKILL)
        assert self._ask(f"wait {pid}") == signal.SIGKILL, "it had ended before it was killed"

    def acknowledged(self) -> set[str]:
        return set(self.said.read_text().split()) if self.said.exists() else set()

    def spools(self) -> list[Path]:
        return sorted(self.folder.glob("*.spool"))

    def recover(self) -> None:
        """As the next process to start does."""
        with Ledger.open(self.url, clock=Stopwatch(), spool=options(self.folder)) as ledger:
            for orphan in ledger.orphans(NOON):
                ledger.settle(orphan.call, make_settlement(orphan.call), NOON).result()

    def assert_sound(self, but: int = 0) -> None:
        """All that was acknowledged is in the ledger, once, but for so many damaged entries."""
        assert verify(self.url).discrepancies == ()
        with Reader.open(self.url) as reader:
            rows = list(reader.calls(CallFilter()))
        told = {row.call_id: Counter(entry.kind.value for entry in row.entries) for row in rows}
        assert all(set(kinds.values()) == {1} for kinds in told.values())
        assert all(kinds.keys() == {"reserved", "settled"} for kinds in told.values())
        known = {told_id.lstrip("=") for told_id in self.acknowledged()}
        assert len(known - told.keys()) <= but

    def close(self) -> None:
        for pid in list(self.alive):
            self.kill(pid)
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.close()
        self._program.wait(30)
        self._program.stdout.close()

    def _ask(self, command: str) -> int:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(command + "\n")
        self._program.stdin.flush()
        return int(self._program.stdout.readline())


def test_processes_killed_while_they_spool_lose_nothing(url: str, tmp_path: Path) -> None:
    Ledger.open(url, clock=Stopwatch()).close()
    workers = Workers(url, tmp_path)
    try:
        for _ in range(2):
            workers.start()
        until(lambda: len(workers.acknowledged()) > 50, "calls before the outage")
        with held(url):
            until(lambda: len(workers.spools()) == 2, "both spool")
            many = len(workers.acknowledged()) + 100
            until(lambda: len(workers.acknowledged()) > many, "calls in the outage")
            workers.kill(workers.alive[0])
        until(lambda: len(workers.spools()) == 1, "the living one back")
        workers.kill(workers.alive[0])
        workers.recover()
        assert workers.spools() == []
        workers.assert_sound()
    finally:
        workers.close()


class OutageMachine(RuleBasedStateMachine):
    """Real processes, real kills; the model is what they were told was durable."""

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.url = str(folder / "ledger.db")
        Ledger.open(self.url, clock=Stopwatch()).close()
        self.workers = Workers(self.url, folder)
        self.outage: ExitStack | None = None
        self.damaged = 0

    @precondition(lambda self: len(self.workers.alive) < 3)
    @rule()
    def start(self) -> None:
        self.workers.start()

    @precondition(lambda self: self.workers.alive)
    @rule(which=st.integers(0, 2), after=st.floats(0.0, 0.3))
    def kill(self, which: int, after: float) -> None:
        time.sleep(after)
        self.workers.kill(self.workers.alive[which % len(self.workers.alive)])

    @precondition(lambda self: self.outage is None)
    @rule(seconds=st.floats(0.1, 0.6))
    def go_away(self, seconds: float) -> None:
        self.outage = ExitStack()
        self.outage.enter_context(held(self.url))
        time.sleep(seconds)

    @precondition(lambda self: self.outage is not None)
    @rule(seconds=st.floats(0.0, 0.4))
    def come_back(self, seconds: float) -> None:
        assert self.outage is not None
        self.outage.close()
        self.outage = None
        time.sleep(seconds)

    @precondition(lambda self: not self.workers.alive and self.workers.spools())
    @rule(at=st.floats(0.0, 1.0, exclude_max=True))
    def damage(self, at: float) -> None:
        """One byte of a dead process's spool; of its entries, not of its head."""
        path = self.workers.spools()[0]
        data = bytearray(path.read_bytes())
        first = data.index(b"\n", data.index(b"\n") + 1) + 1
        if first < len(data):
            data[first + int(at * (len(data) - first))] ^= 0x10
            path.write_bytes(data)
            self.damaged += 1

    def teardown(self) -> None:
        if not hasattr(self, "workers"):
            return
        try:
            if self.outage is not None:
                self.outage.close()
            for pid in list(self.workers.alive):
                self.workers.kill(pid)
            self.workers.recover()
            assert self.workers.spools() == []
            self.workers.assert_sound(but=self.damaged)
        finally:
            self.workers.close()
            self.stack.close()


TestOutageMachine = OutageMachine.TestCase
TestOutageMachine.settings = settings(
    max_examples=60 if os.environ.get("LASTCHUNK_TEST_ALL") else 3, stateful_step_count=10
)
