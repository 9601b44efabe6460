"""`lastchunk report`: the spend, and what the sum rests on."""

from __future__ import annotations

import click

from lastchunk.cli.options import with_choice, with_formats, with_ledger, with_period
from lastchunk.cli.output import print_tables, reading, what_if_empty
from lastchunk.ledger import CallFilter
from lastchunk.ledger.spend import GROUPS
from lastchunk.reports.spend import spend_tables


@click.command("report")
@click.option(
    "--by",
    default="model",
    show_default=True,
    metavar="WHAT,…",
    help=f"What to group by: {', '.join(GROUPS)}.",
)
@with_choice
@with_period
@with_formats
@with_ledger
def report(
    *,
    ledger: str | None,
    as_json: bool,
    as_csv: bool,
    since: int | None,
    until: int | None,
    by: str,
    account: str | None,
    model: str | None,
    tag: tuple[str, str] | None,
) -> None:
    """Sum up the spend, and how well it is known.

    Days are UTC, and those of the calls' opening. Open calls and calls without a price are in no
    amount; they are counted and shown apart.

    \b
    Examples:
      lastchunk report --by account,model --since 2026-11-01 --until 2026-11-30
      lastchunk report --by day,tag:team --csv > spend.csv
    """
    group_by = [one.strip() for one in by.split(",") if one.strip()]
    wanted = CallFilter(account=account, model=model, tag=tag, since_ms=since, until_ms=until)
    with reading(ledger) as reader:
        rows = reader.spend(group_by, wanted)
    tables = spend_tables(rows, group_by, empty=what_if_empty(wanted))
    print_tables(tables, json=as_json, csv=as_csv)
