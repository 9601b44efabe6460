"""Cancels a coroutine at its k-th suspension, as a task is cancelled that waits there."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class Cutter:
    """`await cutter.run(work())` is cancelled where it waits for the k-th time.

    `was_cut` tells whether it came that far; `k` None never cuts.
    """

    def __init__(self, k: int | None) -> None:
        self.k = k
        self.waits = 0
        self.was_cut = False

    def run(self, work: Coroutine[Any, Any, Any]) -> "_Driven":
        return _Driven(self, work)


class _Driven:
    def __init__(self, cutter: Cutter, work: Coroutine[Any, Any, Any]) -> None:
        self._cutter = cutter
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        cutter, work = self._cutter, self._work
        error: BaseException | None = None
        while True:
            try:
                waited_for = work.send(None) if error is None else work.throw(error)
            except StopIteration as done:
                return done.value
            error = None
            cutter.waits += 1
            if cutter.waits == cutter.k:
                cutter.was_cut = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()  # takes effect on what is waited for now
            try:
                yield waited_for
            except BaseException as thrown:
                error = thrown
