"""The caller leaves, and the rules say what becomes of its answer: cancelled, or read on."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway_stage import CHAT, STREAMED, Stage, body_of, running, until
from raw_http import connect, request_bytes, reset

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.leaving.departing import Caps
from lastchunk.leaving.house import LeavingHouse
from lastchunk.leaving.rules import read_rules
from lastchunk.ledger import CallRecord, Ledger, Reader
from lastchunk.meter.departure import Cut, Departure, Done, Why
from lastchunk.meter.ending import Ending
from lastchunk.pricing.book import PriceBook
from lastchunk.simulator import Fault, Script, Simulator
from lastchunk.usage import Basis

LEAVING: dict[str, Callable[[socket.socket], None]] = {"fin": socket.socket.close, "rst": reset}
DRAIN = {"do": "drain"}
BILLED_ON = 10**6
"""Tokens that a provider generates after a cut which never notices that its client left."""

PACED = Script(output_tokens=60, pacing_s=0.01, obfuscation=False)
BILLS_ON = Script(output_tokens=60, pacing_s=0.01, obfuscation=False, reaction_tokens=BILLED_ON)

Play = Callable[..., Stage]


@contextmanager
def books_with(path: Path, rows: list[dict[str, Any]], caps: Caps) -> Iterator[Bookkeeper]:
    clock = SystemClock()
    house = LeavingHouse(read_rules(rows, "test.toml"), caps)
    ledger = Ledger.open(str(path), clock=clock)
    bookkeeper = Bookkeeper(ledger, PriceBook.load(None), clock, leaving=house)
    yield bookkeeper
    bookkeeper.close()


@pytest.fixture
def ruled(shared_sim: Simulator, tmp_path: Path) -> Iterator[Play]:
    """A gateway of one's own before the simulator, with rules and caps of one's own."""
    with ExitStack() as stack:

        def play(*rows: dict[str, Any], upstream: str = "", **caps: Any) -> Stage:
            options = {k: caps.pop(k) for k in ("stop_seconds", "grace_seconds") if k in caps}
            books = stack.enter_context(books_with(tmp_path / "l.db", list(rows), Caps(**caps)))
            reader = stack.enter_context(Reader.open(books.ledger.url))
            gateway = stack.enter_context(running(upstream or shared_sim.url, books, **options))
            return Stage(gateway, reader, shared_sim)

        yield play


def ask(stage: Stage, script: Script, body: dict[str, Any] = STREAMED) -> socket.socket:
    connection = connect(stage.gateway.port)
    headers = stage.scripted(script) | {"Content-Type": "application/json"}
    connection.sendall(request_bytes("POST", "/v1/chat/completions", headers, body_of(body)))
    return connection


def read_some(connection: socket.socket, chunks: int = 6) -> None:
    seen = b""
    while seen.count(b'"content"') < chunks:
        piece = connection.recv(65_536)
        assert piece
        seen += piece


def departure_of(row: CallRecord) -> Departure:
    assert row.settlement is not None
    found = row.settlement.observation.departure
    assert found is not None
    return found


@pytest.mark.parametrize("way", LEAVING)
def test_a_drained_call_is_reported_and_equals_the_bill(ruled: Play, way: str) -> None:
    stage = ruled(DRAIN)
    connection = ask(stage, PACED)
    read_some(connection)
    at = time.monotonic()
    LEAVING[way](connection)
    assert time.monotonic() - at < 0.1
    row, billed = stage.row(), stage.billed()[0]
    settlement, departure = row.settlement, departure_of(row)
    assert settlement is not None
    assert billed.ended == "completed"
    assert settlement.ending is Ending.COMPLETED
    assert settlement.usage.output_tokens.basis is Basis.REPORTED  # type: ignore[union-attr]
    assert settlement.usage.output_tokens.best == billed.output_tokens  # type: ignore[union-attr]
    assert (departure.done, departure.why) == (Done.DRAINED, Why.POLICY_SAYS)
    assert departure.delivered is not None
    assert 5 <= departure.delivered.total < billed.output_tokens
    cost = settlement.departure
    assert cost is not None
    assert cost.undelivered is not None
    assert cost.undelivered.best == billed.output_tokens - departure.delivered.total
    assert cost.drain_cost is not None
    assert 0 < cost.drain_cost.best < settlement.cost.best  # type: ignore[union-attr]
    assert cost.saved.high == 0


def test_a_provider_that_bills_on_is_drained_without_a_rule_to_say_so(ruled: Play) -> None:
    stage = ruled({"upstream": "127.0.0.1", "bills": "whole"})
    connection = ask(stage, BILLS_ON)
    read_some(connection)
    connection.close()
    row, billed = stage.row(), stage.billed()[0]
    assert row.settlement is not None
    assert row.settlement.usage.output_tokens.best == billed.output_tokens  # type: ignore[union-attr]
    assert departure_of(row).why is Why.BILLED_ANYWAY
    assert row.settlement.departure is not None
    assert row.settlement.departure.drain_cost.best == 0  # type: ignore[union-attr]


def test_cancelled_where_the_whole_answer_is_billed_the_truth_is_inside(ruled: Play) -> None:
    stage = ruled({"upstream": "127.0.0.1:*", "bills": "whole", "do": "cancel"})
    connection = ask(stage, BILLS_ON)
    read_some(connection)
    connection.close()
    row, billed = stage.row(), stage.billed()[0]
    assert billed.ended == "client_gone"
    assert row.settlement is not None
    told = row.settlement.usage.output_tokens
    assert told is not None
    assert told.low <= billed.output_tokens <= told.high
    assert told.basis is Basis.BOUNDED
    assert "billed_after_cancel" in row.settlement.reasons
    assert billed.output_tokens > 50  # it did bill on: counting what arrived would have missed it
    assert told.low < 50
    assert departure_of(row).done is Done.CANCELLED
    assert row.settlement.departure is not None
    assert row.settlement.departure.saved.high == 0


def test_without_rules_an_unknown_upstream_is_cancelled_and_says_what_it_saved(ruled: Play) -> None:
    stage = ruled()
    connection = ask(stage, PACED, STREAMED | {"max_tokens": 60})
    read_some(connection)
    connection.close()
    row, billed = stage.row(), stage.billed()[0]
    departure = departure_of(row)
    assert row.settlement is not None
    assert billed.ended == "client_gone"
    assert row.settlement.ending is Ending.CALLER_LEFT
    assert (departure.done, departure.why) == (Done.CANCELLED, Why.PROVIDER_UNKNOWN)
    saved = row.settlement.departure.saved  # type: ignore[union-attr]
    assert 60 - billed.output_tokens <= saved.high < 60
    assert departure.delivered is not None
    assert departure.delivered.total <= billed.output_tokens


@pytest.mark.parametrize(
    ("threshold", "done", "why"),
    [("0.01", Done.DRAINED, Why.COSTS_LESS), ("0.0001", Done.CANCELLED, Why.COSTS_MORE)],
)
def test_cheaper_weighs_what_can_still_come(
    ruled: Play, threshold: str, done: Done, why: Why
) -> None:
    stage = ruled({"do": "cheaper", "threshold_usd": threshold, "model": "gpt-4o"})
    connection = ask(stage, PACED, STREAMED | {"max_tokens": 60})
    read_some(connection)
    connection.close()
    departure = departure_of(stage.row())
    assert (departure.done, departure.why) == (done, why)


CAPPED = [
    ({"seconds": 0.2}, Cut.SECONDS),
    ({"bytes": 2000}, Cut.BYTES),
    ({"tokens": 12}, Cut.TOKENS),
]


@pytest.mark.parametrize(("caps", "cut_by"), CAPPED, ids=lambda value: str(value))
def test_beyond_a_cap_a_drain_is_cancelled_and_counted(
    ruled: Play, caps: dict[str, Any], cut_by: Cut
) -> None:
    stage = ruled(DRAIN, **caps)
    connection = ask(stage, Script(output_tokens=400, pacing_s=0.01, obfuscation=False))
    read_some(connection)
    left = time.monotonic()
    connection.close()
    row, billed = stage.row(), stage.billed()[0]
    assert time.monotonic() - left < 2
    departure = departure_of(row)
    assert row.settlement is not None
    assert billed.ended == "client_gone"
    assert (departure.done, departure.cut_by) == (Done.CUT, cut_by)
    assert row.settlement.ending is Ending.CALLER_LEFT
    told = row.settlement.usage.output_tokens
    assert told is not None
    assert told.basis is Basis.COUNTED
    assert told.low <= billed.output_tokens <= told.high
    assert departure.delivered is not None
    assert departure.delivered.total < told.best


def test_an_upstream_that_stalls_is_drained_no_longer_than_the_cap(ruled: Play) -> None:
    stage = ruled(DRAIN, seconds=0.3)
    connection = ask(stage, Script(output_tokens=40, fault=Fault("stall", at="mid", seconds=30)))
    read_some(connection)
    connection.close()
    assert departure_of(stage.row()).cut_by is Cut.SECONDS


@pytest.mark.parametrize("fault", ["rst", "eof"])
def test_an_upstream_that_breaks_in_a_drain_cuts_it(ruled: Play, fault: Any) -> None:
    stage = ruled(DRAIN)
    script = Script(output_tokens=60, pacing_s=0.01, fault=Fault(fault, at="tokens:40"))
    connection = ask(stage, script)
    read_some(connection)
    connection.close()
    row, billed = stage.row(), stage.billed()[0]
    assert departure_of(row).cut_by is Cut.UPSTREAM
    assert row.settlement is not None
    told = row.settlement.usage.output_tokens
    assert told is not None
    assert told.low <= billed.output_tokens <= told.high


def test_beyond_so_many_at_once_calls_are_cancelled(ruled: Play) -> None:
    stage = ruled(DRAIN, at_once=3)
    connections = [ask(stage, Script(output_tokens=80, pacing_s=0.02)) for _ in range(8)]
    for connection in connections:
        read_some(connection)
    for connection in connections:
        connection.close()
    departures = [departure_of(row) for row in stage.rows(8)]
    assert sum(one.done is Done.DRAINED for one in departures) == 3
    assert [one.why for one in departures].count(Why.TOO_MANY_DRAINS) == 5
    connection = ask(stage, PACED)  # those that are over have made room
    read_some(connection)
    connection.close()
    assert departure_of(stage.rows(9)[-1]).done is Done.DRAINED


def test_two_hundred_drains_at_once_are_all_exact(ruled: Play) -> None:
    stage = ruled(DRAIN)
    script = Script(output_tokens=100, pacing_s=0.05, obfuscation=False)
    connections = [ask(stage, script) for _ in range(200)]
    for connection in connections:
        read_some(connection, 1)
    for connection in connections:
        connection.close()
    left = stage.gateway.gateway._relay._left
    until(lambda: len(left._drains) == 200, "all are drained at once")
    until(lambda: not left._drains, "no drain is left", 30)
    rows = stage.rows(200)
    assert {departure_of(row).done for row in rows} == {Done.DRAINED}
    billed = stage.billed(200)
    assert sum(one.output_tokens for one in billed) == sum(
        row.settlement.usage.output_tokens.best  # type: ignore[union-attr]
        for row in rows
    )


@pytest.mark.parametrize("body", [CHAT, STREAMED], ids=["whole", "streamed"])
def test_who_leaves_before_the_head_is_drained_too(ruled: Play, body: dict[str, Any]) -> None:
    """A whole answer's head comes only with it: most callers who leave one leave before."""
    stage = ruled(DRAIN)
    script = Script(output_tokens=30, pacing_s=0.01, first_token_delay_s=0.3)
    connection = ask(stage, script, body)
    until(lambda: stage.sim.open_calls, "the call at the provider")  # type: ignore[union-attr]
    connection.close()
    row, billed = stage.row(), stage.billed()[0]
    assert billed.ended == "completed"
    assert row.settlement is not None
    assert row.settlement.usage.output_tokens.best == billed.output_tokens  # type: ignore[union-attr]
    departure = departure_of(row)
    assert departure.done is Done.DRAINED
    assert departure.delivered is not None
    assert departure.delivered.total == 0


