"""Finding calls, listing them, and adding them up."""

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_facts import (
    COUNTED,
    DAY,
    HOLD,
    NOON,
    REPORTED,
    Stopwatch,
    make_call,
    make_correction,
    make_settlement,
)
from sqlalchemy.exc import DBAPIError

from lastchunk.errors import CallNotFound, LedgerError, LedgerUnavailable
from lastchunk.ledger import CallFilter, Ledger, Reader, SpendRow
from lastchunk.ledger import reader as reader_module
from lastchunk.ledger.spend import TokenSum
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost
from lastchunk.settlement.facts import OpenCall
from lastchunk.usage import Basis, Quantity, Usage
from lastchunk.wire.dialect import Dialect

# Finding one.


def test_a_call_is_found_by_any_of_its_ids(ledger: Ledger, reader: Reader) -> None:
    call, other = make_call("call_01aaaa"), make_call("call_01aabb")
    ledger.reserve(call)
    ledger.reserve(other)
    seen = Observation(response_id="chatcmpl-7")
    ledger.settle(call, make_settlement(call, observation=seen), NOON).result()
    for any_id in ("call_01aaaa", "call_01aaa", "chatcmpl-7"):
        assert reader.call(any_id).call == call


def test_an_id_that_fits_several_calls_is_an_error_that_names_them(
    ledger: Ledger, reader: Reader
) -> None:
    calls = [make_call(f"call_01{letter}") for letter in "abc"]
    seen = Observation(response_id="chatcmpl-1")  # some servers reuse one
    for call in calls:
        ledger.reserve(call)
        ledger.settle(call, make_settlement(call, observation=seen), NOON).result()
    for any_id in ("call_01", "chatcmpl-1"):
        with pytest.raises(CallNotFound, match="several calls: call_01a, call_01b, call_01c"):
            reader.call(any_id)


@pytest.mark.parametrize("any_id", ["call_unheard_of", "", "%", "_", "chatcmpl-\0"])
def test_an_id_that_fits_nothing_is_an_error_that_says_so(
    ledger: Ledger, reader: Reader, any_id: str
) -> None:
    ledger.reserve(make_call()).result()
    with pytest.raises(CallNotFound, match="no call"):
        reader.call(any_id)


def test_a_whole_id_outranks_those_it_begins(ledger: Ledger, reader: Reader) -> None:
    for call_id in ("call_1", "call_12"):
        ledger.reserve(make_call(call_id)).result()
    assert reader.call("call_1").call_id == "call_1"


# Listing.


@pytest.fixture
def shelf(ledger: Ledger) -> dict[str, OpenCall]:
    """Six calls that differ in what can be filtered, by name."""
    calls = {
        "plain": make_call(opened_ms=NOON),
        "bob": make_call(account="team/bob", opened_ms=NOON + 1, model="small"),
        "teammate": make_call(account="teammate", opened_ms=NOON + 2, way="gateway"),
        "open": make_call(opened_ms=NOON + 3, tags=(("feature", "search"), ("run", "1"))),
        "cut": make_call(opened_ms=NOON + 4, dialect=Dialect.RESPONSES),
        "unpriced": make_call(account="team", opened_ms=NOON + 5, hold=None),
    }
    for name, call in calls.items():
        ledger.reserve(call)
        if name == "cut":
            cut = make_settlement(call, Cost(1, 2, 3), usage=COUNTED, ending=Ending.CALLER_LEFT)
            ledger.settle(call, cut, NOON)
        elif name != "open":
            cost = None if name == "unpriced" else 500
            seen = Observation(model_served=f"{call.request.model}-2026")
            settlement = make_settlement(call, cost, observation=seen)
            ledger.settle(call, settlement, call.opened_ms)
    ledger.beat().result()
    return calls


