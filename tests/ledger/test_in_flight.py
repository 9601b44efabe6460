"""Who is dead: as a table, and with real processes."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_facts import NOON, Stopwatch, disarm, execute, make_call, make_settlement

from lastchunk.errors import EntryConflict
from lastchunk.ledger import Ledger, Orphan, Reader, verify
from lastchunk.ledger.in_flight import (
    SILENT_MS,
    Process,
    is_dead,
    runs_here,
    start_ticks_of,
    this_process,
)
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation

HERE = Process("proc_here", "box", "m1", "boot1", "pid:[1]", 10, 100, NOON, NOON)
LATE = NOON + SILENT_MS + 1
DAYS_OFF = NOON - 10**9

# what differs from HERE · the time · whether the pid is found running → dead?
CASES = {
    "running": ({}, NOON, True, False),
    "gone": ({}, NOON, False, True),
    "gone, and it has just beaten": ({"beat_ms": NOON}, NOON, False, True),
    "running, silent for days": ({}, NOON + 10**9, True, False),
    "running, the clock was set back": ({}, DAYS_OFF, True, False),
    "running, but signed out": ({"ended_ms": NOON}, NOON, True, True),
    "signed out on another host": ({"host": "other", "ended_ms": NOON}, NOON, True, True),
    "an earlier boot": ({"boot_id": "boot0"}, NOON, True, True),
    "an earlier boot, its beats ahead of the clock": ({"boot_id": "boot0"}, DAYS_OFF, True, True),
    "another host, beating": ({"host": "other"}, NOON + SILENT_MS, False, False),
    "another host, silent": ({"host": "other"}, LATE, True, True),
    "another host of the same name, beating": (
        {"machine_id": "m2", "boot_id": "boot2"},
        NOON,
        False,
        False,
    ),
    "another container, beating": ({"pid_space": "pid:[2]"}, NOON, False, False),
    "another container, silent": ({"pid_space": "pid:[2]"}, LATE, True, True),
    "another boot, no machine id to tell hosts apart": (
        {"boot_id": "boot2", "machine_id": "m2"},
        NOON,
        False,
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_process_is_dead_only_where_that_is_certain(case: str) -> None:
    changes, now_ms, running, dead = CASES[case]
    process = replace(HERE, process_id="proc_other", **changes)
    assert is_dead(process, HERE, now_ms, lambda _: running) is dead


def test_without_a_boot_id_a_pid_that_is_gone_must_be_silent_too() -> None:
    here = replace(HERE, boot_id="", pid_space="", machine_id="")
    other = replace(here, process_id="proc_other")
    assert not is_dead(other, here, NOON, lambda _: False)
    assert is_dead(other, here, LATE, lambda _: False)
    assert not is_dead(other, here, LATE, lambda _: True)


def test_this_process_runs_and_an_earlier_one_with_its_number_does_not() -> None:
    here = this_process("proc_1", NOON)
    assert runs_here(here)
    assert here.start_ticks is not None
    assert not runs_here(replace(here, start_ticks=here.start_ticks - 1))


def test_a_process_that_was_killed_but_not_yet_waited_for_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = replace(HERE, pid=child.pid, start_ticks=start_ticks_of(child.pid))
    assert runs_here(process)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the process table
    assert not runs_here(process)
    child.wait()
    assert not runs_here(process)


_CRASHING = """
import os, sys
sys.path.insert(0, {here!r})
from ledger_facts import Stopwatch, make_call, make_settlement, NOON
from lastchunk.ledger import Ledger
from lastchunk.meter.observation import Observation
ledger = Ledger.open({url!r}, clock=Stopwatch())
calls = [make_call(f"call_crash_{{n}}") for n in range(3)]
for call in calls:
    ledger.reserve(call)
