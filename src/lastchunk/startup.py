"""Opening the books: the ledger, prices, recovery of what died before, and the bookkeeper."""

from __future__ import annotations

import logging

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import Ledger
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover
from lastchunk.settings import Settings
from lastchunk.settlement.experience import Experience

log = logging.getLogger("lastchunk")


def open_books(settings: Settings) -> Bookkeeper:
    """A running bookkeeper on the ledger that the settings name.

    Calls of processes that died are recovered first. Raises LedgerUnavailable if the ledger cannot
    be opened, SettingsError if the operator's prices cannot be read.
    """
    clock = SystemClock()
    book = PriceBook.load(settings.prices)
    ledger = Ledger.open(settings.ledger, clock=clock)
    log.info("ledger: %s", ledger.url)
    experience = recall(ledger)
    recovered = sum(1 for _ in recover(ledger, book, clock, experience))
    if recovered:
        log.warning("%d calls of processes that died were recovered as lost", recovered)
    return Bookkeeper(ledger, book, clock, experience)


def recall(ledger: Ledger) -> Experience:
    """What the ledger's finished calls have taught. Nothing, where that cannot be read."""
    try:
        lessons = ledger.lessons()
    except LedgerUnavailable as error:
        log.warning("counting starts without experience: %s", error)
        return Experience()
    return Experience(lessons.key, lessons.residuals, lessons.paces)