ALL = ["plain", "bob", "teammate", "open", "cut", "unpriced"]
FILTERS = {
    "all": (CallFilter(), ALL),
    "an account and all under it": (
        CallFilter(account="team"),
        ["plain", "bob", "open", "cut", "unpriced"],
    ),
    "one account": (CallFilter(account="team/bob"), ["bob"]),
    "half a name is no account": (CallFilter(account="tea"), []),
    "the model asked for": (CallFilter(model="small"), ["bob"]),
    "the model that served": (CallFilter(model="small-2026"), ["bob"]),
    "ending": (CallFilter(ending=Ending.CALLER_LEFT), ["cut"]),
    "known no better": (CallFilter(basis_at_most=Basis.REPORTED_SO_FAR), ["cut"]),
    "known at all": (
        CallFilter(basis_at_most=Basis.STATED),
        ["plain", "bob", "teammate", "cut", "unpriced"],
    ),
    "since": (CallFilter(since_ms=NOON + 4), ["cut", "unpriced"]),
    "until": (CallFilter(until_ms=NOON + 1), ["plain"]),
    "tag": (CallFilter(tag=("feature", "search")), ["open"]),
    "a tag's value elsewhere": (CallFilter(tag=("run", "search")), []),
    "way": (CallFilter(way="gateway"), ["teammate"]),
    "open": (CallFilter(open_only=True), ["open"]),
    "unpriced": (CallFilter(unpriced_only=True), ["unpriced"]),
    "several at once": (
        CallFilter(account="team", tag=("feature", "chat"), model="gpt-5", until_ms=NOON + 5),
        ["plain", "cut"],
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_keeps_what_it_says(shelf: dict[str, OpenCall], reader: Reader, name: str) -> None:
    wanted, expected = FILTERS[name]
    names = {call.call_id: shelf_name for shelf_name, call in shelf.items()}
    found = [names[record.call_id] for record in reader.calls(wanted, newest_first=False)]
    assert found == expected
    found = [names[record.call_id] for record in reader.calls(wanted)]
    assert found == expected[::-1]
    assert sum(row.calls for row in reader.spend((), wanted)) == len(expected)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("limit", [None, 0, 1, 3, 4, 10, 11, 50])
def test_pages_neither_lose_nor_repeat_a_call(
    ledger: Ledger,
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
    limit: int | None,
    newest_first: bool,
) -> None:
    monkeypatch.setattr(reader_module, "PAGE", 3)
    calls = [make_call(opened_ms=NOON + number // 4) for number in range(11)]  # times repeat
    for call in calls:
        ledger.reserve(call)
    ledger.beat().result()
    listed = [record.call for record in reader.calls(limit=limit, newest_first=newest_first)]
    assert listed == (calls[::-1] if newest_first else calls)[:limit]


def test_a_list_that_is_dropped_half_way_holds_nothing(ledger: Ledger, reader: Reader) -> None:
    for _ in range(5):
        ledger.reserve(make_call()).result()
    dropped = [next(reader.calls()) for _ in range(50)]  # more than there are connections
    assert len(dropped) == 50


def test_the_basis_filter_follows_corrections(ledger: Ledger, reader: Reader) -> None:
    call = make_call()
    ledger.reserve(call)
    ledger.settle(call, make_settlement(call, Cost(1, 2, 3), usage=COUNTED), NOON)
    weak = CallFilter(basis_at_most=Basis.COUNTED)
    ledger.beat().result()
    assert len(list(reader.calls(weak))) == 1
    ledger.correct(make_correction(call, usage=REPORTED)).result()
    assert list(reader.calls(weak)) == []
    # A later correction that says nothing about tokens leaves the basis as it is.
    ledger.correct(make_correction(call, "price", cost=Cost(2, 2, 2))).result()
    assert list(reader.calls(weak)) == []


# Adding up.


def test_spend_by_account_and_day(ledger: Ledger, reader: Reader) -> None:
    table = [
        # account, opened, cost
        ("a", NOON, 1),
        ("a", NOON + DAY // 2 - 1, 2),  # the last millisecond of the day
        ("a", NOON + DAY // 2, 4),
        ("b", NOON, 8),
    ]
    for account, opened_ms, cost in table:
        call = make_call(account=account, opened_ms=opened_ms)
        ledger.reserve(call)
        ledger.settle(call, make_settlement(call, cost), opened_ms + 10 * DAY)
    ledger.beat().result()
    rows = reader.spend(["account", "day"])
    assert [(*row.key, row.calls, row.cost.best) for row in rows] == [
        ("a", "2026-05-29", 2, 3),
        ("a", "2026-05-30", 1, 4),
        ("b", "2026-05-29", 1, 8),
    ]
    assert [(row.key, row.cost.best) for row in reader.spend()] == [((), 15)]


def test_a_row_says_all_about_its_calls(ledger: Ledger, reader: Reader) -> None:
    usage = replace(
        COUNTED,
        input_cached_tokens=Quantity(1, 2, 3, Basis.BOUNDED),
        output_reasoning_tokens=Quantity(4, 5, 6, Basis.BOUNDED),
    )
    cut, reported, unpriced, still_open = (make_call() for _ in range(4))
    for call in (cut, reported, unpriced, still_open):
        ledger.reserve(call)
    ledger.settle(cut, make_settlement(cut, Cost(10, 20, 40), usage=usage), NOON)
    ledger.settle(reported, make_settlement(reported, 100), NOON)
    ledger.settle(unpriced, make_settlement(unpriced, None), NOON)
    ledger.beat().result()
    assert reader.spend(["account"]) == [
        SpendRow(
            key=("team/ann",),
            calls=4,
            open_calls=1,
            held=HOLD,
            input=TokenSum(35, 36, 38),
            cached=TokenSum(1, 2, 3),
            output=TokenSum(88, 90, 93),
            reasoning=TokenSum(4, 5, 6),
            cost=Cost(110, 120, 140),
            charge=120,
            cost_by_basis=(
                (Basis.COUNTED, Cost(10, 20, 40)),
                (Basis.REPORTED, Cost(100, 100, 100)),
            ),
            unpriced_calls=1,
            unpriced_input=TokenSum(12, 12, 12),
            unpriced_output=TokenSum(30, 30, 30),
        )
    ]


def test_a_correction_moves_the_money_to_its_basis(ledger: Ledger, reader: Reader) -> None:
    call = make_call()
    ledger.reserve(call)
    ledger.settle(call, make_settlement(call, Cost(10, 20, 40), usage=COUNTED), NOON)
    stated = Usage(
        input_tokens=Quantity(12, 12, 12, Basis.STATED),
        output_tokens=Quantity(31, 31, 31, Basis.STATED),
    )
    ledger.correct(make_correction(call, usage=stated, cost=Cost(25, 25, 25))).result()
    (row,) = reader.spend()
    assert row.cost_by_basis == ((Basis.STATED, Cost(25, 25, 25)),)
    assert (row.cost, row.output) == (Cost(25, 25, 25), TokenSum(31, 31, 31))


def test_groups_by_everything_that_has_a_name(shelf: dict[str, OpenCall], reader: Reader) -> None:
    expected: dict[str, dict[str | None, int]] = {
        "account": {"team": 1, "team/ann": 3, "team/bob": 1, "teammate": 1},
        "model": {"gpt-5": 5, "small": 1},
        "day": {"2026-05-29": 6},
        "ending": {None: 1, "caller_left": 1, "completed": 4},
        "dialect": {"chat": 5, "responses": 1},
        "way": {"gateway": 1, "python": 5},
        "tag:feature": {"chat": 5, "search": 1},
        "tag:run": {None: 5, "1": 1},
    }
    for group, counts in expected.items():
        assert {row.key[0]: row.calls for row in reader.spend([group])} == counts
    for pair in itertools.permutations(expected, 2):
        assert sum(row.calls for row in reader.spend(pair)) == 6
    with pytest.raises(LedgerError, match="cannot group by 'colour'"):
        reader.spend(["colour"])


def test_a_call_with_two_values_of_a_tag_counts_once(ledger: Ledger, reader: Reader) -> None:
    ledger.reserve(make_call(tags=(("step", "b"), ("step", "a"), ("step", "a")))).result()
    assert [(row.key, row.calls) for row in reader.spend(["tag:step"])] == [(("a",), 1)]


def test_sums_beyond_64_bits_are_exact(ledger: Ledger, reader: Reader) -> None:
    most = 2**53
    usage = Usage(input_tokens=Quantity.reported(most - 1), output_tokens=Quantity.reported(most))
    for number in range(1_100):  # 1,024 of them would be 2**63
        call = make_call(account=f"account/{number % 2}", hold=most)
        ledger.reserve(call)
        ledger.settle(call, make_settlement(call, most, usage=usage), NOON)
        ledger.reserve(make_call(account=f"account/{number % 2}", hold=most))
    ledger.beat().result(60)
    (row,) = reader.spend()
    assert row.cost == Cost(1_100 * most, 1_100 * most, 1_100 * most)
    assert row.input.best == 1_100 * (most - 1)
    assert row.held == 1_100 * most
    assert reader.balance("account").spent_best == 1_100 * most


# Opening for reading.


def test_a_reader_cannot_write(ledger: Ledger, reader: Reader) -> None:
    with pytest.raises(DBAPIError), reader._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM balances")


def test_a_ledger_that_nobody_has_open_can_be_read(url: str, clock: Stopwatch) -> None:
    call = make_call()
    with Ledger.open(url, clock=clock) as ledger:
        ledger.reserve(call)
    with Reader.open(url) as reader:
        assert reader.call(call.call_id).is_open


def test_a_ledger_of_a_killed_process_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from ledger_facts import *\nfrom lastchunk.ledger import Ledger\n"
        "ledger = Ledger.open(sys.argv[1], clock=Stopwatch())\n"
        "ledger.reserve(make_call('call_1')).result()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(path), str(Path(__file__).parent)], check=False
    )
    assert (tmp_path / "ledger.db-wal").exists()
    with Reader.open(str(path)) as reader:
        assert reader.call("call_1").is_open


def test_reading_a_place_without_a_ledger_says_so_and_makes_none(tmp_path: Path) -> None:
    missing = tmp_path / "none.db"
    with pytest.raises(LedgerUnavailable, match=f"no ledger at {missing}"):
        Reader.open(str(missing))
    assert not missing.exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(LedgerUnavailable, match="holds no ledger"):
        Reader.open(str(tmp_path / "empty.db"))
