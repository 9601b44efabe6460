"""Writes one batch in one transaction: reads what is known, plans, inserts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from lastchunk.accounts import is_under
from lastchunk.ledger import bulk
from lastchunk.ledger.balances import BALANCE_FIELDS, Balance
from lastchunk.ledger.database import lock_decisions
from lastchunk.ledger.entries import EntryKind, standing_of, storable
from lastchunk.ledger.lessons import LessonBook
from lastchunk.ledger.plan import (
    Amendment,
    Extension,
    Heartbeat,
    Item,
    KnownCall,
    Learned,
    Look,
    Plan,
    Rehold,
    Reservation,
    Resolution,
    Sighting,
)
from lastchunk.ledger.rows import COLUMNS, RESERVATION_COLUMNS, entry_of, reservation_row, row_of
from lastchunk.ledger.tables import balances, entries, in_flight, processes, tags
from lastchunk.ledger.windows import (
    HOLD_FIELDS,
    Holds,
    TransactionWindows,
    Window,
    WindowBook,
    WindowSums,
    account_under,
)

_HELD = tuple(f"held_{name}" for name in HOLD_FIELDS)

_KNOWN = (
    "SELECT entries.call_id, kind, account, held_nano, opened_ms, content_hash, "
    + ", ".join(f"in_flight.{name}" for name in _HELD)
    + " FROM entries LEFT JOIN in_flight ON in_flight.call_id = entries.call_id"
    " WHERE entries.call_id IN ({list}) AND kind != 'corrected'"
)
_histories = (
    sa.select(entries)
    .where(entries.c.call_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(entries.c.seq)
)
_beat = (
    sa.update(processes)
    .where(processes.c.process_id == sa.bindparam("id"))
    .values(beat_ms=sa.bindparam("new_beat_ms"), ended_ms=sa.bindparam("new_ended_ms"))
)


class Store:
    """The writing connection. Used by one thread; opens itself again after `reset`."""

    def __init__(self, engine: sa.Engine, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._now_ms = now_ms
        self._connection: sa.Connection | None = None
        self._synced = True
        self._reserve = bulk.insert(engine, entries, RESERVATION_COLUMNS)
        self._resolve = bulk.insert(engine, entries, COLUMNS)
        self._balance = bulk.add_to(engine, balances, ("account",), BALANCE_FIELDS)
        self._tag = bulk.insert(engine, tags, ("call_id", "key", "value"))
        self._open = bulk.insert(engine, in_flight, ("call_id", "process_id", *_HELD))
        self._known = bulk.Listed(engine, _KNOWN)
        self._close = bulk.Listed(engine, "DELETE FROM in_flight WHERE call_id IN ({list})")
        self._windows = WindowBook(engine)
        held = ", ".join(f"{n} = CAST(new.column{i} AS BIGINT)" for i, n in enumerate(_HELD, 2))
        self._hold = bulk.Bulk(
            engine,
            f"UPDATE in_flight SET {held} FROM (VALUES ",
            1 + len(_HELD),
            ") AS new WHERE in_flight.call_id = new.column1",
        )
        self._lessons = LessonBook(engine)
        self._see = bulk.Bulk(
            engine,
            "UPDATE in_flight SET seen = new.column2, seen_ms = CAST(new.column3 AS BIGINT)"
            " FROM (VALUES ",
            3,
            ") AS new WHERE in_flight.call_id = new.column1",
        )

    def write(self, items: Sequence[Item]) -> list[Any]:
        """Each item's outcome, in order, once all is committed. Raises the database's errors."""
        with self._transaction(_must_last(items)) as connection:
            if any(_decides(item) for item in items):
                lock_decisions(connection)
            windows = TransactionWindows(connection, self._windows)
            if limited := _limited(items):
                windows.recall(limited)
            sums = TransactionBalances(connection, windows)
            plan = Plan(self._read_known(connection, items), sums)
            outcomes = [plan.add(item) for item in items]
            self._insert(connection, plan, sums)
            return [
                item.vigil.look(connection) if isinstance(item, Look) else outcome
                for item, outcome in zip(items, outcomes, strict=True)
            ]

    def reset(self) -> None:
        """Drops the connection, whatever its state."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sa.exc.SQLAlchemyError:
                connection.invalidate()
        self._synced = True

    def abandon(self) -> sa.Connection | None:
        """Forgets the connection without closing it, and hands it over to be kept."""
        connection, self._connection = self._connection, None
        return connection

    def _read_known(self, connection: sa.Connection, items: Sequence[Item]) -> dict[str, KnownCall]:
        known: dict[str, KnownCall] = {}
        ids = [item.entry.call_id for item in items if isinstance(item, (Reservation, Resolution))]
        ids += [call_id for item in items if isinstance(item, Rehold) for call_id in item.holds]
        ids += [item.call_id for item in items if isinstance(item, Extension)]
        if ids:
            for call_id, kind, account, held, opened_ms, written, *holds in self._known.run(
                connection, ids
            ):
                call = known.setdefault(call_id, KnownCall())
                if kind == EntryKind.RESERVED:
                    call.reserved_hash, call.account = written, account
                    call.held_nano, call.opened_ms = held, opened_ms
                    call.holds = Holds(*(amount or 0 for amount in holds))
                else:
                    call.resolved_hash = written
        corrected = [item.correction.call_id for item in items if isinstance(item, Amendment)]
        if corrected:
            known.update(_read_histories(connection, corrected))
        return known

    def _insert(self, connection: sa.Connection, plan: Plan, sums: TransactionBalances) -> None:
        now_ms = self._now_ms()
        reservations = [e for e in plan.entries if e.kind is EntryKind.RESERVED]
        others = [e for e in plan.entries if e.kind is not EntryKind.RESERVED]
        self._reserve.run(connection, [reservation_row(entry, now_ms) for entry in reservations])
        self._resolve.run(connection, [row_of(entry, now_ms) for entry in others])
        self._tag.run(connection, plan.tags)
        self._open.run(
            connection,
            [
                (call_id, process, *_held(holds))
                for call_id, (process, holds) in plan.opened.items()
            ],
        )
        # From here on rows are shared with other processes, which wait for each other: all take
        # them in the order of their keys, so that no two wait in a ring.
        self._balance.run(connection, sums.changed_rows())
        sums.windows.write()
        self._see.run(connection, [(id_, *seen) for id_, seen in sorted(plan.seen.items())])
        self._hold.run(
            connection, [(id_, *_held(holds)) for id_, holds in sorted(plan.holds.items())]
        )
        self._lessons.write(connection, plan.lessons)
        if plan.closed:
            self._close.run(connection, sorted(plan.closed))
        for beat in plan.beats:
            _write_beat(connection, beat)

    @contextmanager
    def _transaction(self, durable: bool) -> Iterator[sa.Connection]:
        if self._connection is None:
            self._connection = self._engine.connect()
        connection = self._connection
        on_sqlite = connection.dialect.name == "sqlite"
        if on_sqlite and durable is not self._synced:
            # Outside of a transaction, hence past SQLAlchemy, which would begin one.
            mode = "FULL" if durable else "NORMAL"
            connection.connection.cursor().execute(f"PRAGMA synchronous = {mode}")
            self._synced = durable
        with connection.begin():
            if not on_sqlite and not durable:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield connection


