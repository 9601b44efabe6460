"""Calls whose process died: settled from what was last written down, by the same `settle`."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from lastchunk.clock import Clock
from lastchunk.errors import EntryConflict, LedgerError
from lastchunk.ledger import Ledger
from lastchunk.meter.ending import Stop, ending_of
from lastchunk.meter.observation import Observation
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.experience import NOTHING_LEARNED, Experience
from lastchunk.settlement.facts import Settlement
from lastchunk.settlement.settle import settle

log = logging.getLogger("lastchunk")


def recover(
    ledger: Ledger, book: PriceBook, clock: Clock, experience: Experience = NOTHING_LEARNED
) -> Iterator[Settlement]:
    """Settle the open calls of dead processes, one by one; yields what was written.

    Two processes may recover at once: each call is settled by one of them. A call that cannot be
    written now is left for the next time.
    """
    for orphan in ledger.orphans(clock.now_ms()):
        seen = orphan.seen or Observation()
        ending = ending_of(seen.phase, seen.status, Stop.PROCESS_DIED)
        settlement = settle(orphan.call, seen, ending, book, experience)
        try:
            if ledger.settle(orphan.call, settlement, clock.now_ms()).result():
                yield settlement
        except EntryConflict:
            log.debug("%s is recovered by another process already", orphan.call.call_id)
        except LedgerError as error:
            log.warning("%s is not recovered: %s", orphan.call.call_id, error)
