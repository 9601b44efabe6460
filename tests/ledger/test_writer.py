"""The writer thread alone, over a store that does what the test says."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from ledger_facts import make_call
from sqlalchemy.exc import IntegrityError, OperationalError

from lastchunk.errors import LedgerError, LedgerUnavailable
from lastchunk.ledger import writer as writer_module
from lastchunk.ledger.entries import reserved_entry
from lastchunk.ledger.in_flight import this_process
from lastchunk.ledger.plan import Failed, Heartbeat, Item, Reservation
from lastchunk.ledger.writer import MAX_BATCH, Writer


class FakeStore:
    """Writes into a list; `before` may wait or raise."""

    def __init__(self, before: Callable[[Sequence[Item]], None] = lambda items: None) -> None:
        self.before = before
        self.batches: list[int] = []
        self.resets = 0

    def write(self, items: Sequence[Item]) -> list[Any]:
        self.before(items)
        self.batches.append(len(items))
        return [f"wrote {beat.beat_ms}" if isinstance(beat, Heartbeat) else None for beat in items]

    def reset(self) -> None:
        self.resets += 1


def beat(number: int) -> Heartbeat:
    return Heartbeat(this_process("proc", 0), number)


def reservation() -> Reservation:
    return Reservation(reserved_entry(make_call(), "proc"), ())


def busy(error_type: type[Exception] = OperationalError) -> Exception:
    return error_type("INSERT", {}, Exception("database is locked"))


class Gate:
    """Holds the writer inside its first batch until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[Item]) -> None:
        self.reached.set()
        assert self.opened.wait(10)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.001)


def test_what_waits_is_written_together_and_in_order() -> None:
    gate = Gate()
    store = FakeStore(gate)
    writer = Writer(store, "here")
    first = writer.submit(beat(0))
    gate.reached.wait(10)
    rest = [writer.submit(beat(number)) for number in range(1, MAX_BATCH + 11)]
    gate.opened.set()
    assert first.result() == "wrote 0"
    assert [future.result() for future in rest] == [f"wrote {n + 1}" for n in range(len(rest))]
    assert writer.close(10)
    assert store.batches == [1, MAX_BATCH, 10]


def test_what_nobody_waits_for_waits_for_company_and_goes_with_a_reservation_or_the_end() -> None:
    store = FakeStore()
    writer = Writer(store, "here", gather_seconds=600)
    patient = [writer.submit(beat(number)) for number in range(3)]
    assert not any(future.done() for future in patient)
    assert writer.submit(reservation()).result(10) is None
    assert [future.result() for future in patient] == ["wrote 0", "wrote 1", "wrote 2"]
    assert store.batches == [4]
    last = writer.submit(beat(3))
    assert writer.close(10)
    assert last.result() == "wrote 3"
    assert store.batches == [4, 1]


def test_a_full_batch_and_one_whose_time_is_over_are_written_though_nobody_waits() -> None:
    gathering = FakeStore()
    writer = Writer(gathering, "here", gather_seconds=600)
    full = [writer.submit(beat(number)) for number in range(MAX_BATCH)]
    assert full[-1].result(10) == f"wrote {MAX_BATCH - 1}"
    assert writer.close(10)
    writer = Writer(FakeStore(), "here", gather_seconds=0.001)
    assert writer.submit(beat(1)).result(10) == "wrote 1"
    assert writer.close(10)


