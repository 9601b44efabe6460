"""The writer that lives through outages: entries go to a spool while the ledger is away.

    well ── a batch failed, or waits too long ──▶ away: the spool thread makes durable what comes
     ▲                                             │    the ledger thread tries again, and replays
     └── the spool is in the ledger ◀──────────────┘

While the ledger is well the spool thread only looks, a few times a second, whether something waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from typing import Any

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger.entries import EntryKind
from lastchunk.ledger.in_flight import Process
from lastchunk.ledger.outage import WELL, LedgerHealth
from lastchunk.ledger.plan import (
    Heartbeat,
    Item,
    Look,
    Rehold,
    Reservation,
    Resolution,
    Sighting,
)
from lastchunk.ledger.replay import Replay, carry
from lastchunk.ledger.spool import SpoolFile, SpoolOptions
from lastchunk.ledger.spool_lane import SpoolLane, Submitted
from lastchunk.ledger.spool_lines import is_spoolable
from lastchunk.ledger.writer import MAX_BATCH, BatchStore, Writer, write_items

LOOKS = 4
"""How often the spool thread looks within the time that the ledger may take."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
"""Pauses between two tries of a ledger that is away: each is twice the one before."""

CLOSING_SECONDS = 1.0
"""How long closing waits for a ledger that is away: the next process brings it the spool."""

IDLE_SECONDS = 5.0
"""How often the idle hook runs: spools of dead siblings are looked for."""

logger = logging.getLogger(__name__)


