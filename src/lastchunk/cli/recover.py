"""`lastchunk recover`: settles the calls of processes that died."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from lastchunk.clock import SystemClock
from lastchunk.config import load_config
from lastchunk.ledger import Ledger
from lastchunk.money import format_usd
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover as recover_calls
from lastchunk.settings import SETTINGS_FILE, load_settings
from lastchunk.startup import charges_of, recall, spool_options


@click.command()
@click.option("--ledger", metavar="URL", help="A SQLite file or a database URL.")
@click.option("--prices", type=click.Path(path_type=Path), help="Your own prices, a TOML file.")
def recover(ledger: str | None, prices: Path | None) -> None:
    """Settle the open calls of processes that died.

    The gateway and instrumented clients do this when they start. What such processes had spooled
    while the ledger was away is carried into it first. Calls of living processes are left alone.
    """
    settings = load_settings(ledger=ledger, prices=prices)
    clock = SystemClock()
    charges = charges_of(load_config(Path(SETTINGS_FILE)))
    recovered = 0
    spool = replace(spool_options(settings), passes=False)  # what is away cannot be recovered
    with Ledger.open(settings.ledger, clock=clock, spool=spool) as opened:
        book = PriceBook.load(settings.prices)
        for settlement in recover_calls(opened, book, clock, recall(opened), charges=charges):
            recovered += 1
            cost = format_usd(settlement.cost.best if settlement.cost else None)
            click.echo(f"{settlement.call_id}  {settlement.ending}  about {cost}")
    click.echo(
        f"{recovered} calls recovered" if recovered else "no call is left open by a dead process"
    )
