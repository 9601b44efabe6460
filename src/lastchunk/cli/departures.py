"""`lastchunk departures`: callers who left early, and what that cost and saved."""

from __future__ import annotations

import click

from lastchunk.cli.options import with_choice, with_formats, with_ledger, with_period
from lastchunk.cli.output import print_tables, reading
from lastchunk.ledger import CallFilter
from lastchunk.reports.departures import departures_table

_NOBODY = "Nobody has left early: no caller went away while output could still come."


@click.command("departures")
@with_choice
@with_period
@with_formats
@with_ledger
def departures(
    *,
    ledger: str | None,
    as_json: bool,
    as_csv: bool,
    since: int | None,
    until: int | None,
    account: str | None,
    model: str | None,
    tag: tuple[str, str] | None,
) -> None:
    """Sum up what was done when callers left early.

    By upstream and policy: how many answers were read to their end, cancelled, or cut by a cap;
    what output was billed that nobody was given; what draining cost; what cancelling saved.

    \b
    Example:
      lastchunk departures --account acme --since 7d
    """
    wanted = CallFilter(
        account=account, model=model, tag=tag, since_ms=since, until_ms=until, departed_only=True
    )
    with reading(ledger) as reader:
        table = departures_table(reader.calls(wanted), empty=_NOBODY)
    print_tables([table], json=as_json, csv=as_csv)
