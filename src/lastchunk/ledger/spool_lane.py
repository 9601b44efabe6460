"""The way into the spool: bytes while there is room, then memory, then nothing but a count."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger.plan import Reservation
from lastchunk.ledger.spool import SpoolFile
from lastchunk.ledger.spool_lines import Spoolable, line_of, write_line
from lastchunk.ledger.writer import MAX_BATCH

TRY_AGAIN_SECONDS = 1.0
"""How long a spool that took no more is left alone: a full disk may have room again."""

MAX_HELD = 16_384
"""Entries kept in memory where the spool cannot take them: some thirty megabytes."""

Submitted = tuple[Spoolable, Future[Any]]

logger = logging.getLogger(__name__)


class SpoolLane:
    """Takes entries in order. Used under one lock at a time; what it gives is durable or says so.

    Once something is held in memory all that follows is, too, until the file takes it again: the
    order is kept.
    """

    def __init__(self, create: Callable[[], SpoolFile], max_bytes: int) -> None:
        self._create = create
        self._max_bytes = max_bytes
        self.file: SpoolFile | None = None
        self.entries = 0
        """Entries in the file."""
        self.held: deque[Submitted] = deque()
        self.lost = 0
        self._is_full_said = False
        self._try_again = 0.0

    def take(self, batch: Sequence[Submitted]) -> None:
        """Makes what is held, and then the batch, durable; answers the futures of what is."""
        if self.held and time.monotonic() < self._try_again:
            self._hold(batch)
            return
        waiting = deque([*self.held, *batch])
        self.held.clear()
        while waiting:
            chunk = list(islice(waiting, MAX_BATCH))
            try:
                self._append([write_line(line_of(item)) for item, _ in chunk])
            except OSError as error:
                self._say_full(str(error))
                self._try_again = time.monotonic() + TRY_AGAIN_SECONDS
                self._hold(waiting)
                return
            for item, future in chunk:
                waiting.popleft()
                self.entries += 1
                if not future.done():
                    future.set_result(None if isinstance(item, Reservation) else True)

    def drained(self) -> None:
        """The file is in the ledger and gone."""
        self.file, self.entries, self._is_full_said = None, 0, False

    def _append(self, lines: list[bytes]) -> None:
        if self.file is None:
            self.file = self._create()
        if self.file.size + sum(map(len, lines)) > self._max_bytes:
            raise OSError(f"its bound of {self._max_bytes} bytes is reached")
        self.file.append(lines)

    def _hold(self, waiting: Iterable[Submitted]) -> None:
        for item, future in waiting:
            if len(self.held) >= MAX_HELD:
                self._lose(future)
                continue
            self.held.append((item, future))
            if isinstance(item, Reservation) and not future.done():
                future.set_exception(LedgerUnavailable("kept in memory only: the spool is full"))

    def _say_full(self, reason: str) -> None:
        if self._is_full_said:
            return
        self._is_full_said = True
        logger.critical(
            "the ledger is away and the spool takes no more: %s. Calls go on; their entries are"
            " kept in memory, up to %d, and lost if this process dies. Make room for the spool or"
            " bring the ledger back",
            reason,
            MAX_HELD,
        )

    def _lose(self, future: Future[Any]) -> None:
        if self.lost == 0:
            logger.critical(
                "the ledger is away, and spool and memory are full: entries are lost from now on"
            )
        self.lost += 1
        if not future.done():
            future.set_exception(
                LedgerUnavailable("lost: the ledger is away, and spool and memory are full")
            )
