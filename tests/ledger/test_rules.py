"""The database itself keeps the rules: whoever writes past our code is refused too."""

import pytest
from ledger_facts import NOON, Stopwatch, execute, make_call, make_correction, make_settlement
from sqlalchemy.exc import DBAPIError

from lastchunk.ledger import Ledger
from lastchunk.pricing.cost import Cost

_COPY = (
    "INSERT INTO entries (call_id, kind, account, way, dialect, model, upstream, held_nano,"
    " opened_ms, occurred_ms, recorded_ms, process_id, detail, content_hash, ending, correction_id,"
    " cost_low_nano, cost_best_nano, cost_high_nano)"
    " SELECT {call_id}, '{kind}', {account}, way, dialect, model, upstream, {held}, opened_ms,"
    " occurred_ms, recorded_ms, process_id, detail, 'forged', {ending}, {source}, {cost}"
    " FROM entries WHERE kind = 'reserved' AND call_id = '{of}'"
)


def copy_of(of: str, kind: str, **changes: str) -> str:
    """An entry forged from a call's reservation."""
    values = {
        "call_id": "call_id",
        "account": "account",
        "held": "held_nano",
        "ending": "'completed'" if kind in ("settled", "released") else "NULL",
        "source": "'a source'" if kind == "corrected" else "NULL",
        "cost": "1, 2, 3",
        "of": of,
    }
    return _COPY.format(kind=kind, **(values | changes))


@pytest.fixture
def calls(ledger: Ledger) -> tuple[str, str]:
    """The ids of an open call and of one that is settled and corrected."""
    open_call, settled = make_call("call_open"), make_call("call_settled")
    ledger.reserve(open_call)
    ledger.reserve(settled)
    ledger.settle(settled, make_settlement(settled), NOON)
    ledger.correct(make_correction(settled, cost=Cost(1, 1, 1))).result()
    return open_call.call_id, settled.call_id


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET charge_nano = 0",
        "UPDATE entries SET recorded_ms = recorded_ms + 1 WHERE kind = 'settled'",
        "DELETE FROM entries",
        "DELETE FROM entries WHERE kind = 'corrected'",
        "UPDATE tags SET value = 'other'",
        "DELETE FROM tags",
    ],
)
def test_entries_and_tags_are_never_changed_or_deleted(
    calls: tuple[str, str], url: str, statement: str
) -> None:
    with pytest.raises(DBAPIError, match="never changed or deleted"):
        execute(url, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE entries",
        "TRUNCATE tags",
        "INSERT INTO entries SELECT * FROM entries WHERE kind = 'reserved'"
        " ON CONFLICT (seq) DO UPDATE SET charge_nano = 0",
    ],
)
def test_postgresqls_own_ways_around_are_closed(
    calls: tuple[str, str], url: str, statement: str
) -> None:
    if not url.startswith("postgresql"):
        pytest.skip("PostgreSQL only")
    with pytest.raises(DBAPIError, match="never changed or deleted"):
        execute(url, statement)


def test_sqlites_replace_is_refused(calls: tuple[str, str], url: str) -> None:
    if url.startswith("postgresql"):
        pytest.skip("SQLite only")
    open_id, settled_id = calls
    for statement in (
        "REPLACE INTO entries SELECT * FROM entries WHERE kind = 'settled'",
        copy_of(open_id, "reserved").replace("INSERT", "REPLACE", 1),
        copy_of(settled_id, "released").replace("INSERT", "REPLACE", 1),
        copy_of(settled_id, "corrected", source="'receipt:1'").replace("INSERT", "REPLACE", 1),
    ):
        with pytest.raises(DBAPIError, match="exists already"):
            execute(url, statement)


OPEN, SETTLED = 0, 1

# which call's reservation is copied · as what · with what changed
FORGED = {
    "a second reservation": (OPEN, "reserved", {}),
    "a second resolution": (SETTLED, "settled", {}),
    "a release after a settlement": (SETTLED, "released", {}),
    "a resolution without a reservation": (OPEN, "settled", {"call_id": "'call_unheard_of'"}),
    "a resolution of another account": (OPEN, "settled", {"account": "'else'"}),
    "a resolution that gives back more": (OPEN, "settled", {"held": "held_nano + 1"}),
    "a resolution that gives back nothing": (OPEN, "settled", {"held": "NULL"}),
    "a resolution without an ending": (OPEN, "settled", {"ending": "NULL"}),
    "a correction of an open call": (OPEN, "corrected", {}),
    "a correction of no call": (OPEN, "corrected", {"call_id": "'call_unheard_of'"}),
    "a correction without a source": (SETTLED, "corrected", {"source": "NULL"}),
    "the same correction again": (SETTLED, "corrected", {"source": "'receipt:1'"}),
    "an unknown kind": (OPEN, "forgiven", {}),
    "a cost out of order": (OPEN, "settled", {"cost": "3, 2, 1"}),
    "half a cost": (OPEN, "settled", {"cost": "1, 2, NULL"}),
}


@pytest.mark.parametrize("forged", FORGED)
def test_no_entry_is_written_out_of_order(calls: tuple[str, str], url: str, forged: str) -> None:
    which, kind, changes = FORGED[forged]
    with pytest.raises(DBAPIError):
        execute(url, copy_of(calls[which], kind, **changes))


def test_the_same_statement_with_nothing_wrong_in_it_is_taken(url: str, clock: Stopwatch) -> None:
    call = make_call()
    with Ledger.open(url, clock=clock) as ledger:
        ledger.reserve(call).result()
    execute(url, copy_of(call.call_id, "settled"), copy_of(call.call_id, "corrected"))
