"""Carries spooled entries into the ledger: in order, each exactly once, however often it is tried.

An entry that is in the ledger already is a no-op. A call that another process has meanwhile given
up for lost is corrected by the settlement that was spooled for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from lastchunk.errors import EntryConflict, LedgerUnavailable
from lastchunk.ledger.detail import decode
from lastchunk.ledger.entries import Correction, Entry
from lastchunk.ledger.plan import Amendment, Failed, Resolution
from lastchunk.ledger.spool import SpoolFile
from lastchunk.ledger.spool_lines import Damage, Spoolable, line_of, write_line
from lastchunk.ledger.writer import MAX_BATCH, BatchStore, write_items
from lastchunk.settlement.facts import Settlement
from lastchunk.usage import Quantity, Usage

logger = logging.getLogger(__name__)


class Replay:
    """One spool on its way into the ledger. Used by one thread."""

    def __init__(self, file: SpoolFile, name: str) -> None:
        self._file = file
        self._name = name
        self._position = file.start
        self._acknowledged = file.acknowledged()
        self.carried = 0
        self._aside: Path | None = None

    @property
    def is_done(self) -> bool:
        return self._position >= self._file.size

    def step(self, store: BatchStore) -> int:
        """Carries the next entries; how many. Raises LedgerUnavailable, and stays where it was."""
        items: list[Spoolable] = []
        unreadable: list[bytes] = []
        position = self._position
        with closing(self._file.lines(position)) as lines:
            for after, found in lines:
                position = after
                if isinstance(found, Damage):
                    if self._acknowledged is None or found.offset < self._acknowledged:
                        unreadable.append(found.data)
                elif (item := found.item) is not None:
                    items.append(item)
                if len(items) == MAX_BATCH:
                    break
        if items:
            for refused in carry(store, items, self._name):
                unreadable.append(write_line(line_of(refused)))
        for data in unreadable:
            self._set_aside(data)
        self._position = position
        self.carried += len(items)
        return len(items)

    def finish(self) -> None:
        """All is in the ledger: the file goes, and what is missing of it is told."""
        if self._acknowledged is not None and self._acknowledged > self._file.size:
            logger.error(
                "the spool %s is %d bytes shorter than it was: calls that are missing stay missing,"
                " calls whose end is missing are recovered as lost",
                self._file.path,
                self._acknowledged - self._file.size,
            )
        self._file.remove()

    def _set_aside(self, data: bytes) -> None:
        first = self._aside is None
        self._aside = self._file.set_aside(data)
        if first:
            logger.error(
                "a part of the spool %s cannot be carried into the ledger and was set aside in %s;"
                " all the rest is carried. Calls whose end is in it are recovered as lost. Nothing"
                " needs to be done: keep that file if you want to look into it, or delete it",
                self._file.path,
                self._aside,
            )


def carry(store: BatchStore, items: Sequence[Spoolable], name: str) -> list[Spoolable]:
    """Writes items of a spool; gives back those that no ledger will take.

    Raises LedgerUnavailable where the ledger is (still) away.
    """
    refused: list[Spoolable] = []
    corrections: list[Amendment] = []
    for item, outcome in zip(items, write_items(store, items, name, attempts=1), strict=True):
        if not isinstance(outcome, Failed):
            continue
        error = outcome.error
        if isinstance(item, Resolution) and isinstance(error, EntryConflict):
            try:
                correction = _as_correction(item.entry)
                corrections.append(Amendment(correction, item.entry.process_id, if_better=True))
                continue
            except LedgerUnavailable as unreadable:
                error = unreadable
        logger.error("not carried into the ledger: %s", error)
        refused.append(item)
    if corrections:
        outcomes = write_items(store, corrections, name, attempts=1)
        for amendment, outcome in zip(corrections, outcomes, strict=True):
            if isinstance(outcome, Failed):
                logger.error("not carried into the ledger: %s", outcome.error)
                refused.append(amendment)
            elif outcome:
                lost = amendment.correction.call_id
                logger.warning("%s was given up for lost; it is corrected", lost)
    return refused


def _as_correction(entry: Entry) -> Correction:
    """What a settlement says, as what was learned after the call was resolved without it."""
    settlement = decode(entry.detail, Settlement, entry.call_id)
    nothing = Usage(input_tokens=Quantity.reported(0), output_tokens=Quantity.reported(0))
    return Correction(
        call_id=entry.call_id,
        correction_id=f"spool:{entry.process_id}",
        reason="settled while the ledger was away",
        usage=nothing if settlement.nothing_used else settlement.usage,
        cost=settlement.cost,
        charge=settlement.charge,
        price_id=settlement.price_id,
        occurred_ms=entry.occurred_ms,
    )
