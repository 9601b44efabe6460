"""A task's cancellation, held back while it takes in what must not be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class HeldBack(Generic[T]):
    """Awaits `steps` in the caller's own task. Cancelled meanwhile, it raises that at their end.

    A cancellation breaks what its task waits for, and HTTP libraries then close the connection.
    So the task waits for a stand-in, which can be broken. `asyncio.shield` needs a task of its own
    for that, and the timeouts inside HTTP libraries are bound to the task that entered them.

    `holds` is asked when it is cancelled: False lets that through. The steps may take `seconds`
    from then on, or in all where nothing is asked; then they are cancelled themselves, and where
    their task was not, TimeoutError is raised.
    """

    def __init__(
        self,
        steps: Coroutine[Any, Any, T],
        seconds: float,
        holds: Callable[[], bool] | None = None,
    ) -> None:
        self._steps = steps
        self._seconds = seconds
        self._holds = holds
        self._loop = asyncio.get_running_loop()
        self._waits_for: asyncio.Future[Any] | None = None
        self._cancelled: asyncio.CancelledError | None = None
        self._limit = self._limited() if holds is None else None
        self._is_over = False

    def __await__(self) -> Generator[Any, None, T]:
        steps = self._steps
        error: asyncio.CancelledError | None = None
        try:
            while True:
                waits_for = steps.send(None) if error is None else steps.throw(error)
                error = yield from self._waited(waits_for)
        except StopIteration as done:
            result: T = done.value
        except (Exception, asyncio.CancelledError):
            if self._cancelled is None and not self._is_over:
                raise
            if self._cancelled is None:
                raise TimeoutError from None
        finally:
            steps.close()
            if self._limit is not None:
                self._limit.cancel()
        if self._cancelled is not None:
            raise self._cancelled
        return result

    def _waited(
        self, waits_for: asyncio.Future[Any] | None
    ) -> Generator[Any, None, asyncio.CancelledError | None]:
        """Wait for what the steps wait for; gives the cancellation that is to be thrown there."""
        if waits_for is None:  # they only let others run
            try:
                yield
            except asyncio.CancelledError as error:
                return None if self._hold(error) else error
            return None
        waits_for._asyncio_future_blocking = False  # as a task says that it has taken it
        self._waits_for = waits_for
        while not waits_for.done():
            try:
                yield from self._stand_in(waits_for)
            except asyncio.CancelledError as error:
                if not self._hold(error):
                    waits_for.cancel(*error.args)
        self._waits_for = None
        return None

    def _stand_in(self, waits_for: asyncio.Future[Any]) -> Generator[Any, None, None]:
        stand_in: asyncio.Future[None] = self._loop.create_future()

        def wake(_: asyncio.Future[Any]) -> None:
            if not stand_in.done():
                stand_in.set_result(None)

        waits_for.add_done_callback(wake)
        try:
            yield from stand_in
        finally:
            waits_for.remove_done_callback(wake)

    def _hold(self, error: asyncio.CancelledError) -> bool:
        if self._limit is None:
            if self._holds is None or not self._holds():
                return False
            self._limit = self._limited()
        self._cancelled = self._cancelled or error
        return not self._is_over

    def _limited(self) -> asyncio.TimerHandle:
        return self._loop.call_later(self._seconds, self._give_up)

    def _give_up(self) -> None:
        self._is_over = True
        if self._waits_for is not None:
            self._waits_for.cancel()
