"""kill -9 at random moments under load: no call that was served is missing, and none is twice."""

import os
import random
import signal
import time

import pytest
from killing import ALL, Place, lost, until

from lastchunk import Ending, recovery
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover

SEED = int(os.environ.get("LASTCHUNK_SEED", "20"))
ROUNDS = 40 if ALL else 4
AT_ONCE = 4
LIFE_SECONDS = 120


def test_killed_processes_leave_each_served_call_with_one_row(place: Place) -> None:
    print(f"LASTCHUNK_SEED={SEED}")
    rng = random.Random(SEED)
    for round_ in range(ROUNDS):
        before = len(place.delivered())
        pids = [
            place.ask(f"load {SEED + 100 * round_ + number} {LIFE_SECONDS}")
            for number in range(AT_ONCE)
        ]
        until(lambda: len(place.delivered()) > before, "a first byte")  # noqa: B023
        for pid in pids:
            time.sleep(rng.uniform(0, 0.7))
            place.kill(pid)
    recovered = place.recover()
    rows = place.assert_sound()
    assert {settlement.call_id for settlement in recovered} <= {r.call_id for r in lost(rows)}
    assert len({row.process_id for row in lost(rows)}) >= ROUNDS * 2, "hardly one was hit"
    assert len(place.delivered()) > ROUNDS * AT_ONCE
    seen = [r for r in lost(rows) if r.settlement and r.settlement.observation.bytes]
    assert seen, "no killed call had been written down on its way"
    assert place.assert_truthful(rows) > len(seen)


def test_recovering_again_or_at_once_from_several_processes_changes_nothing(place: Place) -> None:
    pids = [place.ask(f"load {number} {LIFE_SECONDS}") for number in range(2)]
    until(lambda: len(place.delivered()) > 10, "some calls")
    for pid in pids:
        place.kill(pid)
    open_before = [row.call_id for row in place.rows() if row.is_open]
    assert open_before
    recovering = [place.ask("recover") for _ in range(3)]
    assert [place.ask(f"wait {pid}") for pid in recovering] == [0, 0, 0]
    rows = place.assert_sound()
    assert {row.call_id for row in lost(rows)} == set(open_before)
    assert place.said() == "", "that another process was quicker is nobody's trouble"
    assert place.recover() == []
    assert place.rows() == rows


def test_who_recovers_second_finds_nothing_to_do_and_nothing_to_complain_about(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "AT_ONCE", 1)
    pid = place.ask(f"load 1 {LIFE_SECONDS}")
    until(lambda: len(place.delivered()) > 6, "some calls")
    place.kill(pid)
    clock, book = SystemClock(), PriceBook.load(None)
    with (
        Ledger.open(place.ledger, clock=clock) as one,
        Ledger.open(place.ledger, clock=clock) as two,
    ):
        first = recover(one, book, clock)
        settled = [next(first)]  # it knows of all others by now
        others = list(recover(two, book, clock))
        assert others
        assert list(first) == []
    assert {row.call_id for row in lost(place.assert_sound())} == {
        settlement.call_id for settlement in settled + others
    }
    assert caplog.text == ""


def test_calls_of_a_living_process_are_left_to_it(place: Place) -> None:
    living = place.ask(f"load 1 {LIFE_SECONDS}")
    until(lambda: len(place.delivered()) > 5, "the living one's calls")
    killed = place.ask(f"load 2 {LIFE_SECONDS}")
    until(lambda: len({row.process_id for row in place.rows() if row.is_open}) > 1, "both's calls")
    place.kill(killed)
    place.recover()  # unless the living one was quicker
    processes = {row.process_id for row in lost(place.rows())}
    assert len(processes) == 1
    of_living = [row for row in place.rows() if row.process_id not in processes]
    assert any(row.is_open for row in of_living)
    os.kill(living, signal.SIGTERM)
    assert place.ask(f"wait {living}") == 0
    rows = place.assert_sound()
    assert {row.process_id for row in lost(rows)} == processes


def test_the_next_process_recovers_by_itself_when_it_starts(place: Place) -> None:
    first = place.ask(f"load 1 {LIFE_SECONDS}")
    until(lambda: len(place.delivered()) > 5, "some calls")
    place.kill(first)
    left = {row.call_id for row in place.rows() if row.is_open}
    second = place.ask(f"load 2 {LIFE_SECONDS}")
    before = len(place.delivered())
    until(lambda: len(place.delivered()) > before, "the second one's calls")
    assert {row.call_id for row in lost(place.rows())} == left
    os.kill(second, signal.SIGTERM)
    assert place.ask(f"wait {second}") == 0
    place.assert_sound()


def test_a_process_that_ends_in_an_orderly_way_leaves_nothing_to_recover(place: Place) -> None:
    pid = place.ask(f"load 1 {LIFE_SECONDS}")
    until(lambda: len(place.delivered()) > 20, "some calls")
    os.kill(pid, signal.SIGTERM)
    assert place.ask(f"wait {pid}") == 0
    assert place.recover() == []
    rows = place.assert_sound()
    assert lost(rows) == []
    assert {row.settlement.ending for row in rows if row.settlement} >= {Ending.CALLER_LEFT}