class Killed(BaseException):
    """Not an Exception: what ends a thread."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_dies_fails_every_waiting_and_every_later_future() -> None:
    gate = Gate()

    def die(items: Sequence[Item]) -> None:
        gate(items)
        raise Killed

    store = FakeStore(die)
    writer = Writer(store, "the/ledger.db")
    futures = [writer.submit(beat(0))]
    gate.reached.wait(10)
    futures += [writer.submit(beat(number)) for number in range(1, 1_000)]
    gate.opened.set()
    for future in futures:
        with pytest.raises(LedgerUnavailable, match=r"the/ledger\.db died.*open it again"):
            future.result(10)
    with pytest.raises(LedgerUnavailable, match="died"):
        writer.submit(beat(1)).result(10)
    assert writer.close(10)
    assert store.resets == 1


def test_an_item_that_cannot_be_written_fails_alone() -> None:
    gate = Gate()

    def refuse_seven(items: Sequence[Item]) -> None:
        if not gate.opened.is_set():
            gate(items)
        if any(isinstance(item, Heartbeat) and item.beat_ms == 7 for item in items):
            raise OverflowError("too large")

    writer = Writer(FakeStore(refuse_seven), "here")
    futures = [writer.submit(beat(0))]
    gate.reached.wait(10)
    futures += [writer.submit(beat(number)) for number in range(1, 10)]
    gate.opened.set()
    outcomes = [future.exception(10) for future in futures]
    assert [number for number, error in enumerate(outcomes) if error is not None] == [7]
    assert isinstance(outcomes[7], LedgerError)
    assert "too large" in str(outcomes[7])
    assert writer.close(10)


def test_an_outcome_that_is_a_failure_fails_its_future_only() -> None:
    class Choosy(FakeStore):
        def write(self, items: Sequence[Item]) -> list[Any]:
            return [Failed(LedgerError("no")) for _ in items]

    writer = Writer(Choosy(), "here")
    with pytest.raises(LedgerError, match="no"):
        writer.submit(beat(1)).result(10)
    assert writer.close(10)


@pytest.mark.parametrize("error_type", [OperationalError, IntegrityError])
def test_a_database_that_is_busy_for_a_while_is_tried_again(error_type: type[Exception]) -> None:
    failures = [busy(error_type), busy(error_type)]

    def fail_twice(items: Sequence[Item]) -> None:
        if failures:
            raise failures.pop()

    store = FakeStore(fail_twice)
    writer = Writer(store, "here")
    assert writer.submit(beat(1)).result(10) == "wrote 1"
    assert store.resets == 2
    assert writer.close(10)


def test_a_database_that_stays_busy_fails_the_batch_but_not_the_writer() -> None:
    broken = threading.Event()
    broken.set()

    def fail(items: Sequence[Item]) -> None:
        if broken.is_set():
            raise busy()

    writer = Writer(FakeStore(fail), "here")
    with pytest.raises(LedgerUnavailable, match="here cannot be written: database is locked"):
        writer.submit(beat(1)).result(10)
    broken.clear()
    assert writer.submit(beat(2)).result(10) == "wrote 2"
    assert writer.close(10)


def test_a_full_queue_refuses_new_calls_before_it_refuses_endings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer_module, "MAX_QUEUED_RESERVATIONS", 5)
    monkeypatch.setattr(writer_module, "MAX_QUEUED", 8)
    gate = Gate()
    writer = Writer(FakeStore(gate), "here")
    futures = [writer.submit(beat(0))]
    gate.reached.wait(10)
    futures += [writer.submit(reservation()) for _ in range(5)]
    with pytest.raises(LedgerUnavailable, match="cannot keep up"):
        writer.submit(reservation()).result(10)
    futures += [writer.submit(beat(number)) for number in range(3)]
    with pytest.raises(LedgerUnavailable, match="cannot keep up"):
        writer.submit(beat(9)).result(10)
    gate.opened.set()
    assert all(future.exception(10) is None for future in futures)
    assert writer.close(10)


def test_closing_waits_for_what_was_submitted_and_no_longer_than_told() -> None:
    gate = Gate()
    writer = Writer(FakeStore(gate), "here")
    future = writer.submit(beat(1))
    gate.reached.wait(10)
    started = time.monotonic()
    assert not writer.close(0.05)
    assert time.monotonic() - started < 5
    assert not future.done()
    gate.opened.set()
    assert writer.close(10)
    assert future.result() == "wrote 1"


def test_submitting_from_a_futures_callback_does_not_lock_up() -> None:
    writer = Writer(FakeStore(), "here")
    second: list[Any] = []
    done = threading.Event()

    def again(_: object) -> None:
        second.append(writer.submit(beat(2)))
        done.set()

    writer.submit(beat(1)).add_done_callback(again)
    assert done.wait(10)
    assert second[0].result(10) == "wrote 2"
    assert writer.close(10)
