"""A progress bar for commands that read many calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

_STEP = 100
"""Drawn once for so many."""


@contextmanager
def bars() -> Iterator[Progress]:
    """On stderr, and only on a terminal: it is no part of the result."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as shown:
        yield shown


def counted(
    items: Iterable[Item], shown: Progress, what: str, total: Callable[[], int]
) -> Iterator[Item]:
    """The items as they pass. `total` is asked only where somebody is looking."""
    if shown.disable:
        yield from items
        return
    task = shown.add_task(what, total=total())
    for number, item in enumerate(items, start=1):
        if number % _STEP == 0:
            shown.update(task, completed=number)
        yield item
