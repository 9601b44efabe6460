"""The ledger, opened for writing: reserve, settle, correct; and who left calls open."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, overload

import sqlalchemy as sa

from lastchunk.clock import Clock
from lastchunk.errors import LedgerUnavailable
from lastchunk.ids import new_process_id
from lastchunk.ledger.adopting import Adopter, LateStore, sign_in
from lastchunk.ledger.database import (
    hidden,
    lock_decisions,
    may_come_back,
    open_schema,
    parse_url,
    unavailable,
    writing_engine,
)
from lastchunk.ledger.detail import encode
from lastchunk.ledger.entries import Correction, Entry, reserved_entry, settled_entry, storable
from lastchunk.ledger.in_flight import Orphan, Process, is_dead, runs_here, this_process
from lastchunk.ledger.lessons import LessonRow, Lessons, read_lessons
from lastchunk.ledger.outage import WELL, LedgerHealth
from lastchunk.ledger.plan import (
    Amendment,
    BalanceView,
    Extension,
    Heartbeat,
    Item,
    Learned,
    Look,
    Rehold,
    Reservation,
    Resolution,
    Sighting,
)
from lastchunk.ledger.rows import entry_of
from lastchunk.ledger.spool import HAS_LOCKS, SpoolFile, SpoolOptions, ledger_key
from lastchunk.ledger.spooling import SpoolingWriter
from lastchunk.ledger.store import Store
from lastchunk.ledger.tables import entries, in_flight, processes
from lastchunk.ledger.vigil import Vigil, orphans_of
from lastchunk.ledger.windows import Holds, holds_of
from lastchunk.ledger.writer import Writer
from lastchunk.meter.observation import Observation
from lastchunk.settlement.facts import OpenCall, Settlement

Refusal = TypeVar("Refusal")

logger = logging.getLogger(__name__)

RESERVE_SECONDS = 10.0
"""How long a call waits for its reservation where there is no spool."""

CLOSE_SECONDS = 10.0
"""How long `close` waits for what was submitted, unless told otherwise."""


class Ledger:
    """One process's way to write. Open it after a fork: a child's copy refuses everything.

    Each method that writes returns at once, from any thread, and never raises: what went wrong is
    in its future. A future is done once its entry is durable.
    """

    def __init__(
        self,
        engine: sa.Engine,
        url: sa.URL,
        clock: Clock,
        process: Process,
        spool: SpoolOptions | None = None,
        away: LedgerUnavailable | None = None,
        gather_seconds: float = 0.0,
    ) -> None:
        self.url = hidden(url)
        self.process_id = process.process_id
        self._engine = engine
        self._parsed_url = url
        self._clock = clock
        self._process = process
        self._store = Store(engine, clock.now_ms)
        self.reserve_seconds = RESERVE_SECONDS if spool is None else spool.most_seconds
        """How long a call may wait for its reservation: later it is not done in time."""
        self.refuses_when_away = spool is not None and not spool.passes
        """Whether a call whose reservation fails must not be sent."""
        self._adopter: Adopter | None = None
        self._writer = self._open_writer(spool, away, gather_seconds)
        self._vigil = Vigil(process)
        _opened.add(self)
        self._closed = False

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Clock,
        spool: SpoolOptions | None = None,
        gather_seconds: float = 0.0,
    ) -> Ledger:
        """Opens, or makes, the ledger at a path or URL, and signs this process in.

        With a spool that lets calls pass, a ledger that is away is opened when it comes back.
        Spools of dead processes are carried into it first. `gather_seconds` is how long
        settlements and the like may wait for others to be written with. Raises LedgerUnavailable
        with what happened and what to do.
        """
        parsed = parse_url(url)
        engine = writing_engine(parsed)
        now_ms = clock.now_ms()
        process = this_process(new_process_id(now_ms), now_ms)
        away = None
        try:
            open_schema(engine, parsed, now_ms)
            sign_in(engine, parsed, process)
        except LedgerUnavailable as error:
            if spool is None or not spool.passes or not may_come_back(error):
                raise
            away = error
        ledger = cls(engine, parsed, clock, process, spool, away, gather_seconds)
        if ledger._adopter is not None and away is None:
            ledger._adopter.adopt()
        return ledger

    def _open_writer(
        self, spool: SpoolOptions | None, away: LedgerUnavailable | None, gather_seconds: float
    ) -> Writer:
        if spool is None or not HAS_LOCKS:
            return Writer(self._store, self.url, gather_seconds)
        engine, url, now_ms = self._engine, self._parsed_url, self._clock.now_ms
        self._adopter = adopter = Adopter(spool.folder, engine, url, now_ms)
        adopter.owes = away is not None
        late = LateStore(self._store, engine, url, self._process, now_ms)
        return SpoolingWriter(
            self._store if away is None else late,
            self.url,
            create=partial(SpoolFile.create, spool.folder, ledger_key(url), self._process),
            options=spool,
            process=self._process,
            now_ms=now_ms,
            idle=partial(adopter.look, self.process_id),
            away=None if away is None else str(away),
            gather_seconds=gather_seconds,
        )

    def health(self) -> LedgerHealth:
        """Whether the ledger is away, and what waits for it. Asks no database."""
        return self._writer.health() if isinstance(self._writer, SpoolingWriter) else WELL

    def when_adopted(self, recover: Callable[[], object]) -> None:
        """Has this run, on a thread, when spools of dead processes have come into the ledger.

        Also when a ledger that was away at the start has come back.
        """
        if self._adopter is not None:
            self._adopter.after = recover

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
            holds = holds_of(call.forecast)
            return Reservation(reserved_entry(call, self.process_id), tags, admit, holds)

        return self._submit(make)

    def settle(self, call: OpenCall, settlement: Settlement, occurred_ms: int) -> Future[bool]:
        """Resolves a call, once. True: written now; False: the same was written before.

        Fails with EntryConflict where another resolution stands, with CallNotFound where the call
        was not reserved. It may be submitted while the reservation is still on its way.
        """
        return self._submit(
            lambda: Resolution(settled_entry(call, settlement, occurred_ms, self.process_id))
        )

    def correct(
        self, correction: Correction, *, if_better: bool = False, if_corrected: int | None = None
    ) -> Future[bool]:
        """Writes what was learned after the call was resolved, as a difference to where it stands.

        True: written now; False: this source said the same before, or (where that is asked for)
        the call stands as well or better, or was not corrected just so many times. Fails with
        EntryConflict where it said something else, with LedgerError while the call is open.
        """
        return self._submit(lambda: Amendment(correction, self.process_id, if_better, if_corrected))

    def checkpoint(self, items: Sequence[tuple[str, Observation]]) -> Future[None]:
        """Writes down what was seen of open calls, by call id. Resolved calls are left alone.

        Survives the process, but not the machine's power: it is not worth a sync of the disk. Fails
        with LedgerUnavailable while the ledger is away: none of it is kept, it must be said again.
        """
        return self._submit(
            lambda: Sighting({id_: encode(seen) for id_, seen in items}, self._clock.now_ms())
        )

    def rehold(self, holds: Mapping[str, Holds]) -> Future[None]:
        """What open calls hold in the windows from now on, by call id; resolved ones hold nothing.

        As `checkpoint`, not worth a sync, and not kept while the ledger is away: what is lost of it
        only holds more than it must.
        """
        return self._submit(lambda: Rehold(dict(holds)))

    def extend(
        self, call_id: str, holds: Holds, admit: Callable[[BalanceView], Refusal | None]
    ) -> Future[Refusal | None]:
        """An open call holds so much from now on, if that is admitted: as `reserve` asks it.

        Where the ledger is away nobody is asked, and the result is None.
        """
        return self._submit(lambda: Extension(call_id, holds, admit))

    def beat(self) -> Future[None]:
        """Says that this process lives. Due every two seconds for the sake of other hosts."""
        return self._submit(lambda: Heartbeat(self._process, self._clock.now_ms()))

    def learn(self, rows: Sequence[LessonRow]) -> Future[None]:
        """Keeps what finished calls taught. As `checkpoint`, not worth a sync of the disk."""
        return self._submit(lambda: Learned(tuple(rows)))

    def lessons(self) -> Lessons:
        """What finished calls have taught so far. Reads the database: not for an event loop."""
        self._refuse_fork()
        with unavailable(self._parsed_url, "read"), self._engine.begin() as connection:
            lock_decisions(connection)
            return read_lessons(connection)

    def correction(self, call_id: str, correction_id: str) -> Entry | None:
        """The entry of one correction. Reads the database: not for an event loop.

        None where it is not there, or waits in the spool.
        """
        self._refuse_fork()
        query = sa.select(entries).where(
            entries.c.call_id == call_id, entries.c.correction_id == storable(correction_id)
        )
        with unavailable(self._parsed_url, "read"), self._reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
            return None if row is None else entry_of(row)

    def orphans(self, now_ms: int) -> list[Orphan]:
        """The open calls whose process is dead. Reads the database: not for an event loop.

        Two processes may find the same ones: the first settlement stands.
        """
        self._refuse_fork()
        with unavailable(self._parsed_url, "read"), self._reading() as connection:
            dead = [
                process.process_id
                for row in connection.execute(_processes_with_calls).mappings()
                if is_dead(process := Process(**row), self._process, now_ms, runs_here)
            ]
            return orphans_of(connection, dead)

    def watch(self) -> Future[list[Orphan]]:
        """The open calls of processes found dead, as `orphans`, but of some hundreds at once.

        Due every two seconds, on the writer's own connection. Other hosts' processes are known by
        their silence over several of these looks, and no clock is compared.
        """
        looked = self._submit(lambda: Look(self._vigil))
        looked.add_done_callback(
            lambda done: None if done.exception() else self._vigil.count_look()
        )
        return looked

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Writes what was submitted and signs this process out; later submissions fail.

        Raises LedgerUnavailable where that took longer than the timeout. May be called twice.
        """
        if self._closed or self.is_forked:
            return
        self._closed = True
        self._submit(lambda: Heartbeat(self._process, self._clock.now_ms(), ended=True))
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


_opened: weakref.WeakSet[Ledger] = weakref.WeakSet()
_inherited: list[object] = []
"""In a forked child: its parent's connections, kept so that nothing ever closes them here. Closing
says goodbye to the server on the socket that the parent still uses."""


def _let_go_of_the_parents() -> None:
    _inherited.extend(ledger._store.abandon() for ledger in _opened)
    for ledger in _opened:
        if isinstance(ledger._writer, SpoolingWriter):
            ledger._writer.let_go()
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_the_parents)

_processes_with_calls = sa.select(processes).where(
    processes.c.process_id.in_(sa.select(in_flight.c.process_id))
)
