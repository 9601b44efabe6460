"""`lastchunk demo`: see it work, without a provider or a key."""

from __future__ import annotations

import logging
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import openai
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lastchunk.cli.output import print_tables, sqlite_path
from lastchunk.demo.comparison import (
    Result,
    as_json,
    checks,
    comparison_table,
    example,
    failures,
    sentence,
)
from lastchunk.demo.play import play
from lastchunk.demo.scenario import READ_TO_THE_END, PlannedCall, plan
from lastchunk.pricing.book import PriceBook
from lastchunk.settings import load_settings

EXIT_NOT_HELD = 1
"""The demo ran, and something that it checks did not hold."""

SEEDS = 10_000
FAILURES_SHOWN = 10


@click.command("demo")
@click.option(
    "--calls",
    "calls",
    type=click.IntRange(10, 5000),
    default=400,
    show_default=True,
    help="How many calls to make.",
)
@click.option("--seed", type=int, help="Make the same calls again.  [default: a new one]")
@click.option("--ledger", metavar="URL", help="Where to write  [default: demo-TIME/lastchunk.db]")
@click.option("--json", "json", is_flag=True, help="Write JSON.")
def demo(*, calls: int, seed: int | None, ledger: str | None, json: bool) -> None:
    """See it work, without a provider or a key.

    Starts a provider that misbehaves, a gateway in front of it, and openai clients that make calls
    in process and through the gateway. Almost half of them are cut, in every way there is; one
    process is killed. Then the ledger is held against the provider's own bill.
    """
    logging.getLogger("lastchunk").setLevel(logging.CRITICAL)  # trouble is what is played here
    drawn = secrets.randbelow(SEEDS) if seed is None else seed
    settings = load_settings(ledger=ledger or f"demo-{time.strftime('%Y%m%d-%H%M%S')}/lastchunk.db")
    if (path := sqlite_path(settings.ledger)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, highlight=False)
    console.print(_programme(calls, drawn))
    with _progress(console, calls) as played:
        result = play(calls, drawn, settings.ledger, PriceBook.load(settings.prices), played)
    if json:
        click.echo(as_json(result))
    else:
        _show(result)
    if not all(held for held, _ in checks(result)):
        sys.exit(EXIT_NOT_HELD)


def _programme(calls: int, seed: int) -> str:
    ways = {call.way.name for call in plan(calls, seed)} - {READ_TO_THE_END.name}
    return (
        f"openai {openai.__version__} clients, sync and async, in process and through a gateway,\n"
        f"call a provider that misbehaves: {calls} calls, cut in {len(ways)} ways (seed {seed})"
    )


@contextmanager
def _progress(console: Console, calls: int) -> Iterator[Callable[[PlannedCall], None]]:
    """A bar on a terminal, a line each quarter elsewhere; gives what is to be told of each call."""
    cut = over = 0
    bar = Progress(
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("calls, {task.fields[cut]} of them cut"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=calls, cut=0)

    def played(call: PlannedCall) -> None:
        nonlocal cut, over
        over += 1
        cut += call.way is not READ_TO_THE_END
        bar.update(task, advance=1, cut=cut)
        if bar.disable and over * 4 // calls > (over - 1) * 4 // calls:
            console.print(f"{over} of {calls} calls, {cut} of them cut")

    with bar:
        yield played


def _show(result: Result) -> None:
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    click.echo()
    print_tables([comparison_table(result)])
    click.echo(f"\n{click.wrap_text(sentence(result), 79)}\n")
    for held, words in checks(result):
        console.print("[green]ok[/]  " if held else "[red]NO[/]  ", words, sep="")
    for line in failures(result)[:FAILURES_SHOWN]:
        console.print(f"    {line}", markup=False)
    click.echo(f"\n{result.seconds:.0f} s. The ledger is yours to look into:")
    shown = example(result)
    for command in (
        f"export LASTCHUNK_LEDGER={shlex.quote(result.ledger)}",
        "lastchunk calls --ending caller_left",
        *([f"lastchunk explain {shown.record.call_id}"] if shown is not None else []),
        "lastchunk report --by tag:cut",
        "lastchunk report --by account,model",
        "lastchunk verify",
    ):
        click.echo(f"  {command}")