class TransactionBalances:
    """Balances as of this transaction: read when asked for, plus what the batch has changed."""

    def __init__(self, connection: sa.Connection, windows: TransactionWindows) -> None:
        self._connection = connection
        self.windows = windows
        self._changes: dict[str, Balance] = {}
        self._accounts: dict[str, Balance] = {}
        self._prefixes: dict[str, Balance] = {}

    def of(self, account: str) -> Balance:
        account = storable(account)
        if account not in self._accounts:
            stored = _stored_sum(self._connection, balances.c.account == account)
            self._accounts[account] = stored + self._changes.get(account, Balance())
        return self._accounts[account]

    def under(self, prefix: str) -> Balance:
        prefix = storable(prefix)
        if prefix not in self._prefixes:
            total = _stored_sum(self._connection, account_under(balances.c.account, prefix))
            for account, change in self._changes.items():
                if is_under(account, prefix):
                    total += change
            self._prefixes[prefix] = total
        return self._prefixes[prefix]

    def window(self, window: Window) -> WindowSums:
        return self.windows.of(window)

    def change_windows(self, account: str, opened_ms: int, change: WindowSums) -> None:
        self.windows.change(account, opened_ms, change)

    def change(self, account: str, change: Balance) -> None:
        self._changes[account] = self._changes.get(account, Balance()) + change
        if account in self._accounts:
            self._accounts[account] += change
        for prefix, total in self._prefixes.items():
            if is_under(account, prefix):
                self._prefixes[prefix] = total + change

    def changed_rows(self) -> list[tuple[Any, ...]]:
        """What to add to the table, in one order for all writers."""
        return [
            (account, *(getattr(change, name) for name in BALANCE_FIELDS))
            for account, change in sorted(self._changes.items())
        ]


