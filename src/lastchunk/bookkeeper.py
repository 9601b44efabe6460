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
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

from lastchunk.clock import Clock
from lastchunk.errors import EntryConflict, LedgerUnavailable
from lastchunk.ids import new_call_id
from lastchunk.leaving.house import LeavingHouse
from lastchunk.ledger import Ledger
from lastchunk.ledger.entries import differences_of
from lastchunk.ledger.windows import Holds
from lastchunk.limits import Habits, Purse, Refused, Terms, expect, is_balanced
from lastchunk.limits.purse import More
from lastchunk.meter.departure import Cut
from lastchunk.meter.ending import Ending, Stop
from lastchunk.meter.observation import Observation
from lastchunk.metered_call import MeteredCall
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import SiblingWatch, came_back
from lastchunk.settlement.charge import ChargeRule
from lastchunk.settlement.experience import Experience
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.settlement.forecast import forecast
from lastchunk.telemetry import Difference, Observer, Observers
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import Body, read_request

CHECKPOINT_SECONDS = 1.0
"""How often the state of open calls is written down: what a killed process may lose of them."""

COUNTING_SECONDS = 0.01
"""How long a checkpoint may count what open calls have received: a hundredth of a core. With a few
calls it is enough for all of them; of the rest, frames are written down, and counted later."""

FEWEST_COUNTED = 4
"""So many calls are counted at every checkpoint, however long that takes."""

