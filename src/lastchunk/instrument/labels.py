"""Who spends, how exactly, and who wants to see what was settled: all of the running context."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self, TypeVar, overload

from lastchunk.bookkeeper import Caller
from lastchunk.metered_call import MeteredCall
from lastchunk.settlement.facts import Settlement

T = TypeVar("T")

WATCH_SECONDS = 5.0
"""How long leaving `watch()` waits for the settlements of calls that have ended."""

_account: ContextVar[str | None] = ContextVar("lastchunk_account", default=None)
_tags: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("lastchunk_tags", default=())
_exact: ContextVar[bool] = ContextVar("lastchunk_exact", default=False)
_watches: ContextVar[tuple[watch, ...]] = ContextVar("lastchunk_watches", default=())


@contextmanager
def label(account: str | None = None, **tags: str) -> Iterator[None]:
    """Calls made inside are this account's, and carry these tags.

    Labels nest: an inner one keeps the outer account and tags unless it says otherwise. They follow
    the context: tasks started inside inherit them, threads do not.
    """
    merged = dict(_tags.get()) | {name: str(value) for name, value in tags.items()}
    tokens = _tags.set(tuple(sorted(merged.items())))
    outer = _account.set(account if account is not None else _account.get())
    try:
        yield
    finally:
        _reset(_account, outer)
        _reset(_tags, tokens)


@contextmanager
def exact() -> Iterator[None]:
    """Streaming calls made inside use exact mode: their usage is always the provider's own.

    The provider is asked for the whole answer, without streaming, and the stream is made from it
    here. The price is a later first token: it comes when the whole answer has. Calls that are not
    streamed are what they are anyway. It follows the context as `label` does: tasks started inside
    inherit it, threads do not.
    """
    token = _exact.set(True)
    try:
        yield
    finally:
        _reset(_exact, token)


def is_exact_here() -> bool:
    """Whether the running code is inside `exact()`."""
    return _exact.get()


def current_caller(default_account: str) -> Caller:
    """Who spends, as the labels around this point say."""
    return Caller(_account.get() or default_account, "python", _tags.get())


def tell_watches(metered: MeteredCall) -> None:
    """Let the `watch()` blocks around this point see how this call ends."""
    for watching in _watches.get():
        watching._add(metered)


class watch(Sequence[Settlement]):
    """Collects the settlements of the calls made inside, in the order in which they were written.

        with lastchunk.watch() as calls:
            ...
        print(calls[0].usage.output_tokens)

    Leaving the block waits (5 s at most) until the calls that have ended are written down; calls
    that are still open settle later. Use `async with` in a coroutine, so that the loop goes on.
    """

    def __init__(self) -> None:
        self._settled: list[Settlement] = []
        self._calls: list[MeteredCall] = []
        self._token: Token[tuple[watch, ...]] | None = None

    @overload
    def __getitem__(self, index: int) -> Settlement: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Settlement]: ...
    def __getitem__(self, index: int | slice) -> Settlement | Sequence[Settlement]:
        return self._settled[index]

    def __len__(self) -> int:
        return len(self._settled)

    def __repr__(self) -> str:
        return f"<watch: {len(self._settled)} settled, {len(self._unsettled())} not yet>"

    def wait(self, seconds: float = WATCH_SECONDS) -> bool:
        """Block until every call that has ended is written down; False if that took too long.

        Inside an event loop, grace reads are not waited for: they need the loop to go on.
        """
        return not wait(self._unsettled(grace=not _in_event_loop()), seconds).not_done

    async def wait_async(self, seconds: float = WATCH_SECONDS) -> bool:
        """The same for a coroutine; waits also for grace reads under way."""
        if not _in_event_loop():  # another loop than asyncio's
            return self.wait(seconds)
        pending = [asyncio.wrap_future(future) for future in self._unsettled()]
        return not pending or not (await asyncio.wait(pending, timeout=seconds))[1]

    def __enter__(self) -> Self:
        self._token = _watches.set((*_watches.get(), self))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()
        self.wait()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()
        await self.wait_async()

    def _leave(self) -> None:
        if self._token is not None:
            _reset(_watches, self._token)
            self._token = None

    def _add(self, metered: MeteredCall) -> None:
        self._calls.append(metered)
        metered.settled.add_done_callback(self._take)

    def _take(self, settled: Future[Settlement]) -> None:
        if not settled.cancelled() and settled.exception() is None:
            self._settled.append(settled.result())

    def _unsettled(self, *, grace: bool = True) -> list[Future[Settlement]]:
        ending = (call for call in self._calls if (call.is_leaving if grace else call.has_ended))
        return [call.settled for call in ending if not call.settled.done()]


def _reset(variable: ContextVar[T], token: Token[T]) -> None:
    """Undo a `set`; a generator may be closed in another context, which has nothing to undo."""
    with suppress(ValueError):
        variable.reset(token)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
