"""Calls whose process died: settled from what was last written down, by the same `settle`."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice

from lastchunk.clock import Clock
from lastchunk.errors import EntryConflict, LedgerError, LedgerUnavailable
from lastchunk.ledger import Correction, Ledger, Orphan
from lastchunk.meter.ending import Stop, ending_of
from lastchunk.meter.observation import Observation
from lastchunk.pricing.book import PriceBook
from lastchunk.pricing.cost import Cost
from lastchunk.settlement.charge import ChargeRule
from lastchunk.settlement.experience import NOTHING_LEARNED, Experience
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.settlement.settle import settle
from lastchunk.usage import Basis, Quantity, Usage

LOOK_SECONDS = 2.0
"""How often a process says that it lives, and looks for others on its ledger that do not."""

LOOK_SPREAD = 0.25
"""A process's pause is up to so much shorter or longer, so that not all look at the same moment,
and who finds a dead one first leaves the others nothing to do."""

AT_ONCE = 256
"""So many are settled before the first is waited for: they are written together."""

log = logging.getLogger("lastchunk")


def recover(
    ledger: Ledger,
    book: PriceBook,
    clock: Clock,
    experience: Experience = NOTHING_LEARNED,
    told: Callable[[OpenCall, Settlement], object] | None = None,
    charges: Sequence[ChargeRule] = (),
) -> Iterator[Settlement]:
    """Settle the open calls of dead processes, some at once; yields, and tells, what was written.

    Two processes may recover at once: each call is settled by one of them. A call that cannot be
    written now is left for the next time.
    """
    orphans = iter(ledger.orphans(clock.now_ms()))
    while some := list(islice(orphans, AT_ONCE)):
        settling = []
        for orphan in some:
            settlement = settlement_of(orphan, book, experience, charges)
            written = ledger.settle(orphan.call, settlement, _recovered_ms(orphan, clock))
            settling.append((orphan.call, settlement, written))
        for call, settlement, written in settling:
            try:
                if written.result():
                    if told is not None:
                        told(call, settlement)
                    yield settlement
            except EntryConflict:
                log.debug("%s is recovered by another process already", call.call_id)
            except LedgerError as error:
                log.warning("%s is not recovered: %s", call.call_id, error)


def settlement_of(
    orphan: Orphan, book: PriceBook, experience: Experience, charges: Sequence[ChargeRule] = ()
) -> Settlement:
    """What a dead process would have said of its call, had it only been cut off."""
    seen = orphan.seen or Observation()
    ending = ending_of(seen.phase, seen.status, Stop.PROCESS_DIED)
    return settle(orphan.call, seen, ending, book, experience, charges)


def _recovered_ms(orphan: Orphan, clock: Clock) -> int:
    """Now; not before the call, where the clock was set back or the dead one's was ahead."""
    seen_ms = orphan.seen.observed_ms if orphan.seen is not None else None
    return max(clock.now_ms(), orphan.call.opened_ms, seen_ms or 0)


class SiblingWatch:
    """Settles, from a living process, the calls that a sibling left open when it died.

    Everything here runs on one thread, the accountant's; it never waits for the ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        book: PriceBook,
        clock: Clock,
        experience: Experience,
        charges: Callable[[], Sequence[ChargeRule]],
        later: Callable[[Callable[[], None]], object],
        told: Callable[[OpenCall, Settlement], object],
    ) -> None:
        self._ledger = ledger
        self._book = book
        self._clock = clock
        self._experience = experience
        self._charges = charges
        self._later = later
        """Has something done on the accountant's thread."""
        self._told = told
        self._pause = _pause(ledger.process_id)
        self._due = clock.elapsed() + self._pause
        self._is_looking = False
        self._refused: set[str] = set()
        """Calls that the ledger will not take as we would settle them: not tried again."""

    def tick(self) -> None:
        """To be called about once a second."""
        if self._clock.elapsed() < self._due:
            return
        self._due = self._clock.elapsed() + self._pause
        self._ledger.beat()
        if not self._is_looking:
            self._is_looking = True
            looked = self._ledger.watch()
            looked.add_done_callback(lambda done: self._later(lambda: self._looked(done)))

    def _looked(self, looked: Future[list[Orphan]]) -> None:
        self._is_looking = False
        if (error := looked.exception()) is not None:
            log.debug("could not look for calls of dead processes: %s", error)
            return
        orphans = [one for one in looked.result() if one.call.call_id not in self._refused]
        if orphans:
            log.warning("%d calls of a process that died are open: settling them", len(orphans))
        for orphan in orphans:
            self._settle(orphan)

    def _settle(self, orphan: Orphan) -> None:
        call_id = orphan.call.call_id
        try:
            settlement = settlement_of(orphan, self._book, self._experience, self._charges())
        except Exception as error:  # the accountant must live on; recovery at a start will tell
            log.error("%s could not be recovered (%s)", call_id, type(error).__name__)
            self._refused.add(call_id)
            return
        at_ms = _recovered_ms(orphan, self._clock)
        written = self._ledger.settle(orphan.call, settlement, at_ms)
        written.add_done_callback(
            lambda done: self._later(lambda: self._written(orphan.call, settlement, done))
        )

    def _written(self, call: OpenCall, settlement: Settlement, written: Future[bool]) -> None:
        error = written.exception()
        if error is None and written.result():
            self._told(call, settlement)
        if error is None or isinstance(error, EntryConflict):
            return  # it is settled, by this process or by one that was quicker
        log.warning("%s is not recovered: %s", call.call_id, error)
        if not isinstance(error, LedgerUnavailable):
            self._refused.add(call.call_id)


def _pause(process_id: str) -> float:
    """Each process has a pace of its own, so that they drift apart."""
    part = zlib.crc32(process_id.encode()) / 2**32
    return LOOK_SECONDS * (1 - LOOK_SPREAD + 2 * LOOK_SPREAD * part)


def came_back(settlement: Settlement, process_id: str, at_ms: int) -> Correction:
    """What a process that was taken for dead, and was only paused, knows better of its call.

    Another has settled its call as lost. A resolution is never edited: this is a correction.
    """
    usage, cost = settlement.usage, settlement.cost
    if settlement.nothing_used:
        nothing = Quantity(0, 0, 0, Basis.COUNTED)
        usage, cost = Usage(input_tokens=nothing, output_tokens=nothing), Cost(0, 0, 0)
    return Correction(
        call_id=settlement.call_id,
        correction_id=f"process:{process_id}",
        reason=f"its process came back: {settlement.ending.value}",
        usage=usage,
        cost=cost,
        charge=settlement.charge,
        price_id=settlement.price_id,
        occurred_ms=at_ms,
    )
