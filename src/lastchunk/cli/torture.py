"""`lastchunk torture`: the fault matrix, beside the true bill."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lastchunk.cli.output import sqlite_path
from lastchunk.ledger.throwaway import throwaway_schema
from lastchunk.settings import load_settings
from lastchunk.torture.matrix import Cell, Store, all_cells, expected
from lastchunk.torture.page import as_page
from lastchunk.torture.result import Result, as_json
from lastchunk.torture.runner import Run, calls_in, play
from lastchunk.torture.selection import AXES, fits, read_filters, select
from lastchunk.torture.text import as_text

EXIT_NOT_HELD = 1
"""A promise was broken."""

SEEDS = 10_000
NO_POSTGRESQL = (
    "The PostgreSQL half is left out: name a server with --postgres URL, or in LASTCHUNK_LEDGER."
)


@click.command("torture")
@click.option(
    "--only",
    multiple=True,
    metavar="AXIS=VALUE,…",
    help=f"Play only these cells; the axes are {', '.join(AXES)}. May be given several times.",
)
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Play N cells, drawn by seed.")
@click.option("--seed", type=int, help="Play the same calls again.  [default: a new one]")
@click.option(
    "--calls",
    type=click.IntRange(1, 50),
    default=2,
    show_default=True,
    help="Calls in each cell; every second one asks for its usage itself.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count() or 2,
    help="Groups of calls at once.  [default: one for each core]",
)
@click.option(
    "--postgres",
    metavar="URL",
    help="A PostgreSQL server; schemas are made on it, and dropped.  [default: that of the ledger]",
)
@click.option("--json", "json", is_flag=True, help="Write JSON.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page to this file, too.",
)
@click.option("--list", "lists", is_flag=True, help="List the cells, and play none.")
def torture(
    *,
    only: tuple[str, ...],
    sample: int | None,
    seed: int | None,
    calls: int,
    jobs: int,
    postgres: str | None,
    json: bool,
    html: Path | None,
    lists: bool,
) -> None:
    """Break everything, and hold the ledger against the true bill.

    Every fault (clients, upstream, the process itself, the ledger) at every moment of a stream,
    through every door, on both databases. The provider is simulated and the ledgers are thrown
    away: nothing of yours is called, read or written. Exit code 1 where a promise is broken.
    """
    drawn = secrets.randbelow(SEEDS) if seed is None else seed
    filters = read_filters(only)
    server = postgres or _ledgers_server()
    stores = tuple(Store) if server is not None else (Store.SQLITE,)
    cells = select(filters, stores, sample, drawn)
    if lists:
        _list([cell for cell in all_cells() if fits(cell, filters)], cells)
        return
    if not cells:
        raise click.UsageError("No cell fits: see `lastchunk torture --list`.")
    if server is not None and any(cell.ledger is Store.POSTGRESQL for cell in cells):
        with throwaway_schema(server):  # a server that cannot be used is told of at once
            pass
    run = Run(cells, drawn, calls, jobs, server)
    console = Console(stderr=True, highlight=False)
    console.print(f"{len(cells)} cells, {calls_in(run)} calls, seed {drawn}")
    began = time.monotonic()
    with _progress(console, calls_in(run)) as played:
        verdicts = play(run, played)
    result = Result(
        seed=drawn,
        calls=calls,
        filters=filters,
        sample=sample,
        stores=stores,
        left_out=None if server is not None else NO_POSTGRESQL,
        verdicts=tuple(verdicts),
        seconds=time.monotonic() - began,
        finished=time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    )
    _show(result, json=json, html=html)
    if result.broken:
        sys.exit(EXIT_NOT_HELD)


def _ledgers_server() -> str | None:
    """The server of the user's own ledger, if it is on one; its own schema is not touched."""
    ledger = load_settings().ledger
    return ledger if sqlite_path(ledger) is None else None


def _list(cells: list[Cell], played: list[Cell]) -> None:
    wanted = set(played)
    for cell in cells:
        reason = expected(cell)
        if isinstance(reason, str):
            click.echo(f"{cell.name}  not applicable: {reason}")
        elif cell in wanted:
            click.echo(cell.name)
    click.echo(f"{len(played)} cells to play", err=True)


def _show(result: Result, *, json: bool, html: Path | None) -> None:
    if html is not None:
        html.write_text(as_page(result), encoding="utf-8")
    if json:
        click.echo(as_json(result))
    else:
        Console(soft_wrap=True, highlight=False, emoji=False).print(as_text(result))
    if html is not None:
        click.echo(f"the page: {html}", err=True)


@contextmanager
def _progress(console: Console, calls: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line each quarter elsewhere; gives what is told of calls over."""
    over = 0
    bar = Progress(
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("calls"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=calls)

    def played(number: int) -> None:
        nonlocal over
        before, over = over, over + number
        bar.update(task, advance=number)
        if bar.disable and over * 4 // calls > before * 4 // calls:
            console.print(f"{over} of {calls} calls")

    with bar:
        yield played
