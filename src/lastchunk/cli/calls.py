"""`lastchunk calls`: the calls, the newest first."""

from __future__ import annotations

import click

from lastchunk.cli.options import Tag, with_formats, with_ledger, with_period
from lastchunk.cli.output import print_tables, reading, what_if_empty
from lastchunk.ledger import CallFilter
from lastchunk.meter.ending import Ending
from lastchunk.reports.calls import calls_table

LISTED = 20
"""Calls on a screen, unless told otherwise. For machines all are written."""


@click.command("calls")
@click.option("--account", help="This account and all under it (team: also team/ann).")
@click.option("--model", help="The model asked for, or the one that served.")
@click.option("--ending", type=click.Choice([one.value for one in Ending]), help="How it ended.")
@click.option("--tag", type=Tag(), metavar="KEY=VALUE", help="Only calls with this tag.")
@click.option("--way", help="How they came in: python or gateway.")
@click.option("--open", "open_only", is_flag=True, help="Only calls that are still under way.")
@click.option("--unpriced", "unpriced_only", is_flag=True, help="Only calls without a price.")
@click.option("--limit", type=click.IntRange(min=0), help="At most so many  [default: 20; 0: all]")
@with_period
@with_formats
@with_ledger
def calls(
    *,
    ledger: str | None,
    as_json: bool,
    as_csv: bool,
    since: int | None,
    until: int | None,
    limit: int | None,
    ending: str | None,
    account: str | None,
    model: str | None,
    tag: tuple[str, str] | None,
    way: str | None,
    open_only: bool,
    unpriced_only: bool,
) -> None:
    """List calls, the newest first.

    A number that the provider did not report is marked: ~ counted by us, > reported so far,
    ? bounded or assumed, with its interval beside it.

    \b
    Examples:
      lastchunk calls --since 24h --ending caller_left
      lastchunk calls --account team --csv > calls.csv
    """
    wanted = CallFilter(
        account=account,
        model=model,
        ending=Ending(ending) if ending is not None else None,
        since_ms=since,
        until_ms=until,
        tag=tag,
        way=way,
        open_only=open_only,
        unpriced_only=unpriced_only,
    )
    most = (None if as_json or as_csv else LISTED) if limit is None else limit or None
    with reading(ledger) as reader:
        found = reader.calls(wanted, limit=None if most is None else most + 1)
        table = calls_table(found, limit=most, empty=what_if_empty(wanted))
    print_tables([table], json=as_json, csv=as_csv)
