"""`lastchunk cancellations`: accounts that leave early, and what nobody is charged for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from lastchunk.cli.options import with_formats, with_ledger, with_period
from lastchunk.cli.output import print_tables, reading, what_if_empty
from lastchunk.cli.progress import bars, counted
from lastchunk.config import load_config
from lastchunk.ledger import CallFilter
from lastchunk.limits import Thresholds
from lastchunk.limits.conduct import FEWEST_CALLS
from lastchunk.reports.cancellations import cancellations_table, undelivered_by_account
from lastchunk.settings import SETTINGS_FILE


@click.command("cancellations")
@click.option("--account", help="Only this account and all under it.")
@click.option(
    "--fewest-calls",
    type=click.IntRange(min=1),
    default=FEWEST_CALLS,
    show_default=True,
    help="Mark no account with fewer calls than that.",
)
@with_period
@with_formats
@with_ledger
def cancellations(
    *,
    ledger: str | None,
    as_json: bool,
    as_csv: bool,
    since: int | None,
    until: int | None,
    account: str | None,
    fewest_calls: int,
) -> None:
    """Show whose callers leave early, and what of the cost is not charged.

    By account, who leaves the most unpaid first. Accounts above cancel_ratio or unbilled_share,
    under [warnings] in lastchunk.toml, are marked.

    \b
    Example:
      lastchunk cancellations --since 7d
    """
    warnings = load_config(Path(SETTINGS_FILE)).warnings
    thresholds = Thresholds(warnings.cancel_ratio, warnings.unbilled_share, fewest_calls)
    wanted = CallFilter(account=account, since_ms=since, until_ms=until)
    departed = replace(wanted, departed_only=True)
    with reading(ledger) as reader, bars() as shown:
        rows = reader.conduct(wanted)
        left = counted(reader.calls(departed), shown, "callers", lambda: reader.count(departed))
        undelivered = undelivered_by_account(left)
    table = cancellations_table(rows, undelivered, thresholds, empty=what_if_empty(wanted))
    print_tables([table], json=as_json, csv=as_csv)