FIRST_COUNTING_SECONDS = 0.1
"""The same for calls of which nothing is counted yet: what is known of a call that is killed rests
on its prompt and on its first count."""

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
        self,
        ledger: Ledger,
        book: PriceBook,
        clock: Clock,
        experience: Experience | None = None,
        leaving: LeavingHouse | None = None,
        observers: Sequence[Observer] = (),
        charges: Sequence[ChargeRule] = (),
    ) -> None:
        self.ledger = ledger
        self.book = book
        self.experience = experience or Experience()
        self.leaving = leaving or LeavingHouse()
        self.observers = Observers(observers)
        self.charges = charges
        """What customers are charged. May be replaced at any time: it holds for what is settled
        from then on."""
        self._next_lesson = 0.0
        self._habits = Habits()
        self._habits_lock = threading.Lock()
        self.clock = clock
        self._open: dict[str, MeteredCall] = {}
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        self._abandoned = False
        self._ledger_failed = False
        self._siblings = SiblingWatch(
            ledger,
            book,
            clock,
            self.experience,
            lambda: self.charges,
            self._inbox.put,
            self.observers.settled,
        )
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
        exact: bool = False,
        terms: Terms | None = None,
    ) -> MeteredCall:
        """A call about to be made. Send nothing before its `reserved` is done.

        `raw` is the request body as the caller sent it, `body` the same parsed; `upstream` is the
        provider's host[:port], `path` the URL's path. `exact`: the caller asked for a stream, and
        `raw` asks for the whole answer in its place. `terms`: where they say no, the result of
        `reserved` says why, and the call leaves no trace.
        """
        now_ms = self.clock.now_ms()
        request = read_request(dialect, body, upstream=upstream, body_bytes=len(raw), path=path)
        departing = self.leaving.departing(request, caller.account)
        if exact:
            request = replace(request, exact=True)
        limits = terms.of(caller.account) if terms is not None else ()
        foreseen, price = forecast(request, self.book, now_ms), None
        if limits:
            price = self.book.price(
                request.model, upstream=upstream, at_ms=now_ms, tier=request.service_tier
            )
        if is_balanced(limits):
            usual = self.usual_output(caller.account, request.model)
            foreseen = expect(foreseen, request, price, usual)
        call = OpenCall(
            call_id=new_call_id(now_ms),
            attempt_of=attempt_of,
            account=caller.account,
            tags=caller.tags,
            request=request,
            forecast=foreseen,
            way=caller.way,
            opened_ms=now_ms,
            after_cancel=departing.rule.after_cancel,
        )
        metered = MeteredCall(call, raw, self.clock, self.accept, departing, self.book)
        self._open[call.call_id] = metered
        if terms is None or not limits:
            metered.reserved = self.ledger.reserve(call)  # type: ignore[assignment]
            self.observers.opened(call)
            return metered
        metered.purse = purse = Purse(call, limits, price, terms.zone, metered.lane)
        metered.reserved = self.ledger.reserve(call, purse.admission)
        metered.reserved.add_done_callback(
            lambda _: self._inbox.put(lambda: self._drop(metered)) if metered.refusal else None
        )
        self.observers.opened(call)
        return metered

    def look(self, metered: MeteredCall) -> None:
        """Have what came so far counted, and more asked for, or the call stopped at its limit."""
        self._inbox.put(lambda: self._look(metered))

    def usual_output(self, account: str, model: str) -> int:
        """Tokens that 95 % of such calls stay within."""
        with self._habits_lock:
            return self._habits.output_tokens(account, model)

    def accustom(self, account: str, model: str, output_tokens: int) -> None:
        """One more finished call has come to so much."""
        with self._habits_lock:
            self._habits.learn(account, model, output_tokens)

    def accept(self, metered: MeteredCall) -> None:
        """Take in a call that has ended or whose account is conclusive. Safe in finalizers."""
        if not self._abandoned:
            self._inbox.put(lambda: self._conclude(metered))

    def open_calls(self) -> int:
        """How many calls are not settled yet."""
        return len(self._open)

    def is_healthy(self) -> bool:
        """Calls can be opened and settled, if only into the spool."""
        if not self._accountant.is_alive() or self._closed or self._ledger_failed:
            return False
        return not self.ledger.health().refuses_calls

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
                    _guarded(work)
            if self.clock.elapsed() >= due:
                _guarded(self._checkpoint)
                due = self.clock.elapsed() + CHECKPOINT_SECONDS

    def _drop(self, metered: MeteredCall) -> None:
        """It was refused at a limit: it was never sent, and nothing is written."""
        if self._open.pop(metered.call_id, None) is not None:
            metered.forget()
            metered.drop_content()
            metered.settled.cancel()

    def _look(self, metered: MeteredCall) -> None:
        try:
            if (seen := metered.look(self.experience)) is not None:
                self._weigh(metered, seen)
        except Exception as error:  # as in _conclude
            kind = type(error).__name__
            log.error("%s could not be counted on the way (%s)", metered.call_id, kind)

    def _weigh(self, metered: MeteredCall, seen: Observation) -> None:
        """Hold what an open call has come to against what it may spend."""
        purse = metered.purse
        if purse is None:
            return
        output = 0 if seen.output is None else seen.output.total
        purse.counted(seen.prompt, output, seen.bytes)
        self._ask(metered, purse)

    def _ask(self, metered: MeteredCall, purse: Purse) -> None:
        if (more := purse.ask()) is None:
            return
        asked = self.ledger.extend(metered.call_id, more.holds, more.admission)
        asked.add_done_callback(
            lambda done: self._inbox.put(lambda: self._told(metered, purse, more, done))
        )

    def _told(
        self, metered: MeteredCall, purse: Purse, more: More, done: Future[Refused | None]
    ) -> None:
        # Our own failure is not the caller's: it goes on.
        found = None if done.exception() is not None else done.result()
        if purse.answered(more, found if isinstance(found, Refused) else None):
            self._ask(metered, purse)
        if purse.stopped is not None:
            metered.cut(Cut.TOKENS)

    def _conclude(self, metered: MeteredCall) -> None:
        if metered.refusal is not None:
            return
        if self._open.get(metered.call_id) is not metered or metered.settled.running():
            return
        metered.settled.set_running_or_notify_cancel()
        try:
            settlement = metered.conclude(self.book, self.experience, self.charges)
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
        output = settlement.usage.output_tokens
        if settlement.ending is Ending.COMPLETED and output is not None:
            self.accustom(metered.call.account, metered.call.request.model, output.best)
        written.add_done_callback(
            lambda done: self._inbox.put(lambda: self._written(metered, settlement, done))
        )

    def _written(self, metered: MeteredCall, settlement: Settlement, written: Future[bool]) -> None:
        error = written.exception()
        if metered.refusal is not None:  # its caller had left before that was known
            return
        if isinstance(error, EntryConflict):
            self._come_back(metered, settlement)
            return
        self._ledger_failed = error is not None
        if error is not None:
            log.error("%s is settled but not written: %s", metered.call_id, error)
        else:
            self.observers.settled(metered.call, settlement)
        self._finish(metered, error or settlement)

    def _come_back(self, metered: MeteredCall, settlement: Settlement) -> None:
        """This process was paused, taken for dead, and its call settled by another."""
        log.warning("%s was settled as lost while this process was paused", metered.call_id)
        at_ms = settlement.observation.observed_ms or metered.call.opened_ms
        correction = came_back(settlement, self.ledger.process_id, at_ms)
        corrected = self.ledger.correct(correction, if_better=True)
        corrected.add_done_callback(
            lambda done: self._inbox.put(
                lambda: self._corrected(metered, settlement, correction.correction_id, done)
            )
        )

    def _corrected(
        self, metered: MeteredCall, settlement: Settlement, correction_id: str, done: Future[bool]
    ) -> None:
        if (error := done.exception()) is not None:
            log.error("%s stays as it was settled by another: %s", metered.call_id, error)
        elif done.result():
            self._tell_of_correction(metered.call, correction_id)
        self._finish(metered, error or settlement)

    def _tell_of_correction(self, call: OpenCall, correction_id: str) -> None:
        try:
            entry = self.ledger.correction(call.call_id, correction_id)
        except LedgerUnavailable as error:
            log.warning("%s: metrics do not know of its correction: %s", call.call_id, error)
            return
        if entry is not None:
            changed = Difference(differences_of(entry.tokens), entry.cost, entry.charge_nano)
            self.observers.corrected(call, changed)

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
        """Write down where open calls are; those of which least is counted come first."""
        seen: list[tuple[str, Observation]] = []
        holds: dict[str, Holds] = {}
        began, counted = self.clock.worked(), 0
        for metered in sorted(self._open.values(), key=_uncounted, reverse=True):
            if metered.is_leaving and not metered.is_read_on:  # its event loop was closed under it
                metered.end(Stop.CALLER_LEFT)
            try:
                if counted == 1:  # the first may have loaded a vocabulary: time runs from here
                    began = self.clock.worked()
                spent = self.clock.worked() - began
                most = FIRST_COUNTING_SECONDS if metered.uncounted == 1.0 else COUNTING_SECONDS
                count = spent < most or counted < FEWEST_COUNTED
                counted += count
                if (observation := metered.checkpoint(self.experience, count=count)) is not None:
                    seen.append((metered.call_id, observation))
                    self._weigh(metered, observation)
                    if metered.purse and (changed := metered.purse.changed_holds()):
                        holds[metered.call_id] = changed
            except Exception as error:  # as in _conclude
                kind = type(error).__name__
                log.error("%s could not be written down on the way (%s)", metered.call_id, kind)
        self._siblings.tick()
        if seen:
            self._mind(self.ledger.checkpoint(seen), [call_id for call_id, _ in seen])
        if holds:
            self._mind(self.ledger.rehold(holds), list(holds))

    def _mind(self, written: Future[None], call_ids: list[str]) -> None:
        """What was not written is told again: a stream that stands still brings nothing new."""
        written.add_done_callback(
            lambda done: (
                self._inbox.put(lambda: self._tell_again(call_ids))
                if done.exception() is not None
                else None
            )
        )

    def _tell_again(self, call_ids: list[str]) -> None:
        for call_id in call_ids:
            if (metered := self._open.get(call_id)) is not None:
                metered.tell_again()


def _guarded(work: Callable[[], None]) -> None:
    """The accountant must live on: without it no call of this process is settled."""
    try:
        work()
    except Exception as error:  # as in _conclude
        log.error("the accountant met %s and goes on", type(error).__name__)


def _uncounted(metered: MeteredCall) -> float:
    return metered.uncounted


_living: weakref.WeakSet[Bookkeeper] = weakref.WeakSet()
_inherited: list[Bookkeeper] = []
"""Bookkeepers of a parent process, kept so that their connections are never closed here."""


def abandon_all() -> None:
    """Called in a forked child: what the parent opened is the parent's to settle."""
    for bookkeeper in list(_living):
        bookkeeper.abandon()
    _living.clear()
