"""Where the core meets the ledger: calls are opened, watched and settled here.

    call = bookkeeper.open(...)      RESERVED is on its way to the disk
    call.reserved.result()           … and has arrived: the request may leave
    call.headed(...), call.receive(...)
    call.end(Stop.…)                 never waits, may happen twice, from anywhere

Reading what waits, counting tokens and settling happen on one thread of its own, the accountant, so
that neither an event loop nor a caller pays for them.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from lastchunk.clock import Clock
from lastchunk.ids import new_call_id
from lastchunk.ledger import Ledger
from lastchunk.meter.ending import Stop
from lastchunk.meter.observation import Observation
from lastchunk.metered_call import MeteredCall
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.experience import Experience
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.settlement.forecast import forecast
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import Body, read_request

CHECKPOINT_SECONDS = 1.0
"""How often the state of open calls is written down: what a killed process may lose of them."""

BEAT_SECONDS = 10.0
"""How often this process says that it lives, for the sake of other hosts on the same ledger."""

REST_AFTER_LESSONS = 200
"""Learning from a finished call, by counting it, takes some milliseconds. After it comes a rest of
so many times as long: it may have half a percent of a core."""

LONGEST_REST_SECONDS = 5.0
"""Also how long the next lesson waits for the end of one that is under way."""

LESSON_BYTES = 256 * 1024
"""Larger requests are not counted for the sake of learning."""

CLOSE_SECONDS = 10.0
"""How long `close` waits for the accountant and the ledger to write what they have."""

log = logging.getLogger("lastchunk")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who spends, and how they came in (`python` or `gateway`)."""

    account: str
    way: str
    tags: tuple[tuple[str, str], ...] = ()


