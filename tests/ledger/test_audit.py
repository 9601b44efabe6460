"""`verify` finds each thing that can be wrong, and nothing where nothing is."""

from typing import Any

import pytest
from ledger_facts import (
    COUNTED,
    NOON,
    Stopwatch,
    disarm,
    execute,
    make_call,
    make_correction,
    make_settlement,
)

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import Ledger, Reader, verify
from lastchunk.ledger import audit as audit_module
from lastchunk.ledger.audit import rebuild
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost


@pytest.fixture
def written(url: str, clock: Stopwatch) -> str:
    """A closed ledger with a settled and corrected call, a released one and an open one."""
    with Ledger.open(url, clock=clock) as ledger:
        settled, released, open_call = make_call("call_s"), make_call("call_r"), make_call("call_o")
        for call in (settled, released, open_call):
            ledger.reserve(call)
        ledger.settle(settled, make_settlement(settled, Cost(1, 2, 3), usage=COUNTED), NOON)
        ledger.settle(released, make_settlement(released, None, nothing_used=True), NOON)
        ledger.correct(make_correction(settled, cost=Cost(2, 2, 2)))
        ledger.checkpoint([("call_o", Observation(frames=3))])
    return url


def test_a_ledger_that_holds_together_is_clean(written: str) -> None:
    found = verify(written)
    assert found.is_clean
    assert (found.entries, found.calls, found.accounts) == (6, 3, 1)


def test_an_empty_ledger_is_clean(url: str, clock: Stopwatch) -> None:
    Ledger.open(url, clock=clock).close()
    assert verify(url).is_clean


_COPY = (
    "INSERT INTO entries (call_id, kind, account, way, dialect, model, upstream, held_nano,"
    " opened_ms, occurred_ms, recorded_ms, process_id, detail, content_hash, ending, correction_id)"
    " SELECT {id}, {kind}, account, way, dialect, model, upstream, held_nano, opened_ms,"
    " occurred_ms, recorded_ms, process_id, detail, content_hash, {ending}, {source} FROM entries"
    " WHERE call_id = '{of}' AND kind = '{like}'"
)

