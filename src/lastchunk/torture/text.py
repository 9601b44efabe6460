"""A run as text of eighty columns: a grid for each door, promises, what was broken and why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich.text import Text

from lastchunk.torture.judge import Verdict
from lastchunk.torture.matrix import Door, Fault, Moment, Store
from lastchunk.torture.result import Mark, Result
from lastchunk.wire.dialect import Dialect

WIDTH = 80
_FIRST = 15
_STYLES = {Mark.HELD: "green", Mark.BROKEN: "bold red", Mark.NOT_APPLICABLE: "dim"}
_TITLES = {
    Moment.HEADERS: ("before", "headers"),
    Moment.FIRST_CHUNK: ("before", "1st chunk"),
    Moment.MID: ("mid-", "stream"),
    Moment.FINISH: ("after", "finish"),
    Moment.USAGE: ("after", "usage"),
    Moment.END: ("after", "end"),
}
_DOORS = {
    Door.SYNC: "in process, sync",
    Door.ASYNC: "in process, async",
    Door.GATEWAY: "through the gateway",
}
_LEDGERS = {Store.SQLITE: "SQLite", Store.POSTGRESQL: "PostgreSQL"}


def as_text(result: Result) -> Text:
    """The whole run for people. No line is longer than eighty columns, but for commands to copy."""
    lines: list[Text] = []
    for door in result.doors():
        lines += [*_grid(result, door), Text()]
    lines += _legend(result)
    lines += [Text(), *_promises(result)]
    for verdict in result.broken:
        lines += [Text(), *_explained(result, verdict)]
    return Text("\n").join([*lines, Text(), *_sum(result)])


def _grid(result: Result, door: Door) -> Iterator[Text]:
    yield Text(_DOORS[door], style="bold")
    for row in range(2):
        titles = "".join(_TITLES[moment][row].ljust(11) for moment in Moment)
        yield Text(" " * _FIRST + titles.rstrip(), style="dim")
    for fault in Fault:
        line = Text(fault.value.ljust(_FIRST))
        for moment in Moment:
            cell = Text()
            for place, marks in enumerate(result.marks(door, fault, moment)):
                cell.append(" " if place else "")
                for _, mark in marks:
                    cell.append(mark.value, style=_STYLES.get(mark, ""))
            cell.pad_right(11 - len(cell))
            line.append_text(cell)
        line.rstrip()
        if line.plain != fault.value:
            yield line


def _legend(result: Result) -> Iterator[Text]:
    ledgers = ", then ".join(_LEDGERS[store] for store in result.stores)
    told = (
        f"One mark a cell: {', '.join(Dialect)}; {ledgers}. {Mark.HELD} every promise held,"
        f" {Mark.BROKEN} one broken, {Mark.NOT_APPLICABLE} not applicable:"
    )
    yield from _wrapped(told)
    for reason, cells in result.not_applicable().items():
        yield from _wrapped(f"{cells:5} {reason}", indent=6)
    if result.left_out is not None:
        yield from _wrapped(result.left_out)


def _promises(result: Result) -> Iterator[Text]:
    for promise, cells in result.promises():
        held = "ok" if not cells else "NO"
        line = Text(held, style="green" if not cells else "bold red")
        found = "in every cell" if not cells else f"broken in {cells} of {len(result.verdicts)}"
        yield line.append(f"  {promise.value}: {found}", style="none")


def _explained(result: Result, verdict: Verdict) -> Iterator[Text]:
    yield Text(f"{Mark.BROKEN} {verdict.cell.name}", style="bold")
    for one in verdict.broken:
        yield from _wrapped(f"  {one.promise.value}, call {one.call}", indent=4)
        yield from _wrapped(f"    expected: {one.expected}", indent=14)
        yield from _wrapped(f"    found:    {one.found}", indent=14)
    yield Text(f"  {result.replay(verdict.cell)}", style="dim")


def _sum(result: Result) -> Iterator[Text]:
    held = len(result.verdicts) - len(result.broken)
    told = (
        f"{held} of {len(result.verdicts)} cells held, {result.calls} calls each,"
        f" seed {result.seed}, {result.seconds:.0f} s"
    )
    yield Text(told, style="bold")


def _wrapped(text: str, indent: int = 0) -> Iterator[Text]:
    for line in textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent, drop_whitespace=True):
        yield Text(line)
