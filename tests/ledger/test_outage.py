"""The ledger is away: what is submitted is safe, in order, soon, and in the ledger once."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from ledger_facts import COUNTED, NOON, Stopwatch, make_call, make_correction, make_settlement
from outages import PATIENCE_SECONDS, Server, held, options, until, until_back

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import CallFilter, Ledger, Reader, spool_lane, spooling, verify
from lastchunk.ledger import database as database_module
from lastchunk.ledger.database import parse_url
from lastchunk.ledger.entries import reserved_entry, settled_entry
from lastchunk.ledger.in_flight import this_process
from lastchunk.ledger.plan import Reservation, Resolution
from lastchunk.ledger.spool import SpoolFile, ledger_key
from lastchunk.ledger.spool_lines import Spoolable, line_of, write_line
from lastchunk.ledger.windows import Holds
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.settlement.facts import OpenCall
from lastchunk.usage import Usage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spooling_ledger(url: str, folder: Path, clock: Stopwatch) -> Iterator[Ledger]:
    with Ledger.open(url, clock=clock, spool=options(folder)) as ledger:
        yield ledger


def kinds(url: str) -> dict[str, list[str]]:
    with Reader.open(url) as reader:
        found = list(reader.calls(CallFilter(), newest_first=False))
    return {row.call_id: [entry.kind.value for entry in row.entries] for row in found}


def spools(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool")) if folder.exists() else []


def test_calls_of_an_outage_are_in_the_ledger_once_when_it_is_back(
    url: str, folder: Path, spooling_ledger: Ledger
) -> None:
    ledger = spooling_ledger
    before, calls = make_call(), [make_call() for _ in range(30)]
    assert ledger.reserve(before).result() is None
    with held(url):
        assert ledger.settle(before, make_settlement(before), NOON).result(PATIENCE_SECONDS)
        for call in calls[:-1]:
            assert ledger.reserve(call).result(PATIENCE_SECONDS) is None
            assert ledger.settle(call, make_settlement(call), NOON).result(PATIENCE_SECONDS)
        assert ledger.correct(make_correction(calls[0])).result(PATIENCE_SECONDS)
        assert ledger.reserve(calls[-1]).result(PATIENCE_SECONDS) is None
        health = ledger.health()
        assert health.is_away
        assert health.spooled_entries == 1 + 2 * 29 + 1 + 1
        assert health.spool_bytes == spools(folder)[0].stat().st_size
    until_back(ledger)
    assert ledger.settle(calls[-1], make_settlement(calls[-1]), NOON).result()
    told = kinds(url)
    assert told.pop(calls[0].call_id) == ["reserved", "settled", "corrected"]
    assert list(told.values()) == [["reserved", "settled"]] * 30
    assert ledger.health() == spooling.WELL
    assert spools(folder) == []
    assert verify(url).discrepancies == ()


def test_only_the_first_call_waits_for_a_ledger_that_does_not_answer(
    url: str, folder: Path, clock: Stopwatch
) -> None:
    with Ledger.open(url, clock=clock, spool=options(folder, wait_seconds=1.0)) as ledger:
        ledger.reserve(make_call()).result()
        with held(url):
            started = time.monotonic()
            ledger.reserve(make_call()).result(PATIENCE_SECONDS)
            assert time.monotonic() - started < ledger.reserve_seconds
            started = time.monotonic()
            for _ in range(20):
                ledger.reserve(make_call()).result(PATIENCE_SECONDS)
            assert time.monotonic() - started < 20 * 0.5
        until_back(ledger)


def test_what_may_be_lost_is_answered_and_dropped(url: str, spooling_ledger: Ledger) -> None:
    ledger, call = spooling_ledger, make_call()
    ledger.reserve(call).result()
    with held(url):
        ledger.reserve(make_call()).result(PATIENCE_SECONDS)
        with pytest.raises(LedgerUnavailable, match="not written"):
            ledger.checkpoint([(call.call_id, Observation(frames=3))]).result(PATIENCE_SECONDS)
        with pytest.raises(LedgerUnavailable, match="not written"):
            ledger.rehold({call.call_id: Holds()}).result(PATIENCE_SECONDS)
        assert ledger.beat().result(PATIENCE_SECONDS) is None
        assert ledger.health().spooled_entries == 1
    until_back(ledger)


def test_refusing_refuses_new_calls_at_once_and_keeps_the_ends_of_others(
    url: str, folder: Path, clock: Stopwatch
) -> None:
    spool = options(folder, passes=False)
    with Ledger.open(url, clock=clock, spool=spool) as ledger:
        before, doubtful, refused = make_call(), make_call(), make_call()
        ledger.reserve(before).result()
        with held(url):
            with pytest.raises(LedgerUnavailable, match="refused until it is back"):
                ledger.reserve(doubtful).result(PATIENCE_SECONDS)
            started = time.monotonic()
            with pytest.raises(LedgerUnavailable, match="refused until it is back"):
                ledger.reserve(refused).result(PATIENCE_SECONDS)
            assert time.monotonic() - started < 0.1
            assert ledger.health().refuses_calls
            for call in (doubtful, refused):
                never = make_settlement(call, 0, usage=Usage(), nothing_used=True)
                assert ledger.settle(call, never, NOON).result(PATIENCE_SECONDS)
            assert ledger.settle(before, make_settlement(before), NOON).result(PATIENCE_SECONDS)
        until_back(ledger)
        after = make_call()
        assert ledger.reserve(after).result(PATIENCE_SECONDS) is None
        told = kinds(url)
        assert told[before.call_id] == ["reserved", "settled"]
        assert told[doubtful.call_id] == ["reserved", "released"]
        assert refused.call_id not in told
        assert told[after.call_id] == ["reserved"]
    assert verify(url).discrepancies == ()


@pytest.mark.parametrize("passes", [True, False])
def test_opening_a_ledger_that_is_held_passes_or_says_so(
    passes: bool, tmp_path: Path, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.1)
    url, spool = str(tmp_path / "ledger.db"), options(tmp_path / "spool", passes=passes)
    Ledger.open(url, clock=clock).close()
    with held(url):
        if not passes:
            with pytest.raises(LedgerUnavailable, match="locked; another process holds it"):
                Ledger.open(url, clock=clock, spool=spool)
            return
        ledger = Ledger.open(url, clock=clock, spool=spool)
        call = make_call()
        assert ledger.reserve(call).result(PATIENCE_SECONDS) is None
        assert ledger.health().is_away
    until_back(ledger)
    ledger.close()
    assert kinds(url) == {call.call_id: ["reserved"]}
    assert verify(url).discrepancies == ()


def test_a_ledger_in_a_wrong_place_is_an_error_at_the_start_all_the_same(
    tmp_path: Path, clock: Stopwatch
) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear ledger, " * 100)
    for wrong in (str(letter), str(letter / "ledger.db"), "mysql://root@localhost/x"):
        with pytest.raises(LedgerUnavailable):
            Ledger.open(wrong, clock=clock, spool=options(tmp_path / "spool"))


def test_a_full_disk_is_an_outage_too(tmp_path: Path, clock: Stopwatch) -> None:
    url = str(tmp_path / "ledger.db")
    is_full = True
    with Ledger.open(url, clock=clock, spool=options(tmp_path / "spool")) as ledger:

        @sa.event.listens_for(ledger._engine, "connect")
        def _limit(connection: object, record: object) -> None:
            if is_full:  # SQLite then says what it says of a full disk
                connection.execute("PRAGMA max_page_count = 1")  # type: ignore[attr-defined]

        calls = [make_call() for _ in range(200)]
        for call in calls:
            assert ledger.reserve(call).result(PATIENCE_SECONDS) is None
        assert "full" in (ledger.health().reason or "")
        is_full = False
        until_back(ledger)
    assert kinds(url) == {call.call_id: ["reserved"] for call in calls}


def test_beyond_its_bound_entries_wait_in_memory_and_are_written_all_the_same(
    url: str, folder: Path, clock: Stopwatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Ledger.open(url, clock=clock, spool=options(folder, max_bytes=6_000)) as ledger:
        calls = [make_call() for _ in range(10)]
        with held(url), caplog.at_level(logging.CRITICAL):
            settled = []
            for call in calls:
                ledger.reserve(call).exception(PATIENCE_SECONDS)
                settled.append(ledger.settle(call, make_settlement(call), NOON))
            health = ledger.health()
            assert health.spool_bytes <= 6_000
            assert health.spooled_entries > 0
            assert health.held_entries > 0
            assert health.lost_entries == 0
            late = ledger.reserve(make_call())
            with pytest.raises(LedgerUnavailable, match="memory only: the spool is full"):
                late.result(PATIENCE_SECONDS)
        until_back(ledger)
        assert all(future.result(PATIENCE_SECONDS) for future in settled)
    told = [record.message for record in caplog.records if record.levelname == "CRITICAL"]
    assert len(told) == 1
    assert "Make room for the spool" in told[0]
    found = kinds(url)
    assert [found[call.call_id] for call in calls] == [["reserved", "settled"]] * 10
    assert len(found) == 11
    assert verify(url).discrepancies == ()


def test_what_finds_no_room_anywhere_is_counted_and_said(
    url: str, folder: Path, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_lane, "MAX_HELD", 3)
    with Ledger.open(url, clock=clock, spool=options(folder, max_bytes=100)) as ledger:
        with held(url):
            for _ in range(5):
                ledger.reserve(make_call()).exception(PATIENCE_SECONDS)
            last = ledger.reserve(make_call())
            with pytest.raises(LedgerUnavailable, match="spool and memory are full"):
                last.result(PATIENCE_SECONDS)
            assert ledger.health().lost_entries == 3
        until_back(ledger)
        assert ledger.health().lost_entries == 3
    assert len(kinds(url)) == 3


def leave_spool(folder: Path, url: str, *items: Spoolable, process_id: str = "proc_1") -> None:
    """As a process leaves it that was killed."""
    owner = this_process(process_id, NOON)
    file = SpoolFile.create(folder, ledger_key(parse_url(url)), owner)
    file.append([write_line(line_of(item)) for item in items])
    file.close()


def test_a_call_that_another_host_gave_up_for_lost_is_corrected(
    url: str, folder: Path, clock: Stopwatch
) -> None:
    call, unsent = make_call(), make_call()
    never = make_settlement(unsent, 0, usage=Usage(), nothing_used=True)
    with Ledger.open(url, clock=clock) as other:
        for lost in (call, unsent):
            other.reserve(lost).result()
            guess = make_settlement(lost, 900, usage=COUNTED, ending=Ending.LOST)
            other.settle(lost, guess, NOON + 1).result()
    leave_spool(
        folder,
        url,
        Resolution(settled_entry(call, make_settlement(call, 500), NOON, "proc_1")),
        Resolution(settled_entry(unsent, never, NOON, "proc_1")),
    )
    with Ledger.open(url, clock=clock, spool=options(folder)):
        assert list(folder.iterdir()) == []
    assert kinds(url)[call.call_id] == ["reserved", "settled", "corrected"]
    with Reader.open(url) as reader:
        costs = [row.standing.cost for row in reader.calls(CallFilter(), newest_first=False)]
    assert [cost and cost.best for cost in costs] == [500, 0]
    assert verify(url).discrepancies == ()


def test_closing_in_an_outage_loses_nothing_and_signs_out(
    url: str, folder: Path, clock: Stopwatch
) -> None:
    ledger = Ledger.open(url, clock=clock, spool=options(folder))
    call, under_way = make_call(), make_call()
    with held(url):
        ledger.reserve(call)
        ledger.settle(call, make_settlement(call), NOON)
        ledger.reserve(under_way)
        started = time.monotonic()
        ledger.close()
        assert time.monotonic() - started < PATIENCE_SECONDS / 2
        assert len(spools(folder)) == 1

    def orphans() -> list[OpenCall]:
        with Ledger.open(url, clock=clock, spool=options(folder)) as later:
            return [orphan.call for orphan in later.orphans(NOON)]

    assert until(orphans, "what it left") == [under_way]
    assert spools(folder) == []
    assert kinds(url)[call.call_id] == ["reserved", "settled"]


def test_a_living_sibling_takes_over_a_spool_and_tells_who_recovers(
    url: str, folder: Path, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "IDLE_SECONDS", 0.1)
    with Ledger.open(url, clock=clock, spool=options(folder)) as sibling:
        told: list[bool] = []
        sibling.when_adopted(lambda: told.append(True))
        call = make_call()
        leave_spool(folder, url, Reservation(reserved_entry(call, "proc_1"), ()))
        until(lambda: told, "the sibling told")
        assert spools(folder) == []
        assert [orphan.call for orphan in sibling.orphans(NOON)] == [call]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    made.start()
    yield made
    made.remove()


def test_a_server_that_is_stopped_and_started_misses_nothing(
    server: Server, tmp_path: Path, clock: Stopwatch
) -> None:
    spool = options(tmp_path / "spool")
    calls = [make_call() for _ in range(6)]
    with Ledger.open(server.url, clock=clock, spool=spool) as ledger:
        ledger.reserve(calls[0]).result()
        server.stop()
        try:
            for call in calls[1:3]:
                assert ledger.reserve(call).result(PATIENCE_SECONDS) is None
            with Ledger.open(server.url, clock=clock, spool=spool) as newcomer:
                for call in calls[3:]:
                    assert newcomer.reserve(call).result(PATIENCE_SECONDS) is None
                assert newcomer.health().is_away
                newcomer.settle(calls[3], make_settlement(calls[3]), NOON)
                server.start()
                until_back(newcomer)
        except BaseException:
            server.start()
            raise
        until_back(ledger)
        for call in calls[:3]:
            ledger.settle(call, make_settlement(call), NOON).result(PATIENCE_SECONDS)
        assert {o.call.call_id for o in ledger.orphans(NOON)} == {c.call_id for c in calls[4:]}
    told = kinds(server.url)
    assert [told[call.call_id] for call in calls[:4]] == [["reserved", "settled"]] * 4
    assert verify(server.url).discrepancies == ()