# what somebody does who can switch the rules off → the names of what must be found
DAMAGE: dict[str, tuple[str, set[str]]] = {
    "a cheaper call": (
        "UPDATE entries SET cost_low_nano = 0, cost_best_nano = 0 WHERE kind = 'settled'",
        {"columns_differ", "balance_differs", "not_ordered"},
    ),
    "another content": (
        "UPDATE entries SET detail = replace(detail, '30,\"high\"', '29,\"high\"')"
        " WHERE kind = 'settled'",
        {"content_changed", "columns_differ"},
    ),
    "another time": (
        "UPDATE entries SET occurred_ms = occurred_ms + 1 WHERE kind = 'released'",
        {"content_changed"},
    ),
    "another model": (
        "UPDATE entries SET model = 'free' WHERE kind = 'reserved' AND call_id = 'call_o'",
        {"columns_differ"},
    ),
    "unreadable content": (
        "UPDATE entries SET detail = '{' WHERE kind = 'settled'",
        {"content_changed", "unreadable"},
    ),
    "a basis that does not exist": (
        "UPDATE entries SET basis = 17 WHERE kind = 'settled'",
        {
            "unreadable",
            "corrected_while_open",
            "in_flight_differs",
            "balance_differs",
            "columns_differ",
            "not_ordered",
        },
    ),
    "a call that vanished": ("DELETE FROM entries WHERE call_id = 'call_r'", {"tags_differ",
                                                                            "balance_differs"}),
    "a reservation that vanished": (
        "DELETE FROM entries WHERE call_id = 'call_s' AND kind = 'reserved'",
        {"no_reservation", "balance_differs"},
    ),
    "a resolution that vanished": (
        "DELETE FROM entries WHERE call_id = 'call_r' AND kind = 'released'",
        {"in_flight_differs", "balance_differs"},
    ),
    "an account changed half way": (
        "UPDATE entries SET account = 'else' WHERE kind = 'settled'",
        {"accounts_differ", "columns_differ", "balance_differs"},
    ),
    "a tag changed": ("UPDATE tags SET value = 'x' WHERE call_id = 'call_s'", {"tags_differ"}),
    "a tag removed": ("DELETE FROM tags WHERE call_id = 'call_o'", {"tags_differ"}),
    "a tag of no call": ("INSERT INTO tags VALUES ('call_z', 'a', 'b')", {"tags_differ"}),
    "a tag of no call, before all": (
        "INSERT INTO tags VALUES ('call_a', 'a', 'b')",
        {"tags_differ"},
    ),
    "a balance changed": ("UPDATE balances SET charge = charge - 1", {"balance_differs"}),
    "a balance removed": ("DELETE FROM balances", {"balance_differs"}),
    "a balance of nobody": (
        "INSERT INTO balances VALUES ('nobody', 1, 0, 0, 0, 0, 0, 0, 0, 0)",
        {"balance_differs"},
    ),
    "an open call that nobody has": ("DELETE FROM in_flight", {"in_flight_differs"}),
    "a settled call in flight": (
        "INSERT INTO in_flight (call_id, process_id) SELECT 'call_s', process_id FROM in_flight",
        {"in_flight_differs"},
    ),
    "a process that nobody knows": ("DELETE FROM processes", {"process_unknown"}),
    "a correction without a resolution": (
        _COPY.format(
            id="call_id", kind="'corrected'", ending="NULL", source="'x'", of="call_o",
            like="reserved",
        ),
        {"corrected_while_open", "content_changed", "unreadable", "balance_differs"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(written: str, name: str) -> None:
    statement, expected = DAMAGE[name]
    disarm(written)
    execute(written, statement)
    found = verify(written)
    assert {discrepancy.name for discrepancy in found.discrepancies} == expected, found
    assert found.found == len(found.discrepancies)


@pytest.mark.parametrize(
    ("kind", "like", "of", "name"),
    [("'reserved'", "reserved", "call_o", "reserved_twice"),
     ("'released'", "released", "call_r", "resolved_twice")],
)  # fmt: skip
def test_doubles_are_found_where_even_the_index_is_gone(
    written: str, kind: str, like: str, of: str, name: str
) -> None:
    disarm(written)
    index = "entries_one_reservation" if like == "reserved" else "entries_one_resolution"
    ending = "NULL" if like == "reserved" else "'completed'"
    copy = _COPY.format(id="call_id", kind=kind, ending=ending, source="NULL", of=of, like=like)
    execute(written, f"DROP INDEX {index}", copy)
    assert name in {discrepancy.name for discrepancy in verify(written).discrepancies}


def test_what_is_wrong_is_told_with_its_subject(written: str) -> None:
    execute(written, "UPDATE balances SET held = held + 5")
    (discrepancy,) = verify(written).discrepancies
    assert discrepancy.subject == "team/ann"
    assert discrepancy.message == "held 9005 instead of 9000"


def test_the_list_is_bounded_and_the_count_is_not(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "MAX_DISCREPANCIES", 2)
    disarm(written)
    execute(written, "UPDATE entries SET content_hash = 'x'")
    found = verify(written)
    assert (found.found, len(found.discrepancies)) == (6, 2)


def test_progress_is_told_while_it_goes(url: str, clock: Stopwatch) -> None:
    with Ledger.open(url, clock=clock) as ledger:
        for _ in range(2_500):
            ledger.reserve(make_call())
    told: list[int] = []
    assert verify(url, told.append).entries == 2_500
    assert told == [1_000, 2_000]


def test_projections_that_were_deleted_are_made_again_from_the_entries(
    written: str, clock: Stopwatch
) -> None:
    def read() -> Any:
        with Reader.open(written) as reader:
            return reader.accounts(), [(r.call_id, r.is_open) for r in reader.calls()]

    before = read()
    execute(written, "DELETE FROM balances", "DELETE FROM in_flight")
    assert not verify(written).is_clean
    assert rebuild(written).is_clean
    assert read() == before
    with Ledger.open(written, clock=clock) as ledger:
        assert [orphan.call.call_id for orphan in ledger.orphans(NOON)] == ["call_o"]


def test_rebuilding_what_is_right_changes_nothing(written: str) -> None:
    assert rebuild(written).is_clean
    with Reader.open(written) as reader:
        assert reader.call("call_o").seen == Observation(frames=3)


def test_verify_runs_beside_a_writer(ledger: Ledger, url: str) -> None:
    for _ in range(5):
        futures = []
        for _ in range(60):
            call = make_call()
            ledger.reserve(call)
            futures.append(ledger.settle(call, make_settlement(call), NOON))
        assert verify(url).discrepancies == ()
        assert all(future.result() for future in futures)


def test_what_is_no_ledger_cannot_be_verified(tmp_path: Any) -> None:
    with pytest.raises(LedgerUnavailable):
        verify(str(tmp_path / "none.db"))
