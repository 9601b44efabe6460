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
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

from lastchunk.clock import Clock
from lastchunk.ids import new_call_id
from lastchunk.ledger import Ledger
from lastchunk.meter.ending import Ending, Stop, ending_of
from lastchunk.meter.meter import Meter
from lastchunk.meter.observation import Observation
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.settlement.forecast import forecast
from lastchunk.settlement.settle import settle
from lastchunk.tokens.encodings import encoding_of
from lastchunk.tokens.prompt import PromptCount, count_prompt
from lastchunk.tokens.tally import OutputTally
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.prompt import read_prompt
from lastchunk.wire.request import Body, read_body, read_request

CHECKPOINT_SECONDS = 1.0
"""How often the state of open calls is written down: what a killed process may lose of them."""

BEAT_SECONDS = 10.0
"""How often this process says that it lives, for the sake of other hosts on the same ledger."""

CLOSE_SECONDS = 10.0
"""How long `close` waits for the accountant and the ledger to write what they have."""

log = logging.getLogger("lastchunk")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who spends, and how they came in (`python` or `gateway`)."""

    account: str
    way: str
    tags: tuple[tuple[str, str], ...] = ()


class MeteredCall:
    """One attempt under way. Every method may be called from any thread; none raises.

    `reserved` is done when the reservation is durable; `settled` when the settlement is.
    """

    def __init__(self, bookkeeper: Bookkeeper, call: OpenCall, body: bytes | None) -> None:
        self.call = call
        self.reserved: Future[None] = Future()
        self.settled: Future[Settlement] = Future()
        self._bookkeeper = bookkeeper
        self._clock = bookkeeper.clock
        self._meter = Meter(call.request)
        self._lock = threading.Lock()
        self._body = body
        self._stop: tuple[Stop, int] | None = None
        self._done = False
        self.finish_seen = False
        self._reads_until: float | None = None
        self.hang_up: Callable[[], object] | None = None
        """Gives the connection up, where this process ends before the stream."""
        self._tally: OutputTally | None = None
        self._prompt: PromptCount | None = None
        self._checkpointed_bytes = -1

    @property
    def call_id(self) -> str:
        return self.call.call_id

    @property
    def is_leaving(self) -> bool:
        """Its end is certain and near: it has ended, or a grace read is under way."""
        return self._stop is not None or self._reads_until is not None

    @property
    def is_under_way(self) -> bool:
        """Neither has it ended nor is all known that its bytes can tell."""
        return self._stop is None and not self._done

    @property
    def has_ended(self) -> bool:
        """The way in has said that no more bytes will come."""
        return self._stop is not None

    def headed(self, status: int, content_type: str | None, content_encoding: str | None) -> None:
        """The response's head came in."""
        with self._lock:
            self._meter.headed(status, content_type, content_encoding)

    def receive(self, piece: bytes) -> None:
        """The next bytes of the body, as they came over the wire. Cheap."""
        if self._done:
            return
        with self._lock:
            try:
                self._meter.receive(piece, self._clock.now_ms())
            except Exception as error:  # our failure is not the caller's: the stream goes on
                self._note_fault("meter_failed", error)
            self.finish_seen = self._meter.awaits_usage
            if self._meter.is_conclusive and not self._done:
                self._done = True
                self._bookkeeper.accept(self)

    def awaits_usage(self) -> bool:
        """The finish was seen and only the usage is missing: reading on costs no token."""
        if self._done or self._stop is not None:
            return False
        # A stream may be closed in a finalizer, which may run in this very lock's `with` block.
        if not self._lock.acquire(blocking=False):
            return self.finish_seen
        try:
            self._meter.read()
            self.finish_seen = self._meter.awaits_usage
            return self.finish_seen
        except Exception as error:  # as in receive
            self._note_fault("meter_failed", error)
            return False
        finally:
            self._lock.release()

    def read_on(self, seconds: float) -> None:
        """Its caller is gone; the way in reads on for the usage, for so long. Takes no lock."""
        self._reads_until = self._clock.elapsed() + seconds

    def leave(self) -> None:
        """This process ends, and the call with it."""
        if self.hang_up is not None and self.is_under_way:
            self.hang_up()
        if not self.is_read_on:
            self.end(Stop.CALLER_LEFT)

    @property
    def is_read_on(self) -> bool:
        """A grace read is under way and its time is not over."""
        return self._reads_until is not None and self._clock.elapsed() < self._reads_until

    def end(self, stop: Stop) -> None:
        """No more bytes will come. The first word counts; the bytes may prove it wrong.

        Takes no lock: it may run in a finalizer, in the middle of anything.
        """
        if self._stop is None:
            self._stop = (stop, self._clock.now_ms())
            self._bookkeeper.accept(self)

    # What follows runs on the accountant's thread only.

    def conclude(self, book: PriceBook) -> Settlement:
        """Everything that is known, settled."""
        stop, at_ms = self._stop or (Stop.END_OF_BODY, self._clock.now_ms())
        with self._lock:
            self._done = True
            if self._stop is not None:
                self._meter.finish()
            seen = self._meter.observe(at_ms)
        ending = ending_of(seen.phase, seen.status, stop)
        if ending not in (Ending.REFUSED, Ending.NEVER_SENT) and not seen.is_fully_reported:
            seen = self._counted(seen)
        self._body = self.hang_up = None
        return settle(self.call, seen, ending, book)

    def checkpoint(self) -> Observation | None:
        """The state to write down; None where nothing new came since the last one."""
        with self._lock:
            if self._done:
                return None
            self._meter.read()
            seen = self._meter.observe(self._clock.now_ms())
        if seen.bytes == self._checkpointed_bytes:
            return None
        self._checkpointed_bytes = seen.bytes
        return self._counted(seen)

    def _counted(self, seen: Observation) -> Observation:
        """The observation with what our own tokenizer makes of prompt and output."""
        model = _countable(seen.model_served, self.call.request.model)
        try:
            if self._prompt is None and self._body is not None:
                self._prompt = _count_prompt(self._body, model, self.call.request.dialect)
                self._body = None
            if self._tally is None:
                self._tally = OutputTally(encoding_of(model))
            with self._lock:
                texts = self._meter.take_texts()
            for text in texts:
                self._tally.add(text)
            seen = replace(seen, output=self._tally.counts())
        except Exception as error:  # a tokenizer's failure costs the basis, not the call
            self._note_fault("count_failed", error)
            seen = replace(seen, faults=(*seen.faults, "count_failed"))
        if self._prompt is not None:
            seen = replace(seen, prompt=self._prompt.quantity, prompt_reasons=self._prompt.reasons)
        return seen

    def forget(self) -> None:
        """In a forked child: the parent goes on with this call, the child must not."""
        self._done = True
        self._stop = self._stop or (Stop.CALLER_LEFT, 0)

    def _note_fault(self, name: str, error: Exception) -> None:
        # Not the message nor the traceback: either may quote content.
        kind = type(error).__name__
        log.error("%s: %s (%s); its numbers will be weaker", self.call_id, name, kind)
        self._meter.note_fault(name)