def test_rules_of_an_account_are_for_all_below_it(ruled: Play) -> None:
    stage = ruled({"account": "acme/*", "do": "drain"})
    for account, done in (("acme/ann", Done.DRAINED), ("acmes", Done.CANCELLED)):
        stage.name = account
        connection = ask(stage, PACED)
        read_some(connection)
        connection.close()
        assert departure_of(stage.row()).done is done


def test_a_stop_gives_drains_its_deadline_and_then_settles_them(ruled: Play) -> None:
    stage = ruled(DRAIN, stop_seconds=0.4)
    short = ask(stage, Script(output_tokens=20, pacing_s=0.01))
    long = ask(stage, Script(output_tokens=400, pacing_s=0.02))
    for connection in (short, long):
        read_some(connection, 3)
        connection.close()
    time.sleep(0.05)
    stage.gateway.ask_to_stop()
    until(lambda: not stage.gateway.is_running, "the gateway stopped", 3)
    first, second = (departure_of(row) for row in stage.rows(2))
    assert first.done is Done.DRAINED
    assert (second.done, second.cut_by) == (Done.CUT, Cut.SHUTDOWN)
    assert stage.gateway.tasks_left == set()


def test_who_is_cut_off_by_a_stop_is_not_drained(ruled: Play) -> None:
    stage = ruled(DRAIN, stop_seconds=0.1)
    connection = ask(stage, Script(output_tokens=400, pacing_s=0.02))
    read_some(connection)
    stage.gateway.ask_to_stop()
    row = stage.row()
    assert row.settlement is not None
    assert row.settlement.ending is Ending.LIMIT_REACHED
    assert row.settlement.observation.departure is None
    connection.close()