def _stored_sum(connection: sa.Connection, where: sa.ColumnElement[bool]) -> Balance:
    columns = [balances.c[name] for name in BALANCE_FIELDS]
    total = Balance()
    for row in connection.execute(sa.select(*columns).where(where)):
        total += Balance(*row)
    return total


def _read_histories(connection: sa.Connection, call_ids: list[str]) -> dict[str, KnownCall]:
    found: dict[str, list[Any]] = {}
    for row in connection.execute(_histories, {"ids": call_ids}).mappings():
        found.setdefault(row["call_id"], []).append(entry_of(row))
    known: dict[str, KnownCall] = {}
    for call_id, history in found.items():
        call = known[call_id] = KnownCall(standing=standing_of(history))
        for entry in history:
            if entry.kind is EntryKind.RESERVED:
                call.reserved_hash, call.reserved = entry.content_hash, entry
                call.account, call.held_nano = entry.account, entry.held_nano
                call.opened_ms = entry.opened_ms
            elif entry.correction_id is not None:
                call.corrections[entry.correction_id] = entry.content_hash
            else:
                call.resolved_hash = entry.content_hash
    return known


def _held(holds: Holds) -> tuple[int, ...]:
    return tuple(getattr(holds, name) for name in HOLD_FIELDS)


def _write_beat(connection: sa.Connection, beat: Heartbeat) -> None:
    """Also of a process that was away for so long that its row was pruned."""
    ended_ms = beat.beat_ms if beat.ended else None
    told = {"id": beat.process.process_id, "new_beat_ms": beat.beat_ms, "new_ended_ms": ended_ms}
    if connection.execute(_beat, told).rowcount == 0:
        row = asdict(beat.process) | {"beat_ms": beat.beat_ms, "ended_ms": ended_ms}
        connection.execute(sa.insert(processes), row)


def _decides(item: Item) -> bool:
    """Whether what is written depends on sums that others may be changing."""
    return isinstance(item, Amendment | Extension) or (
        isinstance(item, Reservation) and item.admit is not None
    )


def _limited(items: Sequence[Item]) -> list[tuple[str, int]]:
    """Account and opening time of each call that limits decide about."""
    entries_ = [i.entry for i in items if isinstance(i, Reservation) and i.admit is not None]
    return [(entry.account, entry.opened_ms) for entry in entries_ if entry.opened_ms is not None]


def _must_last(items: Sequence[Item]) -> bool:
    """Sightings, beats and lessons may be lost with the machine's power: not worth a sync."""
    return any(
        item.ended
        if isinstance(item, Heartbeat)
        else not isinstance(item, (Sighting, Rehold, Extension, Learned, Look))
        for item in items
    )
