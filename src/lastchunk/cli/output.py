"""What commands print, and the ledger they read."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import CallFilter, Reader
from lastchunk.reports.render import as_csv, as_json, as_text
from lastchunk.reports.table import Table
from lastchunk.settings import load_settings

NO_CALLS = (
    "There are no calls in this ledger yet. Calls come in through lastchunk.instrument(client)"
    " in your program or through `lastchunk serve`; `lastchunk demo` makes some."
)
NO_MATCH = "No call fits these filters. Leave some out, or look further back with --since."


def screen_width() -> int | None:
    """The columns to lay out for; None in a pipe, where nothing needs to be narrow."""
    if columns := os.environ.get("COLUMNS", ""):
        return int(columns) if columns.isdecimal() and int(columns) > 0 else None
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_tables(tables: Sequence[Table], *, json: bool = False, csv: bool = False) -> None:
    """Tables in the wanted format: all of them as text or JSON, the first one as CSV."""
    if json and csv:
        raise click.UsageError("Choose one of --json and --csv.")
    if json:
        click.echo(as_json(tables))
    elif csv:
        click.echo(as_csv(tables[0]), nl=False)
    else:
        # soft_wrap: the lines are laid out already, and ids must never be broken or shortened.
        console = Console(soft_wrap=True, highlight=False, emoji=False, markup=False)
        console.print(as_text(tables, screen_width()))


@contextmanager
def reading(ledger: str | None) -> Iterator[Reader]:
    """The ledger, for reading only. Raises LedgerUnavailable, telling what to do next."""
    url = url_of(ledger)
    path = sqlite_path(url)
    if path is not None and not path.exists():
        raise LedgerUnavailable(
            f"There is no ledger at {path.absolute()}. The first call through"
            " lastchunk.instrument(client) or `lastchunk serve` makes it; `lastchunk demo` shows"
            " one. If yours is elsewhere, say where with --ledger or LASTCHUNK_LEDGER."
        )
    reader = Reader.open(url)
    try:
        yield reader
    finally:
        reader.close()


def url_of(ledger: str | None) -> str:
    """Where the ledger is: as given, or LASTCHUNK_LEDGER, lastchunk.toml, lastchunk.db here."""
    return load_settings(ledger=ledger).ledger


def what_if_empty(wanted: CallFilter) -> str:
    """What to tell where no call was found."""
    return NO_CALLS if wanted == CallFilter() else NO_MATCH


def sqlite_path(url: str) -> Path | None:
    """The file of a ledger that is one; None for a database server."""
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///").partition("?")[0])
    return None if "://" in url else Path(url).expanduser()