class Bookkeeper:
    """Opens calls in one ledger and sees to it that each is settled."""

    def __init__(self, ledger: Ledger, book: PriceBook, clock: Clock) -> None:
        self.ledger = ledger
        self.book = book
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
        metered = MeteredCall(self, call, raw)
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
            settlement = metered.conclude(self.book)
            at_ms = settlement.observation.observed_ms or self.clock.now_ms()
            written = self.ledger.settle(metered.call, settlement, at_ms)
        except Exception as error:  # the border where the accountant must live on
            kind = type(error).__name__
            log.error(
                "%s could not be settled (%s); recovery will try again", metered.call_id, kind
            )
            self._finish(metered, error)
            return
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

    def _checkpoint(self) -> None:
        seen: list[tuple[str, Observation]] = []
        for metered in list(self._open.values()):
            if metered.is_leaving and not metered.is_read_on:  # its event loop was closed under it
                metered.end(Stop.CALLER_LEFT)
            try:
                if (observation := metered.checkpoint()) is not None:
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


def _countable(served: str | None, asked: str) -> str:
    """The name to count by: what served, unless only the name asked for tells the vocabulary."""
    if served is None or (not encoding_of(served).known and encoding_of(asked).known):
        return asked
    return served


def _count_prompt(raw: bytes, model: str, dialect: Dialect) -> PromptCount | None:
    body: Mapping[str, object] | None = read_body(raw)
    return None if body is None else count_prompt(read_prompt(dialect, body), model, dialect)
