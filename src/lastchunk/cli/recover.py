"""`lastchunk recover`: settles the calls of processes that died."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from lastchunk.cli.in_force import read_rules
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger
from lastchunk.ledger.database import refuse_missing
from lastchunk.money import format_usd
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover as recover_calls
from lastchunk.settings import load_settings
from lastchunk.startup import charges_of, recall, spool_options


@click.command()
@click.option("--ledger", metavar="URL", help="A SQLite file or a database URL.")
@click.option("--prices", type=click.Path(path_type=Path), help="Your own prices, a TOML file.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What is charged, and settings.  [default: ./lastchunk.toml, if there is one]",
)
def recover(ledger: str | None, prices: Path | None, config_file: Path | None) -> None:
    """Settle the open calls of processes that died, charged by the table in FILE.

    The gateway and instrumented clients do this when they start. What such processes had spooled
    while the ledger was away is carried into it first. Calls of living processes are left alone.
    """
    settings = load_settings(config_file, ledger=ledger, prices=prices)
    clock = SystemClock()
    charges = charges_of(read_rules(config_file)[0])
    refuse_missing(settings.ledger)
    recovered = 0
    spool = replace(spool_options(settings), passes=False)  # what is away cannot be recovered
    with Ledger.open(settings.ledger, clock=clock, spool=spool) as opened:
        book = PriceBook.load(settings.prices)
        for settlement in recover_calls(opened, book, clock, recall(opened), charges=charges):
            recovered += 1
            cost = format_usd(settlement.cost.best if settlement.cost else None)
            click.echo(f"{settlement.call_id}  {settlement.ending}  about {cost}")
    calls = "1 call" if recovered == 1 else f"{recovered} calls"
    click.echo(f"{calls} recovered" if recovered else "no call is left open by a dead process")
