"""`lastchunk verify`: does the ledger hold together?"""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lastchunk.cli.options import with_formats, with_ledger
from lastchunk.cli.output import print_tables, reading, url_of
from lastchunk.ledger import Reader, verify
from lastchunk.ledger.audit import Verification
from lastchunk.reports.audit import audit_tables

EXIT_DISCREPANCIES = 1

SHOW_PROGRESS_FROM = 20_000
"""Entries from which checking takes long enough to be watched."""


@click.command("verify")
@with_formats
@with_ledger
def verify_command(*, ledger: str | None, as_json: bool, as_csv: bool) -> None:
    """Recompute every balance from the entries.

    Checks every rule of the ledger too: each call reserved once and resolved at most once, nothing
    changed since it was written. Changes nothing. Exit code 1 if something does not hold.
    """
    with reading(ledger) as reader:
        expected = _expected_entries(reader)
    found = _verified(url_of(ledger), expected)
    print_tables(audit_tables(found), json=as_json, csv=as_csv)
    if not found.is_clean:
        sys.exit(EXIT_DISCREPANCIES)


def _verified(url: str, expected: int) -> Verification:
    if expected < SHOW_PROGRESS_FROM:
        return verify(url)
    columns = (TextColumn("checking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # On stderr, and only on a terminal: it is no part of the result.
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=expected)
        return verify(url, lambda checked: progress.update(task, completed=checked))


def _expected_entries(reader: Reader) -> int:
    """About how many entries there are: two for a resolved call, one for an open one."""
    balances = [balance for _, balance in reader.accounts()]
    resolved = sum(balance.calls_settled + balance.calls_released for balance in balances)
    return 2 * resolved + sum(balance.calls_open for balance in balances)
