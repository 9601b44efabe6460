"""Does the ledger hold together? Every rule and every balance, recomputed from the entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

import sqlalchemy as sa

from lastchunk.errors import LedgerError
from lastchunk.ledger.balances import BALANCE_FIELDS, Balance, change_by
from lastchunk.ledger.database import (
    check_schema,
    lock_all_writers,
    parse_url,
    reading_engine,
    unavailable,
    writing_engine,
)
from lastchunk.ledger.detail import decode
from lastchunk.ledger.entries import (
    NOTHING_YET,
    RESOLUTIONS,
    TOKEN_KINDS,
    Correction,
    Entry,
    EntryKind,
    Standing,
    content_hash,
    corrected_entry,
    reserved_entry,
    settled_entry,
    standing_after,
    storable,
)
from lastchunk.ledger.rows import entry_of
from lastchunk.ledger.tables import balances, entries, in_flight, processes, tags, windows
from lastchunk.ledger.windows import WINDOW_FIELDS, kept_windows, sums_of_entries
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.usage import Basis

Fact = TypeVar("Fact")

MAX_DISCREPANCIES = 1_000
"""How many are listed: a damaged ledger may have one for each entry. All are counted."""

ROWS_AT_ONCE = 1_000
"""Rows fetched at a time, and entries between two calls of `progress`."""


_ENTRY = tuple(field.name for field in fields(Entry))


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One thing that does not hold. `subject` is a call id, or an account for balances."""

    name: str
    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What an audit found. `found` counts all discrepancies; the first thousand are listed."""

    entries: int
    calls: int
    accounts: int
    found: int
    discrepancies: tuple[Discrepancy, ...]

    @property
    def is_clean(self) -> bool:
        return self.found == 0


def verify(url: str, progress: Callable[[int], None] | None = None) -> Verification:
    """Recomputes everything from the entries, in one snapshot, beside any writers.

    `progress` is told, every thousand entries, how many were checked. Memory grows with the number
    of accounts and of open calls, not of entries. Raises LedgerUnavailable if it cannot be read.
    """
    parsed = parse_url(url)
    engine = reading_engine(parsed)
    try:
        check_schema(engine, parsed)
        with unavailable(parsed, "read"), engine.connect() as connection:
            return audit(connection, progress or (lambda checked: None))
    finally:
        engine.dispose()


def audit(connection: sa.Connection, progress: Callable[[int], None]) -> Verification:
    """`verify` of what a connection sees."""
    return _Audit(connection, progress).run()


def rebuild(url: str) -> Verification:
    """Makes balances and in-flight rows anew from the entries, then verifies.

    They are projections: this changes no meaning. Open calls lose what was last seen of them only
    where their row was missing. Writers wait meanwhile.
    """
    parsed = parse_url(url)
    engine = writing_engine(parsed)
    check_schema(engine, parsed)
    with unavailable(parsed, "written"), engine.begin() as connection:
        lock_all_writers(connection)
        found = _Audit(connection, lambda checked: None)
        found.run()
        found.write_projections()
    return verify(url)


@dataclass(slots=True)
class _Audit:
    connection: sa.Connection
    progress: Callable[[int], None]
    checked: int = 0
    calls: int = 0
    found: list[Discrepancy] = field(default_factory=list)
    count: int = 0
    sums: dict[str, Balance] = field(default_factory=dict)
    open_calls: dict[str, str] = field(default_factory=dict)
    """Process ids by the ids of open calls."""

    def run(self) -> Verification:
        stored_tags = _Merge(self.connection)
        for call_id, history in groupby(self._entries(), attrgetter("call_id")):
            self.calls += 1
            self._check_call(call_id, list(history), stored_tags)
        for call_id in stored_tags.rest():
            self._report("tags_differ", call_id, "has tags but no entry")
        self._check_balances()
        self._check_in_flight()
        self._check_windows()
        return Verification(self.checked, self.calls, len(self.sums), self.count, tuple(self.found))

    def write_projections(self) -> None:
        """Puts what the entries say in the place of what is stored."""
        connection = self.connection
        connection.execute(sa.delete(windows))  # made anew when they are asked for
        connection.execute(sa.delete(balances))
        rows = [_balance_row(account, balance) for account, balance in self.sums.items()]
        if rows:
            connection.execute(sa.insert(balances), rows)
        stored = set(connection.scalars(sa.select(in_flight.c.call_id)))
        gone = [{"id": call_id} for call_id in stored - self.open_calls.keys()]
        if gone:
            connection.execute(
                sa.delete(in_flight).where(in_flight.c.call_id == sa.bindparam("id")), gone
            )
        missing = [
            {"call_id": call_id, "process_id": self.open_calls[call_id]}
            for call_id in self.open_calls.keys() - stored
        ]
        if missing:
            connection.execute(sa.insert(in_flight), missing)

    def _entries(self) -> Iterator[Entry]:
        query = sa.select(entries).order_by(entries.c.call_id, entries.c.seq)
        for row in _streamed(self.connection, query).mappings():
            self.checked += 1
            if self.checked % ROWS_AT_ONCE == 0:
                self.progress(self.checked)
            try:
                entry = entry_of(row)
            except ValueError as error:  # a kind or basis that does not exist
                self._report("unreadable", row["call_id"], f"entry {row['seq']}: {error}")
                continue
            yield entry

    def _check_call(self, call_id: str, history: list[Entry], stored_tags: _Merge) -> None:
        self._check_kinds(call_id, [entry.kind for entry in history])
        found_tags = stored_tags.of(call_id)
        if len({entry.account for entry in history}) > 1:
            self._report("accounts_differ", call_id, "its entries name different accounts")
        if all(entry.kind not in RESOLUTIONS for entry in history):
            self.open_calls[call_id] = history[0].process_id
        reserved = history[0]
        call = self._read(reserved, OpenCall) if reserved.kind is EntryKind.RESERVED else None
        standing = NOTHING_YET
        for entry in history:
            self._check_entry(entry, reserved, call, standing)
            before = self.sums.get(entry.account, Balance())
            self.sums[entry.account] = before + change_by(entry, standing)
            if entry.kind is not EntryKind.RESERVED:
                standing = standing_after(standing, entry)
        self._check_standing(call_id, standing)
        if call is not None and found_tags != {
            (storable(key), storable(value)) for key, value in call.tags
        }:
            self._report("tags_differ", call_id, f"{sorted(found_tags)} instead of {call.tags}")

    def _check_kinds(self, call_id: str, kinds: list[EntryKind]) -> None:
        reservations = kinds.count(EntryKind.RESERVED)
        resolutions = sum(kind in RESOLUTIONS for kind in kinds)
        if kinds[0] is not EntryKind.RESERVED:
            self._report("no_reservation", call_id, f"begins with {kinds[0].value}")
        if reservations > 1:
            self._report("reserved_twice", call_id, f"has {reservations} reservations")
        if resolutions > 1:
            self._report("resolved_twice", call_id, f"has {resolutions} resolutions")
        resolved_at = next((at for at, kind in enumerate(kinds) if kind in RESOLUTIONS), len(kinds))
        if EntryKind.CORRECTED in kinds[:resolved_at]:
            self._report("corrected_while_open", call_id, "was corrected before its resolution")

    def _check_entry(
        self, entry: Entry, reserved: Entry, call: OpenCall | None, before: Standing
    ) -> None:
        says = content_hash(entry.kind, entry.call_id, entry.occurred_ms, entry.detail)
        if says != entry.content_hash:
            self._report("content_changed", entry.call_id, f"entry {entry.seq}: hash differs")
        if call is None:
            return
        try:
            made = self._made_again(entry, reserved, call, before)
        except LedgerError as error:
            self._report("content_impossible", entry.call_id, f"entry {entry.seq}: {error}")
            return
        if made is None:
            return
        made = replace(
            made,
            detail=entry.detail,
            content_hash=entry.content_hash,
            seq=entry.seq,
            recorded_ms=entry.recorded_ms,
        )
        if made != entry:
            names = [name for name in _ENTRY if getattr(made, name) != getattr(entry, name)]
            self._report("columns_differ", entry.call_id, f"entry {entry.seq}: {', '.join(names)}")

    def _made_again(
        self, entry: Entry, reserved: Entry, call: OpenCall, before: Standing
    ) -> Entry | None:
        """The entry that its detail makes, by the same conversion that made it at first."""
        if entry.kind is EntryKind.RESERVED:
            return reserved_entry(call, entry.process_id)
        if entry.kind is EntryKind.CORRECTED:
            correction = self._read(entry, Correction)
            if correction is None:
                return None
            return corrected_entry(reserved, before, correction, entry.process_id)
        settlement = self._read(entry, Settlement)
        if settlement is None:
            return None
        return settled_entry(call, settlement, entry.occurred_ms, entry.process_id)

    def _check_standing(self, call_id: str, standing: Standing) -> None:
        cost = standing.cost
        if cost is not None and not cost.low <= cost.best <= cost.high:
            self._report("not_ordered", call_id, f"its cost stands at {cost}")
        for kind in TOKEN_KINDS:
            span = getattr(standing.tokens, kind)
            if span is None:
                continue
            if not 0 <= span.low <= span.best <= span.high:
                self._report("not_ordered", call_id, f"its {kind} tokens stand at {span}")
            elif span.basis >= Basis.REPORTED and span.low != span.high:
                self._report("reported_is_an_interval", call_id, f"its {kind} tokens: {span}")

    def _check_balances(self) -> None:
        stored = {
            row[0]: Balance(*row[1:])
            for row in self.connection.execute(
                sa.select(balances.c.account, *(balances.c[name] for name in BALANCE_FIELDS))
            )
        }
        for account in sorted(self.sums.keys() | stored.keys()):
            right, written = self.sums.get(account, Balance()), stored.get(account, Balance())
            differing = [
                f"{name} {getattr(written, name)} instead of {getattr(right, name)}"
                for name in BALANCE_FIELDS
                if getattr(written, name) != getattr(right, name)
            ]
            if differing:
                self._report("balance_differs", account, ", ".join(differing))

    def _check_in_flight(self) -> None:
        query = sa.select(in_flight.c.call_id, in_flight.c.process_id, processes.c.pid).outerjoin(
            processes, processes.c.process_id == in_flight.c.process_id
        )
        rows = {row.call_id: row for row in self.connection.execute(query)}
        for call_id in sorted(rows.keys() - self.open_calls.keys()):
            self._report("in_flight_differs", call_id, "is in flight but not open")
        for call_id in sorted(self.open_calls.keys() - rows.keys()):
            self._report("in_flight_differs", call_id, "is open but not in flight")
        for call_id, row in rows.items():
            if row.pid is None:
                self._report("process_unknown", call_id, f"nobody knows process {row.process_id}")

    def _check_windows(self) -> None:
        """One query a window: there are as many as limits times accounts times open spans."""
        for window, stored in list(kept_windows(self.connection)):
            right = sums_of_entries(self.connection, window)
            if stored != right:
                names = [n for n in WINDOW_FIELDS if getattr(stored, n) != getattr(right, n)]
                told = ", ".join(
                    f"{n} {getattr(stored, n)} instead of {getattr(right, n)}" for n in names
                )
                self._report("window_differs", window.prefix or "everyone", told)

    def _read(self, entry: Entry, fact_type: type[Fact]) -> Fact | None:
        try:
            return decode(entry.detail, fact_type, entry.call_id)
        except LedgerError as error:
            self._report("unreadable", entry.call_id, f"entry {entry.seq}: {error}")
            return None

    def _report(self, name: str, subject: str, message: str) -> None:
        self.count += 1
        if len(self.found) < MAX_DISCREPANCIES:
            self.found.append(Discrepancy(name, subject, message))


class _Merge:
    """The stored tags by call, read along with the entries: both are sorted by call id."""

    def __init__(self, connection: sa.Connection) -> None:
        query = sa.select(tags).order_by(tags.c.call_id)
        self._rows = iter(_streamed(connection, query))
        self._row = next(self._rows, None)
        self._strays: list[str] = []

    def of(self, call_id: str) -> set[tuple[str, str]]:
        """The tags of the next call."""
        found: set[tuple[str, str]] = set()
        while self._row is not None and self._row.call_id <= call_id:
            if self._row.call_id == call_id:
                found.add((self._row.key, self._row.value))
            else:
                self._strays.append(self._row.call_id)
            self._row = next(self._rows, None)
        return found

    def rest(self) -> Iterable[str]:
        """The ids of tagged calls that were never asked for."""
        yield from self._strays
        if self._row is not None:
            yield self._row.call_id
        for row in self._rows:
            yield row.call_id


def _streamed(connection: sa.Connection, query: sa.Select[Any]) -> sa.CursorResult[Any]:
    return connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE})


def _balance_row(account: str, balance: Balance) -> dict[str, Any]:
    return {"account": account} | {name: getattr(balance, name) for name in BALANCE_FIELDS}
