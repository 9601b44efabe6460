"""The one thread that writes: it gathers what is submitted and commits it in batches."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from sqlalchemy.exc import DBAPIError, IntegrityError

from lastchunk.errors import LedgerError, LedgerUnavailable
from lastchunk.ledger.database import is_outage
from lastchunk.ledger.plan import Amendment, Extension, Failed, Item, Reservation, Resolution

MAX_BATCH = 512
"""Items in one transaction: beyond some hundred the commit's cost is spread thin enough, and a
larger batch only makes its first item wait longer."""

MAX_QUEUED_RESERVATIONS = 8_192
"""Submissions waiting before new calls are refused: about a second's work behind a slow disk."""

MAX_QUEUED = 2 * MAX_QUEUED_RESERVATIONS
"""The same for all else. The rest of the room is kept for endings: a call that is not opened costs
nothing, an ending that is not written does."""

WRITE_ATTEMPTS = 3
"""Tries of a batch on a database that is busy, gone or was raced: each has waited already."""

GATHER_SECONDS = 0.01
"""How long what nobody waits for may wait for company. A transaction costs as much as what is in
it, and half of them would hold one settlement alone."""

RETRY_SECONDS = 0.1
"""The pause before the next try, times the number of tries made."""

_AWAITED = (Reservation, Extension)
"""Items that a call stands still for. (One that was refused and is tried again, differently, also
waits for the settlement of the first: a few milliseconds more.)"""

logger = logging.getLogger(__name__)


class BatchStore(Protocol):
    """Where batches go (`Store`, or a test's)."""

    def write(self, items: Sequence[Item]) -> list[Any]: ...

    def reset(self) -> None: ...


class Writer:
    """Takes items from any thread; nothing it is given waits, blocks or raises here.

    What was submitted will be written: cancelling a future does not take its item back.
    """

    def __init__(self, store: BatchStore, name: str, gather_seconds: float = 0.0) -> None:
        self._store = store
        self._name = name
        self._gather_seconds = gather_seconds
        self._is_awaited = False
        """Somebody waits for an item among those that wait to be written."""
        self._waiting: deque[tuple[Item, Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._death: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="lastchunk-ledger", daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> Future[Any]:
        """A future that is done once the item is durable, or has failed."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
        with self._changed:
            refusal = self._refusal(item)
            if refusal is None:
                self._waiting.append((item, future))
                is_first_awaited = isinstance(item, _AWAITED) and not self._is_awaited
                self._is_awaited = self._is_awaited or is_first_awaited
                if len(self._waiting) in (1, MAX_BATCH) or is_first_awaited:
                    self._changed.notify()
        if refusal is not None:
            future.set_exception(refusal)
        return future

    def close(self, timeout: float | None = None) -> bool:
        """Writes what is waiting and ends. False: it was not done within the timeout."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _refusal(self, item: Item | None) -> LedgerUnavailable | None:
        limit = MAX_QUEUED_RESERVATIONS if isinstance(item, Reservation) else MAX_QUEUED
        if self._death is not None:
            error = LedgerUnavailable(
                f"the writer of the ledger at {self._name} died ({self._death!r}): open it again"
            )
            error.__cause__ = self._death
            return error
        if self._closing:
            return LedgerUnavailable(f"the ledger at {self._name} is closed")
        if len(self._waiting) >= limit:
            return LedgerUnavailable(
                f"the ledger at {self._name} cannot keep up: {limit} entries are waiting to be"
                " written; look at its disk or server"
            )
        return None

    def _run(self) -> None:
        batch: list[tuple[Item, Future[Any]]] = []
        try:
            while batch := self._take():
                self._write(batch)
        except BaseException as death:  # whoever waits must learn of it, whatever it was
            self._die(death, batch)
        finally:
            self._store.reset()

    def _take(self) -> list[tuple[Item, Future[Any]]]:
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            self._gather()
            return self._taken()

    def _gather(self) -> None:
        """Locked. Waits a moment for more, where nobody waits for what is there."""
        until = time.monotonic() + self._gather_seconds
        while not (self._is_awaited or self._closing) and len(self._waiting) < MAX_BATCH:
            if (left := until - time.monotonic()) <= 0:
                break
            self._changed.wait(left)

    def _taken(self) -> list[tuple[Item, Future[Any]]]:
        """Locked. The next batch."""
        count = min(len(self._waiting), MAX_BATCH)
        batch = [self._waiting.popleft() for _ in range(count)]
        self._is_awaited = self._is_awaited and bool(self._waiting)
        return batch

    def _write(self, batch: list[tuple[Item, Future[Any]]]) -> None:
        self._answer(batch, self._outcomes([item for item, _ in batch]))

    def _answer(self, batch: list[tuple[Item, Future[Any]]], outcomes: list[Any]) -> None:
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Failed):
                future.set_exception(outcome.error)
            else:
                future.set_result(outcome)

    def _outcomes(self, items: list[Item]) -> list[Any]:
        try:
            return write_items(self._store, items, self._name)
        except LedgerUnavailable as error:
            return [Failed(error)] * len(items)

    def _die(self, death: BaseException, batch: list[tuple[Item, Future[Any]]]) -> None:
        with self._changed:
            self._death = death
            error = self._refusal(None)
            waiting = [*batch, *self._waiting]
            self._waiting.clear()
        logger.critical("%s", error)
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)


def write_items(
    store: BatchStore, items: Sequence[Item], name: str, attempts: int = WRITE_ATTEMPTS
) -> list[Any]:
    """Each item's outcome, in order. Raises LedgerUnavailable where the ledger is at fault.

    Tries again where another time may help; each try is one whole transaction. A commit whose
    answer was lost may be repeated: the same entries are then a no-op.
    """
    try:
        return _write_patiently(store, items, name, attempts)
    except LedgerUnavailable:
        raise
    except Exception as error:  # one item's fault: the writer and the others must live on
        store.reset()
        if len(items) == 1:
            return [Failed(_refused(items[0], error))]
        return [outcome for item in items for outcome in write_items(store, [item], name, attempts)]


def _write_patiently(
    store: BatchStore, items: Sequence[Item], name: str, attempts: int
) -> list[Any]:
    for attempt in range(1, WRITE_ATTEMPTS + 1):
        try:
            return store.write(items)
        except DBAPIError as error:
            away = is_outage(error)
            if not away and not isinstance(error, IntegrityError):
                raise
            store.reset()
            if away and attempt >= attempts:
                raise LedgerUnavailable(
                    f"the ledger at {name} cannot be written: {_said(error)}; nothing of this batch"
                    " was written"
                ) from error
            if attempt == WRITE_ATTEMPTS:
                raise
        time.sleep(RETRY_SECONDS * attempt)
    raise AssertionError("unreachable")


def _refused(item: Item, error: Exception) -> LedgerError:
    """The database's own refusal: something in this item that our checks have let pass."""
    subject = "what was seen of open calls"
    if isinstance(item, (Reservation, Resolution)):
        subject = f"the {item.entry.kind.value} entry of call {item.entry.call_id}"
    elif isinstance(item, Amendment):
        subject = f"the correction of call {item.correction.call_id}"
    said = _said(error) if isinstance(error, DBAPIError) else repr(error)
    refused = LedgerError(f"{subject} is not written, the database refuses it: {said}")
    refused.__cause__ = error
    return refused


def _said(error: DBAPIError) -> str:
    return (str(error.orig).strip() or repr(error.orig)).splitlines()[0]