ledger.settle(calls[0], make_settlement(calls[0]), NOON)
ledger.checkpoint([(calls[1].call_id, Observation(frames=5, status=200))]).result()
{last}
"""


def run_and_end(url: str, last: str) -> None:
    script = _CRASHING.format(url=url, here=str(Path(__file__).parent), last=last)
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60)


ORPHANS = [
    Orphan(make_call("call_crash_1"), Observation(frames=5, status=200)),
    Orphan(make_call("call_crash_2"), None),
]


def test_a_killed_process_leaves_orphans_with_what_it_saw(
    url: str, ledger: Ledger, reader: Reader
) -> None:
    run_and_end(url, "os.kill(os.getpid(), 9)")
    assert ledger.orphans(NOON) == ORPHANS
    for orphan in ORPHANS:
        lost = make_settlement(orphan.call, ending=Ending.LOST)
        assert ledger.settle(orphan.call, lost, NOON).result()
    assert ledger.orphans(NOON) == []
    assert reader.balance("team").calls_open == 0


def test_a_process_that_closed_with_open_calls_leaves_orphans(url: str, ledger: Ledger) -> None:
    run_and_end(url, "ledger.close()")
    assert ledger.orphans(NOON) == ORPHANS


def test_the_open_calls_of_the_living_are_nobodys_orphans(
    url: str, ledger: Ledger, clock: Stopwatch
) -> None:
    ledger.reserve(make_call()).result()
    with Ledger.open(url, clock=clock) as second:
        second.reserve(make_call()).result()
        assert ledger.orphans(NOON + 10**10) == second.orphans(NOON - 10**10) == []
    assert len(ledger.orphans(NOON)) == 1  # the second has signed out


def test_an_orphan_that_cannot_be_read_does_not_keep_the_others_from_recovery(
    url: str, clock: Stopwatch
) -> None:
    with Ledger.open(url, clock=clock) as ledger:
        for name in ("a", "b", "c"):
            ledger.reserve(make_call(f"call_{name}"))
        ledger.checkpoint([("call_b", Observation()), ("call_c", Observation(frames=1))])
    disarm(url)
    execute(
        url,
        "UPDATE entries SET detail = '{}' WHERE call_id = 'call_a'",
        "UPDATE in_flight SET seen = '[]' WHERE call_id = 'call_b'",
    )
    with Ledger.open(url, clock=clock) as ledger:
        assert ledger.orphans(NOON) == [
            Orphan(make_call("call_b"), None),
            Orphan(make_call("call_c"), Observation(frames=1)),
        ]


def test_a_beat_keeps_a_process_on_another_host_alive(
    url: str, ledger: Ledger, clock: Stopwatch
) -> None:
    with Ledger.open(url, clock=clock) as far:
        far.reserve(make_call()).result()
        execute(url, f"UPDATE processes SET host = 'far' WHERE process_id = '{far.process_id}'")
        assert ledger.orphans(NOON + SILENT_MS) == []
        assert len(ledger.orphans(LATE)) == 1
        clock.now = LATE
        far.beat().result()
        assert ledger.orphans(LATE) == []


def test_two_recoverers_at_once_leave_one_resolution_each(url: str, clock: Stopwatch) -> None:
    with Ledger.open(url, clock=clock) as crashed:
        calls = [make_call() for _ in range(300)]
        for call in calls:
            crashed.reserve(call)
    with Ledger.open(url, clock=clock) as one, Ledger.open(url, clock=clock) as other:
        found = one.orphans(NOON), other.orphans(NOON)
        assert [len(orphans) for orphans in found] == [300, 300]
        futures = []
        pairs = zip(found[0], reversed(found[1]), strict=True)
        for number, (mine, theirs) in enumerate(pairs):
            for recoverer, orphan in ((one, mine), (other, theirs)):
                # Half say the same, half differ by what each believes.
                cost = 7 if number % 2 else 7 + (recoverer is one)
                lost = make_settlement(orphan.call, cost, ending=Ending.LOST)
                futures.append(recoverer.settle(orphan.call, lost, NOON))
        errors = [future.exception() for future in futures]
        assert all(error is None or isinstance(error, EntryConflict) for error in errors)
        assert sum(future.exception() is None and future.result() for future in futures) == 300
    assert verify(url).discrepancies == ()
