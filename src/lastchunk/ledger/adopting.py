"""Spools of processes that died: carried into the ledger by whoever finds them first."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, astuple
from pathlib import Path

import sqlalchemy as sa

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import bulk
from lastchunk.ledger.database import BUSY_SECONDS, hidden, open_schema, unavailable
from lastchunk.ledger.in_flight import Process
from lastchunk.ledger.plan import Heartbeat
from lastchunk.ledger.replay import Replay
from lastchunk.ledger.spool import SUFFIX, SpoolFile, ledger_key, ownerless
from lastchunk.ledger.spool_lines import Damage
from lastchunk.ledger.store import Store
from lastchunk.ledger.tables import processes
from lastchunk.ledger.vigil import prune
from lastchunk.ledger.writer import write_items

logger = logging.getLogger(__name__)


def sign_in(engine: sa.Engine, url: sa.URL, process: Process) -> None:
    """Makes a process known in the ledger, once. Raises LedgerUnavailable."""
    columns = tuple(asdict(process))
    insert = bulk.insert(engine, processes, columns, " ON CONFLICT (process_id) DO NOTHING")
    with unavailable(url, "written"), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'")
        prune(connection, process.started_ms)
        insert.run(connection, [astuple(process)])


def adopt(folder: Path, engine: sa.Engine, url: sa.URL, now_ms: Callable[[], int]) -> int:
    """Carries the spools of dead processes into the ledger; how many entries they had.

    Raises LedgerUnavailable where the ledger is away: the spools stay for another time.
    """
    carried = 0
    store = Store(engine, now_ms)
    try:
        for file in ownerless(folder, ledger_key(url)):
            try:
                with closing(file):
                    carried += _adopt_one(file, engine, url, store, now_ms)
            except OSError as error:
                logger.error("the spool %s cannot be read or removed: %s", file.path, error)
    finally:
        store.reset()
    return carried


def _adopt_one(
    file: SpoolFile, engine: sa.Engine, url: sa.URL, store: Store, now_ms: Callable[[], int]
) -> int:
    if file.is_of_another_version:
        logger.error(
            "the spool %s was written by another version of lastchunk and is left as it is: start"
            " that version once, or upgrade this one",
            file.path,
        )
        return 0
    name = hidden(url)
    owner = _owner_of(file)
    sign_in(engine, url, owner)
    replay = Replay(file, name)
    while not replay.is_done:
        replay.step(store)
    write_items(store, [Heartbeat(owner, now_ms(), ended=True)], name, attempts=1)
    replay.finish()
    logger.warning(
        "%d entries that a process had spooled before it died are in the ledger", replay.carried
    )
    return replay.carried


def _owner_of(file: SpoolFile) -> Process:
    """The owner as it wrote itself down; only its name where that is damaged."""
    with closing(file.lines(file.start)) as lines:
        for _, line in lines:
            if not isinstance(line, Damage) and line.owner is not None:
                return line.owner
            break
    return Process(file.process_id, "", "", "", "", 0, None, 0, 0)


class LateStore:
    """A store of a ledger that could not be opened yet: does so before the first batch."""

    def __init__(
        self,
        store: Store,
        engine: sa.Engine,
        url: sa.URL,
        process: Process,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._is_open = False
        self._engine, self._url, self._process = engine, url, process

    def write(self, items: object) -> list[object]:
        """As the store's; raises LedgerUnavailable where the ledger still cannot be opened."""
        if not self._is_open:
            open_schema(self._engine, self._url, self._now_ms())
            sign_in(self._engine, self._url, self._process)
            self._is_open = True
        return self._store.write(items)  # type: ignore[arg-type]

    def reset(self) -> None:
        self._store.reset()


class Adopter:
    """Sees to the spools of siblings that died, and tells who recovers their calls."""

    def __init__(self, folder: Path, engine: sa.Engine, url: sa.URL, now_ms: Callable[[], int]):
        self._folder, self._key = folder, ledger_key(url)
        self._engine, self._url, self._now_ms = engine, url, now_ms
        self._thread: threading.Thread | None = None
        self.after: Callable[[], object] | None = None
        """Runs, on a thread, when entries of others were carried."""
        self.owes = False
        """Run `after` next time, whatever is found: it could not be done at the start."""

    def adopt(self) -> int:
        """As the function; 0 where the ledger is away or fails on the way."""
        try:
            return adopt(self._folder, self._engine, self._url, self._now_ms)
        except LedgerUnavailable as error:
            logger.warning("spools of processes that died wait for the ledger: %s", error)
            return 0

    def look(self, own: str) -> None:
        """Starts the work on a thread where there may be some. Quick."""
        if self.after is None or (self._thread is not None and self._thread.is_alive()):
            return
        if self.owes or self._finds_any(own):
            self._thread = threading.Thread(target=self._run, name="lastchunk-adopt", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        if (self.adopt() or self.owes) and self.after is not None:
            self.owes = False
            try:
                self.after()
            except Exception as error:  # the next to start recovers them
                logger.error("calls of dead processes are not recovered: %s", type(error).__name__)

    def _finds_any(self, own: str) -> bool:
        """Whether there is a spool of another process, dead or alive."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return False
        return any(n.startswith(self._key) and n.endswith(SUFFIX) and own not in n for n in names)
