"""`lastchunk accuracy`: how well the counter counts, judged on recorded exchanges."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from lastchunk.cli.options import Moment, with_formats
from lastchunk.cli.output import print_tables, reading
from lastchunk.reports.accuracy import ReadLines, accuracy_tables, flat_table
from lastchunk.reports.accuracy_exchange import (
    Exchange,
    Line,
    Requests,
    Skipped,
    read_exchange,
    read_lines,
)
from lastchunk.reports.accuracy_judge import Judge
from lastchunk.reports.accuracy_ledger import judged_calls
from lastchunk.reports.accuracy_plot import can_plot, write_plot
from lastchunk.reports.accuracy_prefixes import PrefixScores
from lastchunk.reports.accuracy_scores import Dimension, Scores
from lastchunk.settlement.residuals import ResidualRow

EXIT_NOTHING = 2
"""No line could be judged, or a file could not be read at all."""

TOLD_LINES = 20
"""Malformed lines named one by one on stderr; of more only the number is told."""

_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


class _Dimensions(click.ParamType[tuple[Dimension, ...]]):
    """Names of dimensions, separated by commas."""

    name = "what,…"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Dimension, ...]:
        names = [name.strip() for name in str(value).split(",") if name.strip()]
        try:
            wanted = tuple(dict.fromkeys(Dimension(name) for name in names))
        except ValueError as error:
            self.fail(f"{error}: choose of {', '.join(Dimension)}.", param, ctx)
        return wanted or self.fail("name something to group by.", param, ctx)


@click.command("accuracy")
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[PATH…]")
@click.option("--ledger", metavar="URL", help="Judge a ledger's own finished calls, too.")
@click.option(
    "--by",
    type=_Dimensions(),
    default="class",
    show_default=True,
    metavar="WHAT,…",
    help=f"What to group by: {', '.join(Dimension)}.",
)
@click.option("--all", "count_all", is_flag=True, help="Judge repeated requests again, too.")
@click.option("--prefixes", is_flag=True, help="Also cut finished streams short and compare.")
@click.option(
    "--since", type=Moment(), metavar="WHEN", help="Only answers that say they are this young."
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.svg",
    help="Draw it, too; needs the extra `plot` (matplotlib).",
)
@with_formats
def accuracy(
    *,
    paths: tuple[Path, ...],
    ledger: str | None,
    by: tuple[Dimension, ...],
    count_all: bool,
    prefixes: bool,
    since: int | None,
    plot: Path | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Judge the token counter on recorded exchanges.

    PATH is a file of JSON Lines, plain or gzipped, or a directory of such. Each line holds a
    request, the answer's body and the provider's own usage: path, request, status, content_type,
    body, usage, and if known model, response_model, provider, host. Files larger than memory are
    no problem; a malformed line is named and skipped. Nothing of the content is ever printed.

    Cold counts know nothing; warm ones have learned from the exchanges before, in order. With
    --ledger a sample of its finished calls is judged: those that were counted beside their usage.

    \b
    Examples:
      lastchunk accuracy recordings/
      lastchunk accuracy --ledger lastchunk.db --by endpoint,family
      lastchunk accuracy --by endpoint,family,class --csv exchanges.jsonl.gz > accuracy.csv
    """
    if as_json and as_csv:
        raise click.UsageError("Choose one of --json and --csv.")
    if plot is not None and not can_plot():
        raise click.ClickException(
            "--plot needs matplotlib: pip install 'lastchunk[plot]', or leave --plot out."
        )
    run = _Run(by, count_all=count_all, prefixes=prefixes, since=since)
    if not paths and ledger is None:
        raise click.UsageError("Name files or directories of recordings, or a --ledger.")
    run.read(_files(paths))
    if ledger is not None:
        with reading(ledger) as reader:
            run.judge_calls(reader.residuals())
    if not run.found.judged:
        what = f"none of {run.found.lines:,} lines could be judged" if paths else "no finished call"
        click.echo(f"Error: {what}{'' if paths else ' has taught this ledger yet'}.", err=True)
        sys.exit(EXIT_NOTHING)
    tables = accuracy_tables(run.scores, run.prefixes, run.found)
    print_tables([flat_table(run.scores)] if as_csv else tables, json=as_json, csv=as_csv)
    if plot is not None:
        _draw(run.scores, plot)


class _Run:
    """One pass over the files, in bounded memory."""

    def __init__(
        self, by: Sequence[Dimension], *, count_all: bool, prefixes: bool, since: int | None
    ) -> None:
        self.scores = Scores(by)
        self.prefixes = PrefixScores() if prefixes else None
        self.found = ReadLines()
        self._judge = Judge()
        self._requests = None if count_all else Requests()
        self._since_seconds = None if since is None else since // 1000

    def judge_calls(self, rows: Sequence[ResidualRow]) -> None:
        """Judges a ledger's own finished calls."""
        for judged in judged_calls(rows):
            self.scores.add(judged)
            self.found.judged += 1

    def read(self, paths: Sequence[Path]) -> None:
        """Judges every line of every file; a file that breaks off is told, and the next is read."""
        columns = (TextColumn("judging"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        total = sum(path.stat().st_size for path in paths)
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress:
            task = progress.add_task("", total=total)
            before = 0
            for path in paths:
                for place, line in self._lines(path):
                    progress.update(task, completed=before + place.bytes_read)
                    self._take(place, line)
                before += path.stat().st_size
        untold = self.found.skipped[Skipped.MALFORMED] - TOLD_LINES
        if untold > 0:
            click.echo(f"and {untold:,} more malformed lines, skipped", err=True)
        self.found.disagreeing = self._judge.disagreeing

    def _lines(self, path: Path) -> Iterator[tuple[Line, bytes | None]]:
        number = 0
        try:
            for place, line in read_lines(path):
                number = place.number
                yield place, line
        except (OSError, EOFError, zlib.error) as error:
            kind = type(error).__name__
            click.echo(f"{path}: cannot be read beyond line {number} ({kind})", err=True)

    def _take(self, place: Line, line: bytes | None) -> None:
        exchange = Skipped.MALFORMED if line is None else read_exchange(line)
        skipped = exchange if isinstance(exchange, Skipped) else self._judged(exchange)
        if skipped is None:
            return
        if skipped is Skipped.MALFORMED and self.found.skipped[skipped] < TOLD_LINES:
            click.echo(f"{place.path}:{place.number}: malformed, skipped", err=True)
        self.found.skipped[skipped] += 1

    def _judged(self, exchange: Exchange) -> Skipped | None:
        if self._since_seconds is not None and (exchange.created_at or 0) < self._since_seconds:
            self.found.too_old += 1
            return None
        if self._requests is not None and not self._requests.is_new(exchange):
            return Skipped.REPEATED
        judged = self._judge.judge(exchange)
        if isinstance(judged, Skipped):
            return judged
        self.found.judged += 1
        for one in judged:
            self.scores.add(one)
        if self.prefixes is not None:
            self.prefixes.add(exchange)
        return None


def _files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those of JSON Lines in the directories named, by name."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(one for one in path.iterdir() if one.name.endswith(_SUFFIXES))
        else:
            files.append(path)
    return files


def _draw(scores: Scores, path: Path) -> None:
    try:
        write_plot(scores, path)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error
