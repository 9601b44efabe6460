"""`lastchunk migrate-ledger`: copies a ledger into another database."""

from __future__ import annotations

import click
from rich.progress import Progress, TaskID

from lastchunk.cli.output import print_tables
from lastchunk.cli.progress import bars
from lastchunk.clock import SystemClock
from lastchunk.ledger.copying import Copied, copy_ledger
from lastchunk.reports.copied import copied_table

EXIT_INTERRUPTED = 130
"""As a shell tells of Ctrl-C."""


@click.command("migrate-ledger")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def migrate_ledger(source: str, target: str, *, as_json: bool) -> None:
    """Copy the ledger FROM into TO, and prove that they are the same.

    Each is a SQLite file or a database URL. Stop everything that has FROM or TO open first: while
    a living process has, nothing is copied. FROM is never changed. TO must be empty or hold an
    earlier copy of FROM.

    Every row of every table is read back and compared, and every balance recomputed. Interrupted,
    it goes on where it was when it is run again; until it is done nobody can open TO.

    \b
    Example:
      lastchunk migrate-ledger lastchunk.db postgresql+psycopg://books@db.internal/books
    """
    with bars() as shown:
        progress = _Bars(shown)
        try:
            copied = copy_ledger(
                source, target, now_ms=SystemClock().now_ms(), progress=progress.tell
            )
        except KeyboardInterrupt:
            click.echo("Interrupted. FROM is unchanged; run it again and it goes on.", err=True)
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    print_tables([copied_table(copied)], json=as_json)
    if not as_json:
        click.echo(_what_now(copied))


def _what_now(copied: Copied) -> str:
    found = copied.verification
    return (
        f"from {copied.source}\nto   {copied.target}\n"
        f"Both verify: {found.entries:,} entries, {found.calls:,} calls,"
        f" {found.accounts:,} accounts.\n"
        "Set LASTCHUNK_LEDGER to the new one wherever it is set, and keep the old one as a backup."
    )


class _Bars:
    """One bar a step."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def tell(self, step: str, done: int, of: int) -> None:
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=of)
        self._bars.update(self._tasks[step], completed=done, total=of)
