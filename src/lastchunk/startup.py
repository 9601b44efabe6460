"""Opening the books: the ledger, prices, recovery of what died before, and the bookkeeper."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.config import Config, load_config
from lastchunk.errors import LedgerUnavailable
from lastchunk.leaving.departing import Caps
from lastchunk.leaving.house import LeavingHouse
from lastchunk.leaving.rules import read_rules
from lastchunk.ledger import Ledger, Reader, SpoolOptions, default_folder
from lastchunk.ledger.writer import GATHER_SECONDS
from lastchunk.meter.ending import Ending
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover
from lastchunk.settings import SETTINGS_FILE, Settings
from lastchunk.settlement.charge import Cause, Charged, ChargeRule
from lastchunk.settlement.experience import Experience
from lastchunk.telemetry import Observer
from lastchunk.telemetry.tracing import tracing

HABIT_CALLS = 2_000
"""Of the ledger, the latest, that a gateway with balanced limits looks at when it starts."""

log = logging.getLogger("lastchunk")


def open_books(
    settings: Settings, observers: Sequence[Observer] = (), config: Config | None = None
) -> Bookkeeper:
    """A running bookkeeper on the ledger that the settings name.

    `config` holds the rules of what is charged; None: those of `lastchunk.toml` here.

    Calls of processes that died are recovered first; when the ledger is back, where it is away and
    calls may pass. The observers, and OpenTelemetry where it is installed, hear of each call, of
    those recovered here as well. Raises LedgerUnavailable if the ledger cannot be opened,
    SettingsError if the operator's prices or rules cannot be read.
    """
    clock = SystemClock()
    leaving = leaving_house(settings)
    charges = charges_of(
        load_config(Path(SETTINGS_FILE), tuple(Settings.model_fields)) if config is None else config
    )
    book = PriceBook.load(settings.prices)
    ledger = Ledger.open(
        settings.ledger, clock=clock, spool=spool_options(settings), gather_seconds=GATHER_SECONDS
    )
    log.info("ledger: %s", ledger.url)
    told = [one for one in (*observers, tracing()) if one is not None]
    starts_away = ledger.health().is_away
    experience = None if starts_away else recall(ledger)
    bookkeeper = Bookkeeper(ledger, book, clock, experience, leaving, told, charges)

    def came_back() -> None:
        if starts_away:
            bookkeeper.experience = recall(ledger)
        recover_dead(bookkeeper)

    if not starts_away:
        recover_dead(bookkeeper)

    ledger.when_adopted(came_back)
    return bookkeeper


def recall_habits(bookkeeper: Bookkeeper, url: str) -> None:
    """Learn what calls usually come to from the ledger's latest ones, for balanced limits."""
    try:
        with Reader.open(url) as reader:
            latest = list(islice(reader.calls(), HABIT_CALLS))
    except LedgerUnavailable as error:
        log.warning("balanced limits start without experience: %s", error)
        return
    for record in reversed(latest):
        settled = record.settlement
        if settled is None or settled.ending is not Ending.COMPLETED:
            continue
        if (output := settled.usage.output_tokens) is not None:
            bookkeeper.accustom(record.call.account, record.call.request.model, output.best)


def recover_dead(bookkeeper: Bookkeeper) -> None:
    """Settle the open calls of dead processes. Left for another time where the ledger is away."""
    try:
        found = recover(
            bookkeeper.ledger,
            bookkeeper.book,
            bookkeeper.clock,
            bookkeeper.experience,
            bookkeeper.observers.settled,
            bookkeeper.charges,
        )
        recovered = sum(1 for _ in found)
    except LedgerUnavailable as error:
        log.warning("calls of processes that died are not recovered yet: %s", error)
        return
    if recovered:
        log.warning("%d calls of processes that died were recovered as lost", recovered)


def leaving_house(settings: Settings) -> LeavingHouse:
    """What is done when callers leave. Raises SettingsError naming the row that cannot be used."""
    caps = Caps(
        seconds=settings.drain_seconds,
        bytes=settings.drain_bytes,
        tokens=settings.drain_tokens,
        at_once=settings.drains_at_once,
    )
    return LeavingHouse(read_rules(settings.when_client_leaves, SETTINGS_FILE), caps)


def charges_of(config: Config) -> tuple[ChargeRule, ...]:
    """The rows of `[[charges]]` as rules, in order. A row without a name has its number."""
    return tuple(
        ChargeRule(
            charged=Charged(row.charge),
            accounts=row.account,
            endings=frozenset(Ending(name) for name in row.endings) or None,
            cause=None if row.caused_by is None else Cause(row.caused_by),
            markup=row.markup,
            name=row.name or f"row {number}",
        )
        for number, row in enumerate(config.charges, start=1)
    )


def spool_options(settings: Settings) -> SpoolOptions:
    """What the settings say about a ledger that is away."""
    return SpoolOptions(
        folder=settings.spool or default_folder(settings.ledger),
        passes=settings.when_ledger_down == "pass",
        max_bytes=settings.spool_bytes,
        wait_seconds=settings.ledger_wait_seconds,
    )


def recall(ledger: Ledger) -> Experience:
    """What the ledger's finished calls have taught. Nothing, where that cannot be read."""
    try:
        lessons = ledger.lessons()
    except LedgerUnavailable as error:
        log.warning("counting starts without experience: %s", error)
        return Experience()
    return Experience(lessons.key, lessons.residuals, lessons.paces)