class Bookkeeper:
    """Opens calls in one ledger and sees to it that each is settled."""

    def __init__(
        self, ledger: Ledger, book: PriceBook, clock: Clock, experience: Experience | None = None
    ) -> None:
        self.ledger = ledger
        self.book = book
        self.experience = experience or Experience()
        self._next_lesson = 0.0
        self.clock = clock
        self._open: dict[str, MeteredCall] = {}
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        self._abandoned = False
        self._ledger_failed = False
        self._next_beat = clock.elapsed() + BEAT_SECONDS
        self._accountant = threading.Thread(target=self._run, name="accountant", daemon=True)
        self._accountant.start()
        _living.add(self)

    def open(
        self,
        dialect: Dialect,
        raw: bytes,
        body: Body,
        *,
        upstream: str,
        path: str,
        caller: Caller,
        attempt_of: str | None = None,
    ) -> MeteredCall:
        """A call about to be made. Send nothing before its `reserved` is done.

        `raw` is the request body as the caller sent it, `body` the same parsed; `upstream` is the
        provider's host[:port], `path` the URL's path.
        """
        now_ms = self.clock.now_ms()
        request = read_request(dialect, body, upstream=upstream, body_bytes=len(raw), path=path)
        call = OpenCall(
            call_id=new_call_id(now_ms),
            attempt_of=attempt_of,
            account=caller.account,
            tags=caller.tags,
            request=request,
            forecast=forecast(request, self.book, now_ms),
            way=caller.way,
            opened_ms=now_ms,
        )
        metered = MeteredCall(call, raw, self.clock, self.accept)
        self._open[call.call_id] = metered
        metered.reserved = self.ledger.reserve(call)
        return metered

    def accept(self, metered: MeteredCall) -> None:
        """Take in a call that has ended or whose account is conclusive. Safe in finalizers."""
        if not self._abandoned:
            self._inbox.put(lambda: self._conclude(metered))

    def open_calls(self) -> int:
        """How many calls are not settled yet."""
        return len(self._open)

    def is_healthy(self) -> bool:
        """Calls can be opened and settled."""
        return self._accountant.is_alive() and not self._closed and not self._ledger_failed

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Settle what is open as left by its caller, write everything, close the ledger."""
        if self._closed or self._abandoned:
            return
        self._closed = True
        for metered in list(self._open.values()):
            metered.leave()  # the accountant goes on until what is read on is over
        self._inbox.put(None)
        self._accountant.join(timeout)
        self.ledger.close(timeout)

    def abandon(self) -> None:
        """This is a forked copy: its calls and its ledger belong to the parent."""
        self._abandoned = True
        for metered in self._open.values():
            metered.forget()
        self._open.clear()
        _inherited.append(self)

    # The accountant.

    def _run(self) -> None:
        due = self.clock.elapsed() + CHECKPOINT_SECONDS
        closing = False
        while not (closing and not self._open):
            wait = max(0.0, due - self.clock.elapsed())
            with suppress(Empty):
                if (work := self._inbox.get(timeout=wait)) is None:
                    closing = True
                else:
                    work()
            if self.clock.elapsed() >= due:
                self._checkpoint()
                due = self.clock.elapsed() + CHECKPOINT_SECONDS

    def _conclude(self, metered: MeteredCall) -> None:
        if self._open.get(metered.call_id) is not metered or metered.settled.running():
            return
        metered.settled.set_running_or_notify_cancel()
        try:
            settlement = metered.conclude(self.book, self.experience)
            at_ms = settlement.observation.observed_ms or self.clock.now_ms()
            written = self.ledger.settle(metered.call, settlement, at_ms)
        except Exception as error:  # the border where the accountant must live on
            kind = type(error).__name__
            log.error(
                "%s could not be settled (%s); recovery will try again", metered.call_id, kind
            )
            self._finish(metered, error)
            return
        self._consider(metered)
        written.add_done_callback(
            lambda done: self._inbox.put(lambda: self._written(metered, settlement, done))
        )

    def _written(self, metered: MeteredCall, settlement: Settlement, written: Future[bool]) -> None:
        error = written.exception()
        self._ledger_failed = error is not None
        if error is not None:
            log.error("%s is settled but not written: %s", metered.call_id, error)
        self._finish(metered, error or settlement)

    def _finish(self, metered: MeteredCall, result: Settlement | BaseException) -> None:
        self._open.pop(metered.call_id, None)
        try:
            if isinstance(result, BaseException):
                metered.settled.set_exception(result)
            else:
                metered.settled.set_result(result)
        except InvalidStateError:  # somebody cancelled the future: nobody waits for it
            pass

    def _consider(self, metered: MeteredCall) -> None:
        """Learn from a finished call, if there is time: what waits to be settled comes first."""
        now = self.clock.elapsed()
        small = metered.call.request.body_bytes <= LESSON_BYTES
        if small and now >= self._next_lesson and metered.can_teach():
            self._next_lesson = now + LONGEST_REST_SECONDS
            self._inbox.put(lambda: self._learn(metered))
        else:
            metered.drop_content()

    def _learn(self, metered: MeteredCall) -> None:
        started = self.clock.elapsed()
        try:
            if rows := metered.teach(self.experience):
                self.ledger.learn(rows)
        except Exception as error:  # as in _conclude: what is not learned is only not learned
            log.warning("%s teaches nothing: %s", metered.call_id, type(error).__name__)
        now = self.clock.elapsed()
        self._next_lesson = now + min((now - started) * REST_AFTER_LESSONS, LONGEST_REST_SECONDS)

    def _checkpoint(self) -> None:
        seen: list[tuple[str, Observation]] = []
        for metered in list(self._open.values()):
            if metered.is_leaving and not metered.is_read_on:  # its event loop was closed under it
                metered.end(Stop.CALLER_LEFT)
            try:
                if (observation := metered.checkpoint(self.experience)) is not None:
                    seen.append((metered.call_id, observation))
            except Exception as error:  # as in _conclude
                kind = type(error).__name__
                log.error("%s could not be written down on the way (%s)", metered.call_id, kind)
        if self.clock.elapsed() >= self._next_beat:
            self._next_beat = self.clock.elapsed() + BEAT_SECONDS
            self.ledger.beat()
        if seen:
            self.ledger.checkpoint(seen)


_living: weakref.WeakSet[Bookkeeper] = weakref.WeakSet()
_inherited: list[Bookkeeper] = []
"""Bookkeepers of a parent process, kept so that their connections are never closed here."""


def abandon_all() -> None:
    """Called in a forked child: what the parent opened is the parent's to settle."""
    for bookkeeper in list(_living):
        bookkeeper.abandon()
    _living.clear()