class SpoolingWriter(Writer):
    """A Writer whose items are safe, in order and soon, whatever becomes of the ledger."""

    def __init__(
        self,
        store: BatchStore,
        name: str,
        *,
        create: Callable[[], SpoolFile],
        options: SpoolOptions,
        process: Process,
        now_ms: Callable[[], int],
        idle: Callable[[], None] = lambda: None,
        away: str | None = None,
        gather_seconds: float = 0.0,
    ) -> None:
        self._options = options
        self._process = process
        self._now_ms = now_ms
        self._idle = idle
        self._lane = SpoolLane(create, options.max_bytes)
        self._replay: Replay | None = None
        self._batch: list[tuple[Item, Future[Any]]] = []
        """What the ledger thread is writing; put back into the queue when it takes too long."""
        self._unsure: set[str] = set()
        """Reservations that were in such a batch: nobody knows whether they were written."""
        self._refused: set[str] = set()
        """Calls that were refused for the outage and are not closed yet: they leave no entry."""
        self._appending = self._rejoining = self._is_done = False
        self._rejoin_since = 0.0
        self._goodbye: Heartbeat | None = None
        self._alarm = threading.Event()
        self._hurry = threading.Event()
        self._away: LedgerHealth | None = None
        if away is not None:
            self._away = LedgerHealth(now_ms(), away)
            self._say_away(away)
        super().__init__(store, name, gather_seconds)
        self._spooler = threading.Thread(
            target=self._run_spool, name="lastchunk-spool", daemon=True
        )
        self._spooler.start()

    def submit(self, item: Item) -> Future[Any]:
        if self._refused and isinstance(item, Resolution) and self._was_refused(item):
            done: Future[Any] = Future()
            done.set_result(True)
            return done
        return super().submit(item)

    def health(self) -> LedgerHealth:
        """How the ledger is, as this process knows it."""
        with self._changed:
            known, lane = self._away or WELL, self._lane
            return LedgerHealth(
                known.away_since_ms,
                known.reason,
                spooled_entries=lane.entries - (self._replay.carried if self._replay else 0),
                spool_bytes=lane.file.size if lane.file is not None else 0,
                held_entries=len(lane.held),
                lost_entries=lane.lost,
                refuses_calls=self._away is not None and not self._options.passes,
            )

    def close(self, timeout: float | None = None) -> bool:
        """Makes everything durable, in the ledger or else in the spool, and ends."""
        ends = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._hurry.set()
        self._alarm.set()
        self._spooler.join(timeout)
        left = CLOSING_SECONDS if self._away is not None else timeout
        if ends is not None and left is not None:
            left = min(left, max(0.0, ends - time.monotonic()))
        self._thread.join(left)
        if self._spooler.is_alive():
            return False
        if self._thread.is_alive():  # it hangs in the ledger: what it holds is spooled, too
            return self._away is not None and not self._lane.held
        return not self._lane.held

    def let_go(self) -> None:
        """Gives the spool's lock back, at the end and in a forked child, whose parent has it."""
        if self._lane.file is not None:
            self._lane.file.close()

    # The ledger thread.

    def _run(self) -> None:
        super()._run()
        self._is_done = True
        self._alarm.set()
        self._spooler.join()
        self.let_go()

    def _take(self) -> list[tuple[Item, Future[Any]]]:
        while True:
            if self._away is not None and not self._bring_back():
                return []
            with self._changed:
                while not self._waiting and not self._closing and self._away is None:
                    self._changed.wait()
                self._gather()
                if self._away is not None:
                    continue
                self._batch = self._taken()
                return self._batch

    def _write(self, batch: list[tuple[Item, Future[Any]]]) -> None:
        try:
            outcomes = write_items(self._store, [item for item, _ in batch], self._name, attempts=1)
        except LedgerUnavailable as error:
            self._go_away(str(error))
            return
        with self._changed:
            is_ours = self._batch is batch  # else the spool has answered for it
            self._batch = []
        if is_ours:
            self._answer(batch, outcomes)

    def _bring_back(self) -> bool:
        """Tries until the ledger has everything that was spooled; False: this process ends."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                if self._replay_some() < MAX_BATCH and self._rejoin():
                    return True
                pause = FIRST_PAUSE_SECONDS
            except (LedgerUnavailable, OSError) as error:  # the ledger, or the spool's own disk
                self._note(str(error))
                if self._closing:
                    return False
                self._hurry.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _replay_some(self) -> int:
        """A batch of the spool; where there is none, a beat shows whether the ledger is back."""
        with self._changed:
            if self._replay is None and self._lane.file is not None:
                self._replay = Replay(self._lane.file, self._name)
        if self._replay is None or self._replay.is_done:
            beat = Heartbeat(self._process, self._now_ms())
            write_items(self._store, [beat], self._name, attempts=1)
            return 0
        return self._replay.step(self._store)

    def _rejoin(self) -> bool:
        """The spool is nearly empty: what comes now waits a moment, and the rest is carried."""
        with self._changed:
            self._rejoining, self._rejoin_since = True, time.monotonic()
            self._changed.wait_for(lambda: not self._appending, self._options.wait_seconds)
        try:
            while self._rejoining and self._replay_some():
                pass
            return self._end_outage()
        finally:
            with self._changed:
                self._rejoining = False
                self._changed.notify_all()

    def _end_outage(self) -> bool:
        """False where more was spooled meanwhile."""
        lane = self._lane
        while held := self._held_now():
            carry(self._store, [item for item, _ in held], self._name)
            with self._changed:
                if not self._rejoining or self._appending:
                    return False  # who takes them now will find them in the ledger
                for _ in held:
                    lane.held.popleft()
            for _, future in held:
                if not future.done():
                    future.set_result(True)
        with self._changed:
            if not self._rejoining or self._appending or lane.held:
                return False
            if self._replay is None and lane.file is not None:
                return False
            if self._replay is not None and not self._replay.is_done:
                return False
            carried = 0
            if self._replay is not None:
                carried = self._replay.carried
                self._replay.finish()
            lane.drained()
            self._replay = self._away = None
            self._unsure.clear()
            self._changed.notify_all()
        if self._goodbye is not None:
            write_items(self._store, [self._goodbye], self._name, attempts=1)
        logger.warning(
            "the ledger at %s is back: %d spooled entries are in it", self._name, carried
        )
        return True

    def _held_now(self) -> list[Submitted]:
        """The first of what is held in memory, once all that was spooled is carried."""
        with self._changed:
            is_open = self._replay is not None and not self._replay.is_done
            if is_open or not self._rejoining or self._appending:
                return []
            return list(islice(self._lane.held, MAX_BATCH))

    # Either thread.

    def _go_away(self, reason: str) -> None:
        with self._changed:
            batch, self._batch = self._batch, []
            self._waiting.extendleft(reversed(batch))
            self._is_awaited = True  # nobody gathers any more
            self._unsure.update(
                item.entry.call_id for item, _ in batch if isinstance(item, Reservation)
            )
            is_new = self._away is None
            if is_new:
                self._away = LedgerHealth(self._now_ms(), reason)
            self._changed.notify_all()
        self._alarm.set()
        if is_new:
            self._say_away(reason)

    def _say_away(self, reason: str) -> None:
        what = "go on and are spooled" if self._options.passes else "are refused"
        logger.error("the ledger is away; calls %s until it is back: %s", what, reason)

    def _note(self, reason: str) -> None:
        with self._changed:
            if self._away is not None:
                self._away = LedgerHealth(self._away.away_since_ms, reason)

    def _refusal(self, item: Item | None) -> LedgerUnavailable | None:
        refusal = super()._refusal(item)
        refuses = self._away is not None and not self._options.passes
        if refusal is None and refuses and isinstance(item, Reservation):
            self._refused.add(item.entry.call_id)
            return self._is_away()
        return refusal

    def _is_away(self) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"the ledger at {self._name} is away and calls are refused until it is back"
            " (when_ledger_down = refuse)"
        )

    def _was_refused(self, item: Resolution) -> bool:
        call_id = item.entry.call_id
        with self._changed:
            if call_id not in self._refused or item.entry.kind is not EntryKind.RELEASED:
                return False
            self._refused.discard(call_id)
            return True

    # The spool thread.

    def _run_spool(self) -> None:
        batch: list[tuple[Item, Future[Any]]] = []
        try:
            watch = _Watch(self._options.wait_seconds)
            while not self._is_over():
                if self._away is None:
                    self._look(watch)
                elif batch := self._take_for_spool():
                    self._lane.take(self._kept(batch))
                    self._appended()
        except BaseException as death:  # whoever waits must learn of it, whatever it was
            self._die(death, batch)

    def _is_over(self) -> bool:
        with self._changed:
            if self._death is not None:
                return True
            is_written = not (self._waiting or self._batch or self._appending)
            return self._closing and is_written and (self._away is not None or self._is_done)

    def _look(self, watch: _Watch) -> None:
        self._alarm.wait(self._options.wait_seconds / LOOKS)
        self._alarm.clear()
        with self._changed:
            waiting = self._waiting or self._batch
            newest = waiting[-1][1] if waiting else None
        if watch.is_late(newest):
            self._go_away(
                f"the ledger at {self._name} has not answered for {self._options.wait_seconds} s"
            )
        elif watch.idle_for(IDLE_SECONDS) and not self._closing:
            self._idle()

    def _take_for_spool(self) -> list[tuple[Item, Future[Any]]]:
        pause = self._options.wait_seconds / LOOKS
        with self._changed:
            if self._rejoining or not self._waiting:
                self._changed.wait(pause)
                rejoined = time.monotonic() - self._rejoin_since
                if self._rejoining and rejoined >= self._options.wait_seconds:
                    self._rejoining = False  # the ledger hangs again: nobody waits for it
            if self._rejoining or self._away is None or not self._waiting:
                return []
            self._appending = True
            return self._taken()

    def _appended(self) -> None:
        with self._changed:
            self._appending = False
            self._changed.notify_all()

    def _kept(self, batch: list[tuple[Item, Future[Any]]]) -> list[Submitted]:
        """What must not be lost, in order; the rest is answered."""
        kept: list[Submitted] = []
        for item, future in batch:
            if isinstance(item, Reservation) and not self._options.passes:
                future.set_exception(self._is_away())
                if item.entry.call_id not in self._unsure:
                    with self._changed:
                        self._refused.add(item.entry.call_id)
                    continue
            elif isinstance(item, Resolution) and self._was_refused(item):
                future.set_result(True)
                continue
            if isinstance(item, Heartbeat) and item.ended:
                self._goodbye = item
            if isinstance(item, Reservation):
                item = replace(item, admit=None)  # it is sent: nobody can be asked
            if is_spoolable(item):
                kept.append((item, future))  # type: ignore[arg-type]
            elif isinstance(item, Sighting | Rehold):  # who asked for it will ask again
                future.set_exception(LedgerUnavailable("not written: the ledger is away"))
            elif isinstance(item, Look):
                future.set_exception(self._is_away())
            else:
                future.set_result(None)
        return kept


class _Watch:
    """Tells whether what was submitted at one look is still not answered long afterwards."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._marked: Future[Any] | None = None
        self._since = self._rested = time.monotonic()

    def is_late(self, newest: Future[Any] | None) -> bool:
        now = time.monotonic()
        if self._marked is None or self._marked.done():
            self._marked, self._since = newest, now
            return False
        return now - self._since >= self._seconds

    def idle_for(self, seconds: float) -> bool:
        """Whether so long has passed since it was last said."""
        now = time.monotonic()
        if now - self._rested < seconds:
            return False
        self._rested = now
        return True
