"""Several real processes on one ledger: writing at once, killed at any moment, forked."""

import gc
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ledger_facts import NOON, Stopwatch, make_call, make_settlement

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import CallFilter, Ledger, Reader, verify

SCRIPT = str(Path(__file__).parent / "writing_process.py")


def start(url: str, name: str, count: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, SCRIPT, url, name, str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_processes_that_open_a_new_ledger_at_once_all_write_into_it(url: str) -> None:
    children = [start(url, f"p{number}", 60) for number in range(4)]
    outputs = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0] * 4, outputs
    found = verify(url)
    assert found.discrepancies == ()
    assert (found.calls, found.entries) == (240, 480)


def test_what_was_done_before_a_kill_is_in_the_ledger(url: str, clock: Stopwatch) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    with Ledger.open(url, clock=clock):
        pass  # the schema is there: what is killed below is writing, not migrating
    promised: set[str] = set()
    for number in range(5):
        child = start(url, f"k{number}", 100_000)
        assert child.stdout is not None
        assert child.stderr is not None
        promised.add(child.stdout.readline().decode().strip())
        time.sleep(chance.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        promised.update(line.decode().strip() for line in child.stdout if line.endswith(b"\n"))
        child.wait()
        child.stdout.close()
        child.stderr.close()
    assert verify(url).discrepancies == (), f"seed {seed}"
    with Reader.open(url) as reader:
        records = {record.call_id: record for record in reader.calls()}
        missing = [line for line in promised if line.lstrip("=") not in records]
        unsettled = [line for line in promised if line[0] == "=" and records[line[1:]].is_open]
        left_open = {record.call_id for record in reader.calls(CallFilter(open_only=True))}
    assert (missing, unsettled) == ([], []), f"seed {seed}"
    with Ledger.open(url, clock=clock) as ledger:
        assert {orphan.call.call_id for orphan in ledger.orphans(NOON)} == left_open


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_cannot_use_its_parents_ledger_but_opens_its_own(
    url: str, ledger: Ledger, reader: Reader, clock: Stopwatch
) -> None:
    call = make_call()
    ledger.reserve(call).result()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            refused = ledger.reserve(make_call()).exception(5)
            assert ledger.is_forked
            assert isinstance(refused, LedgerUnavailable)
            assert "open it in the child" in str(refused)
            with pytest.raises(LedgerUnavailable):
                ledger.orphans(NOON)
            ledger.close()
            ledger._store = ledger._writer = None  # type: ignore[assignment]
            gc.collect()  # nothing of the parent's is closed in here
            with Ledger.open(url, clock=clock) as own:
                assert own.process_id != ledger.process_id
                mine = make_call("call_of_the_child")
                own.reserve(mine)
                assert own.settle(mine, make_settlement(mine), NOON).result(30)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert not ledger.is_forked
    assert ledger.settle(call, make_settlement(call), NOON).result(30)
    assert {record.call_id for record in reader.calls()} == {call.call_id, "call_of_the_child"}
