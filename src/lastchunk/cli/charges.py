"""`lastchunk charges`: what another table of charges would have charged."""

from __future__ import annotations

from pathlib import Path

import click

from lastchunk.cli.options import with_formats, with_ledger, with_period
from lastchunk.cli.output import print_tables, reading, what_if_empty
from lastchunk.cli.progress import bars, counted
from lastchunk.config import load_config
from lastchunk.ledger import CallFilter
from lastchunk.pricing.book import PriceBook
from lastchunk.reports.recharged import recharged_table
from lastchunk.settings import SETTINGS_FILE, load_settings
from lastchunk.startup import charges_of


@click.command("charges")
@click.option(
    "--rules",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A TOML file with the other [[charges]]  [default: lastchunk.toml]",
)
@click.option("--account", help="Only this account and all under it.")
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Your own prices  [default: $LASTCHUNK_PRICES]",
)
@with_period
@with_formats
@with_ledger
def charges(
    *,
    ledger: str | None,
    as_json: bool,
    as_csv: bool,
    since: int | None,
    until: int | None,
    rules: Path | None,
    account: str | None,
    prices: Path | None,
) -> None:
    """Show what another table of charges would have charged, by account.

    A dry run over calls that are settled, beside what was charged for them. Refunds and adjustments
    stay as they are. Nothing is written.

    \b
    Example:
      lastchunk charges --rules next-year.toml --since 2026-11-01 --until 2026-11-30
    """
    table = charges_of(load_config(rules or Path(SETTINGS_FILE)))
    book = PriceBook.load(load_settings(prices=prices).prices)
    wanted = CallFilter(account=account, since_ms=since, until_ms=until)
    with reading(ledger) as reader, bars() as shown:
        calls = reader.calls(wanted, newest_first=False)
        records = counted(calls, shown, "calls", lambda: reader.count(wanted))
        found = recharged_table(records, table, book, empty=what_if_empty(wanted))
    print_tables([found], json=as_json, csv=as_csv)
