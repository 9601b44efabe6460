"""Windows: sums that limits ask for, the same for every process on the ledger."""

import multiprocessing
from concurrent.futures import Future
from typing import Any

import pytest
from ledger_facts import DAY, NOON, Stopwatch, execute, make_call, make_correction, make_settlement

from lastchunk.accounts import paths_above
from lastchunk.ledger import Ledger, verify
from lastchunk.ledger.audit import rebuild
from lastchunk.ledger.plan import BalanceView
from lastchunk.ledger.windows import FOREVER_MS, Holds, Window, WindowSums
from lastchunk.pricing.cost import Cost

TODAY = Window("team", NOON, NOON + DAY)
CAP = 40
PROCESSES = 4
TRIES = 30


def sums(ledger: Ledger, window: Window = TODAY) -> WindowSums:
    found = ledger.reserve(make_call(), lambda view: view.window(window)).result()
    assert isinstance(found, WindowSums)
    return found


def test_a_window_is_made_from_the_entries_and_kept_from_then_on(ledger: Ledger) -> None:
    before, after = make_call(hold=100), make_call(hold=70)
    ledger.reserve(before).result()
    first = sums(ledger)
    assert (first.calls, first.calls_open, first.most, first.spent) == (1, 1, 100, 0)
    ledger.reserve(after).result()
    ledger.settle(before, make_settlement(before, 30), NOON).result()
    later = sums(ledger)
    assert (later.calls, later.calls_open, later.most, later.spent) == (2, 1, 70, 30)
    assert later.tokens == 42
    ledger.settle(after, make_settlement(after, None), NOON).result()
    assert sums(ledger).most == 0


def test_a_correction_counts_in_the_window_its_call_was_opened_in(
    ledger: Ledger, clock: Stopwatch
) -> None:
    call = make_call()
    ledger.reserve(call).result()
    ledger.settle(call, make_settlement(call, 30), NOON).result()
    assert sums(ledger).spent == 30
    clock.now += 3 * DAY
    correction = make_correction(call, cost=Cost(50, 50, 50), occurred_ms=clock.now)
    ledger.correct(correction).result()
    assert sums(ledger).spent == 50


def test_calls_of_others_and_of_other_times_do_not_count(ledger: Ledger) -> None:
    for changes in ({"account": "teams"}, {"opened_ms": NOON - 1}, {"opened_ms": NOON + DAY}):
        ledger.reserve(make_call(**changes)).result()
    assert sums(ledger) == WindowSums()
    assert sums(ledger, Window("", 0, FOREVER_MS)).calls == 3
    ledger.reserve(make_call(account="teams")).result()
    assert sums(ledger) == WindowSums()
    assert sums(ledger, Window("", 0, FOREVER_MS)).calls == 4


def test_a_hold_can_be_changed_while_its_call_is_open(ledger: Ledger) -> None:
    call = make_call(hold=100)
    ledger.reserve(call).result()
    assert sums(ledger).most == 100
    ledger.rehold({call.call_id: Holds(40, 20, 9, 8), "call_unknown": Holds(1, 1, 1, 1)}).result()
    shrunk = sums(ledger)
    assert (shrunk.most, shrunk.usual, shrunk.tokens_most, shrunk.tokens_usual) == (40, 20, 9, 8)
    ledger.settle(call, make_settlement(call, 30), NOON).result()
    ledger.rehold({call.call_id: Holds(7, 7, 7, 7)}).result()
    settled = sums(ledger)
    assert (settled.most, settled.usual, settled.tokens_most, settled.spent) == (0, 0, 0, 30)


def test_what_one_batch_does_to_a_window_is_seen_by_its_later_calls(ledger: Ledger) -> None:
    admitted: list[Future[Any]] = [
        ledger.reserve(make_call(hold=1), lambda view: _full(view, 5)) for _ in range(20)
    ]
    assert sum(future.result() is None for future in admitted) == 5


