"""The ledger, opened for writing: reserve, settle, correct; and who left calls open."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from types import TracebackType
from typing import Any, TypeVar, overload

import sqlalchemy as sa

from lastchunk.clock import Clock
from lastchunk.errors import LedgerUnavailable
from lastchunk.ids import new_process_id
from lastchunk.ledger.database import (
    hidden,
    lock_decisions,
    open_schema,
    parse_url,
    unavailable,
    writing_engine,
)
from lastchunk.ledger.detail import decode, encode
from lastchunk.ledger.entries import Correction, reserved_entry, settled_entry, storable
from lastchunk.ledger.in_flight import Orphan, Process, is_dead, runs_here, this_process
from lastchunk.ledger.lessons import LessonRow, Lessons, read_lessons
from lastchunk.ledger.plan import (
    Amendment,
    BalanceView,
    Heartbeat,
    Item,
    Learned,
    Reservation,
    Resolution,
    Sighting,
)
from lastchunk.ledger.store import Store
from lastchunk.ledger.tables import entries, in_flight, is_reservation, processes
from lastchunk.ledger.writer import Writer
from lastchunk.meter.observation import Observation
from lastchunk.settlement.facts import OpenCall, Settlement

Refusal = TypeVar("Refusal")

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0
"""How long `close` waits for what was submitted, unless told otherwise."""


class Ledger:
    """One process's way to write. Open it after a fork: a child's copy refuses everything.

    Each method that writes returns at once, from any thread, and never raises: what went wrong is
    in its future. A future is done once its entry is durable.
    """

    def __init__(self, engine: sa.Engine, url: sa.URL, clock: Clock, process: Process) -> None:
        self.url = hidden(url)
        self.process_id = process.process_id
        self._engine = engine
        self._parsed_url = url
        self._clock = clock
        self._process = process
        self._store = Store(engine, clock.now_ms)
        self._writer = Writer(self._store, self.url)
        _opened.add(self)
        self._closed = False

    @classmethod
    def open(cls, url: str, *, clock: Clock) -> Ledger:
        """Opens, or makes, the ledger at a path or URL, and signs this process in.

        Raises LedgerUnavailable with what happened and what to do.
        """
        parsed = parse_url(url)
        engine = writing_engine(parsed)
        open_schema(engine, parsed)
        now_ms = clock.now_ms()
        process = this_process(new_process_id(now_ms), now_ms)
        with unavailable(parsed, "written"), engine.begin() as connection:
            connection.execute(sa.insert(processes), asdict(process))
        return cls(engine, parsed, clock, process)

    @property
    def is_forked(self) -> bool:
        """Whether this is a forked child's copy, which must open a ledger of its own."""
        return os.getpid() != self._process.pid

    @overload
    def reserve(self, call: OpenCall, admit: None = None) -> Future[None]: ...

    @overload
    def reserve(
        self, call: OpenCall, admit: Callable[[BalanceView], Refusal | None]
    ) -> Future[Refusal | None]: ...

    def reserve(
        self, call: OpenCall, admit: Callable[[BalanceView], Any] | None = None
    ) -> Future[Any]:
        """Writes the reservation; the call may be sent when the result is None.

        `admit` decides inside the transaction, on balances that nobody changes meanwhile: what it
        returns, unless None, becomes the result, and nothing is written. The same call again is a
        no-op; other content under its id fails with EntryConflict.
        """

        def make() -> Item:
            tags = tuple((storable(key), storable(value)) for key, value in call.tags)
            return Reservation(reserved_entry(call, self.process_id), tags, admit)

        return self._submit(make)

    def settle(self, call: OpenCall, settlement: Settlement, occurred_ms: int) -> Future[bool]:
        """Resolves a call, once. True: written now; False: the same was written before.

        Fails with EntryConflict where another resolution stands, with CallNotFound where the call
        was not reserved. It may be submitted while the reservation is still on its way.
        """
        return self._submit(
            lambda: Resolution(settled_entry(call, settlement, occurred_ms, self.process_id))
        )

    def correct(self, correction: Correction) -> Future[bool]:
        """Writes what was learned after the call was resolved, as a difference to where it stands.

        True: written now; False: this source said the same before. Fails with EntryConflict where
        it said something else, with LedgerError while the call is open.
        """
        return self._submit(lambda: Amendment(correction, self.process_id))

    def checkpoint(self, items: Sequence[tuple[str, Observation]]) -> Future[None]:
        """Writes down what was seen of open calls, by call id. Resolved calls are left alone.

        Survives the process, but not the machine's power: it is not worth a sync of the disk.
        """
        return self._submit(
            lambda: Sighting({id_: encode(seen) for id_, seen in items}, self._clock.now_ms())
        )

    def beat(self) -> Future[None]:
        """Says that this process lives. Due every ten seconds for the sake of other hosts."""
        return self._submit(lambda: Heartbeat(self.process_id, self._clock.now_ms()))

    def learn(self, rows: Sequence[LessonRow]) -> Future[None]:
        """Keeps what finished calls taught. As `checkpoint`, not worth a sync of the disk."""
        return self._submit(lambda: Learned(tuple(rows)))

    def lessons(self) -> Lessons:
        """What finished calls have taught so far. Reads the database: not for an event loop."""
        self._refuse_fork()
        with unavailable(self._parsed_url, "read"), self._engine.begin() as connection:
            lock_decisions(connection)
            return read_lessons(connection)

    def orphans(self, now_ms: int) -> list[Orphan]:
        """The open calls whose process is dead. Reads the database: not for an event loop.

        Two processes may find the same ones: the first settlement stands.
        """
        self._refuse_fork()
        query = (
            sa.select(in_flight.c.call_id, in_flight.c.seen, entries.c.detail)
            .join(entries, entries.c.call_id == in_flight.c.call_id)
            .where(
                is_reservation(entries),
                in_flight.c.process_id.in_(sa.bindparam("ids", expanding=True)),
            )
            .order_by(in_flight.c.call_id)
        )
        with unavailable(self._parsed_url, "read"), self._reading() as connection:
            dead = [
                process.process_id
                for row in connection.execute(_processes_with_calls).mappings()
                if is_dead(process := Process(**row), self._process, now_ms, runs_here)
            ]
            rows = connection.execute(query, {"ids": dead}).all() if dead else []
        orphans = (_orphan(row.call_id, row.detail, row.seen) for row in rows)
        return [orphan for orphan in orphans if orphan is not None]

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Writes what was submitted and signs this process out; later submissions fail.

        Raises LedgerUnavailable where that took longer than the timeout. May be called twice.
        """
        if self._closed or self.is_forked:
            return
        self._closed = True
        self._submit(lambda: Heartbeat(self.process_id, self._clock.now_ms(), ended=True))
        if not self._writer.close(timeout):
            raise LedgerUnavailable(
                f"the ledger at {self.url} was not written to the end within {timeout} s: calls"
                " that are missing will be recovered as lost"
            )

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _submit(self, make: Callable[[], Item]) -> Future[Any]:
        try:
            self._refuse_fork()
            item = make()
        except Exception as error:  # an ending must not raise: its future tells
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed
        return self._writer.submit(item)

    def _refuse_fork(self) -> None:
        if self.is_forked:
            raise LedgerUnavailable(
                f"the ledger at {self.url} was opened before a fork: open it in the child"
            )

    def _reading(self) -> sa.Connection:
        return self._engine.connect().execution_options(reads=True)


def _orphan(call_id: str, detail: str, seen: str | None) -> Orphan | None:
    """One that cannot be read must not keep the others from being recovered."""
    try:
        call = decode(detail, OpenCall, call_id)
    except LedgerUnavailable as error:
        logger.error("not recovered: %s", error)
        return None
    try:
        return Orphan(call, None if seen is None else decode(seen, Observation, call_id))
    except LedgerUnavailable as error:
        logger.error("recovered without what was seen of it: %s", error)
        return Orphan(call, None)


_opened: weakref.WeakSet[Ledger] = weakref.WeakSet()
_inherited: list[object] = []
"""In a forked child: its parent's connections, kept so that nothing ever closes them here. Closing
says goodbye to the server on the socket that the parent still uses."""


def _let_go_of_the_parents() -> None:
    _inherited.extend(ledger._store.abandon() for ledger in _opened)
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_the_parents)

_processes_with_calls = sa.select(processes).where(
    processes.c.process_id.in_(sa.select(in_flight.c.process_id))
)