def test_a_damaged_window_is_found_and_made_anew(ledger: Ledger, url: str) -> None:
    ledger.reserve(make_call(hold=100)).result()
    sums(ledger)
    execute(url, "UPDATE windows SET most = most + 1")
    (found,) = verify(url).discrepancies
    assert (found.name, found.subject, found.message) == (
        "window_differs", "team", "most 101 instead of 100",
    )  # fmt: skip
    assert rebuild(url).is_clean
    assert sums(ledger).most == 100


def test_the_paths_above_an_account_are_its_segments() -> None:
    assert list(paths_above("a/b/c")) == ["", "a", "a/b", "a/b/c"]
    assert list(paths_above("a")) == ["", "a"]


@pytest.mark.parametrize("settles", [False, True], ids=["held", "settled"])
def test_processes_that_race_for_one_cap_never_exceed_it(
    url: str, clock: Stopwatch, settles: bool
) -> None:
    Ledger.open(url, clock=clock).close()
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES) as pool:
        admitted = sum(pool.starmap(_race, [(url, n, settles) for n in range(PROCESSES)]))
    assert admitted == CAP
    assert verify(url).discrepancies == ()


def _race(url: str, number: int, settles: bool) -> int:
    """How many of this process's calls of 1 nano-dollar were let in under the cap."""
    admitted = 0
    with Ledger.open(url, clock=Stopwatch()) as ledger:
        calls = [make_call(f"call_{number:02}{n:04}", hold=1) for n in range(TRIES)]
        tries = [(call, ledger.reserve(call, lambda view: _full(view, CAP))) for call in calls]
        for call, future in tries:
            if future.result() is None:
                admitted += 1
                if settles:
                    ledger.settle(call, make_settlement(call, 1), NOON)
    return admitted


def _full(view: BalanceView, cap: int) -> str | None:
    found = view.window(TODAY)
    return "full" if found.spent + found.most >= cap else None


def test_an_extension_that_is_admitted_takes_the_place_of_the_hold(ledger: Ledger) -> None:
    call = make_call(hold=100)
    ledger.reserve(call).result()
    assert ledger.extend(call.call_id, Holds(300, 30, 9, 8), lambda _: None).result() is None
    grown = sums(ledger)
    assert (grown.most, grown.usual, grown.tokens_most, grown.tokens_usual) == (300, 30, 9, 8)
    ledger.settle(call, make_settlement(call, 250), NOON).result()
    assert (sums(ledger).most, sums(ledger).spent) == (0, 250), "all that is held is given back"


def test_an_extension_that_is_refused_changes_nothing_and_says_why(ledger: Ledger) -> None:
    call = make_call(hold=100)
    ledger.reserve(call).result()
    assert ledger.extend(call.call_id, Holds(300), lambda _: "no room").result() == "no room"
    assert sums(ledger).most == 100


def test_an_extension_that_comes_too_late_holds_nothing(ledger: Ledger) -> None:
    call = make_call(hold=100)
    ledger.reserve(call).result()
    ledger.settle(call, make_settlement(call, 30), NOON).result()
    assert ledger.extend(call.call_id, Holds(300), lambda _: None).result() is None
    assert ledger.extend("call_unknown", Holds(300), lambda _: None).result() is None
    assert (sums(ledger).most, sums(ledger).spent) == (0, 30)


def test_of_many_who_ask_for_the_last_room_only_those_get_it_that_fit(
    ledger: Ledger, url: str, clock: Stopwatch
) -> None:
    """Through two ledgers: twenty calls hold 10 each and want 20; there is room for 5."""
    room = 20 * 10 + 5 * 10
    with Ledger.open(url, clock=clock) as other:
        calls = [(one, make_call(hold=10)) for one in (ledger, other) for _ in range(10)]
        for one, call in calls:
            one.reserve(call).result()
        asked = [
            one.extend(
                call.call_id,
                Holds(20),
                lambda view: None if view.window(TODAY).most + 10 <= room else "full",
            )
            for one, call in calls
        ]
        assert sum(future.result() is None for future in asked) == 5
    assert sums(ledger).most == room
