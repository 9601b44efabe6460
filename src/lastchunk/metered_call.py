"""One attempt under way: what the way in tells, and what the accountant makes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from lastchunk.clock import Clock
from lastchunk.counting import Counting, note_fault
from lastchunk.leaving.decide import decide, needs_price
from lastchunk.leaving.departing import BYTES_PER_TOKEN, Departing
from lastchunk.limits import Purse, Refused
from lastchunk.meter.departure import Cut, Why
from lastchunk.meter.ending import Ending, Stop, ending_of
from lastchunk.meter.meter import Meter
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.charge import ChargeRule
from lastchunk.settlement.experience import Experience, LessonRow
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.settlement.settle import find_price, settle
from lastchunk.wire.quiet import Lane

BACKLOG_LIMIT = 256 * 1024
"""Bytes and characters of a call that may wait to be counted, however little time there is."""

_NOT_THE_CALLERS = (Stop.LIMIT_REACHED, Stop.SHUT_DOWN, Stop.NOT_CONNECTED)
"""What ends a call as it says, though its caller had left."""


class MeteredCall:
    """One attempt under way. Every method may be called from any thread, `receive` from one at a
    time; none raises.

    `reserved` is done when the reservation is durable; `settled` when the settlement is.
    """

    def __init__(
        self,
        call: OpenCall,
        body: bytes,
        clock: Clock,
        accept: Callable[[MeteredCall], None],
        departing: Departing,
        book: PriceBook,
    ) -> None:
        self.call = call
        self._departing = departing
        self._book = book
        self.reserved: Future[Refused | None] = Future()
        self.settled: Future[Settlement] = Future()
        self._accept = accept
        self._elapsed = clock.elapsed
        self.lane = Lane(clock.elapsed, call.opened_ms)
        """The short way for quiet bytes, past all that is here."""
        self._now_ms = self.lane.now_ms
        self._meter = Meter(call.request, self.lane)
        self._lock = threading.Lock()
        self._stop: tuple[Stop, int] | None = None
        self._done = False
        self._conclusive_ms: int | None = None
        """When all was known, where the bytes told that before the way in said `end`."""
        self.finish_seen = False
        self._reads_until: float | None = None
        self.caller_left = False
        """Its caller is gone, and the way in reads on: whatever stops that, the caller had left."""
        self.hang_up: Callable[[], object] | None = None
        """Gives the connection up, where this process ends before the stream."""
        self._counting = Counting(call, body, self._meter, self._lock)
        self._seen = Observation()
        self._checkpointed_bytes = -1
        self._left_ms: int | None = None
        self._process_ends = False
        self._is_behind = False
        """What was last written down of it was not counted to the end."""
        self.purse: Purse | None = None
        """What it may still spend, where limits apply to it."""

    @property
    def call_id(self) -> str:
        return self.call.call_id

    @property
    def refusal(self) -> Refused | None:
        """Why it was not reserved, at a limit. Then it must not be sent, and leaves no entry."""
        done = self.reserved
        if not done.done() or done.exception() is not None:
            return None
        found = done.result()
        return found if isinstance(found, Refused) else None

    def so_far(self) -> tuple[Observation, frozenset[int]]:
        """What was seen until now, not counted, and the choices that are finished."""
        with self._lock:
            self._meter.read()
            return self._meter.observe(self._now_ms()), self._meter.finished

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

    def receive(self, piece: bytes) -> bool:
        """The next bytes of the body, as they came over the wire. Cheap. True: they are quiet."""
        if self._done:
            return False
        if self.lane.keep(piece):
            return True
        with self._lock:
            at_ms = self._now_ms()
            try:
                self._mark_delivered()
                has_news = self._meter.receive(piece, at_ms)
                if self._departing.drains:
                    self._meter.read()
                    self._departing.check(self.lane.total_bytes, self._meter.output_bytes)
                elif not has_news:
                    return False
            except Exception as error:  # our failure is not the caller's: the stream goes on
                note_fault(self.call, self._meter, "meter_failed", error)
            self.finish_seen = self._meter.awaits_usage
            if self._meter.is_conclusive and not self._done:
                self._done, self._conclusive_ms = True, at_ms
                self.lane.is_closed = True
                self._accept(self)
        return False

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
            note_fault(self.call, self._meter, "meter_failed", error)
            return False
        finally:
            self._lock.release()

    # What the way in asks when its caller leaves. None of it waits for a lock.

    @property
    def may_drain(self) -> bool:
        """Its caller's leaving may be no reason to stop reading."""
        return self._departing.may_drain

    @property
    def is_draining(self) -> bool:
        """It was decided to read on to the end, whatever that costs."""
        return self._departing.drains

    @property
    def reads_on(self) -> bool:
        """With its caller gone, the next piece is still wanted."""
        wanted = self.finish_seen or self._departing.goes_on
        return wanted and self.is_under_way

    def left(self) -> None:
        """The caller is gone: what is received from now on was not delivered to it."""
        self.lane.is_closed = True
        if self._left_ms is None:
            self._left_ms = self._now_ms()

    def stay(self, grace_seconds: float) -> float | None:
        """The caller is gone: how many seconds to read on for; None: stop the upstream now.

        `grace_seconds` is for the usage alone, where the finish was seen. While `reads_on`, and
        for so long at the most, the way in goes on receiving; then it says `end`.
        """
        self.left()
        if not self.is_under_way:
            return None
        seconds: float | None = None
        if self.awaits_usage():
            seconds = grace_seconds or None
        elif self._decide(Why.PROCESS_ENDED if self._process_ends else None):
            seconds = self._departing.caps.seconds
        if seconds is not None:
            self.read_on(seconds)
        return seconds

    def cut(self, by: Cut) -> None:
        """A drain ends here, and why; the first word counts."""
        self._departing.cut(by)

    def _decide(self, prevented: Why | None) -> bool:
        """Whether to drain; decided once."""
        departing = self._departing
        if departing.is_decided:
            return departing.goes_on
        rule, arrived = departing.rule, self._meter.output_bytes
        price = find_price(self.call, Observation(), self._book) if needs_price(rule) else None
        return departing.begin(
            decide(rule, self.call, arrived // BYTES_PER_TOKEN, price),
            prevented=prevented,
            total_bytes=self.lane.total_bytes,
            output_bytes=arrived,
        )

    def read_on(self, seconds: float) -> None:
        """The way in goes on for so long. Takes no lock."""
        self._reads_until = self._elapsed() + seconds

    def leave(self) -> None:
        """This process ends, and the call with it: nobody waits for a drain."""
        self._process_ends = True
        if self.is_draining:
            self.cut(Cut.SHUTDOWN)
            self._reads_until = self._elapsed()
        if self.hang_up is not None and self.is_under_way:
            self.hang_up()
        if not self.is_read_on:
            self.end(Stop.CALLER_LEFT)

    @property
    def is_read_on(self) -> bool:
        """A grace read is under way and its time is not over."""
        return self._reads_until is not None and self._elapsed() < self._reads_until

    def end(self, stop: Stop) -> None:
        """No more bytes will come. The first word counts; the bytes may prove it wrong.

        Takes no lock: it may run in a finalizer, in the middle of anything.
        """
        self._departing.release()
        self.lane.is_closed = True
        if self._stop is None:
            if self.caller_left and stop not in _NOT_THE_CALLERS:
                stop = Stop.CALLER_LEFT
            if stop is Stop.CALLER_LEFT:
                self.left()
                if self.is_draining and not self.is_read_on:
                    self.cut(Cut.SECONDS)
            self._stop = (stop, self._now_ms())
            self._accept(self)

    # What follows runs on the accountant's thread only.

    def conclude(
        self, book: PriceBook, experience: Experience, charges: Sequence[ChargeRule] = ()
    ) -> Settlement:
        """Everything that is known, settled."""
        stop, at_ms = self._stop or (Stop.END_OF_BODY, self._conclusive_ms or self._now_ms())
        with self._lock:
            self._done = self.lane.is_closed = True
            self._mark_delivered()
            if self._stop is not None:
                self._meter.finish()
            seen = self._meter.observe(at_ms)
        ending = ending_of(seen.phase, seen.status, stop)
        if ending not in (Ending.REFUSED, Ending.NEVER_SENT):
            if not seen.is_fully_reported:
                seen = self._counting.counted(seen, experience)
            seen = self._with_departure(seen, ending)
        if stop is Stop.SHUT_DOWN and ending is Ending.LIMIT_REACHED:
            seen = replace(seen, shut_down=True)
        self._seen, self.hang_up = seen, None
        return settle(self.call, seen, ending, book, experience, charges)

    @property
    def uncounted(self) -> float:
        """How much of what arrived is not counted yet, from 0 to 1; 1 where no output is."""
        counted = self._seen.output
        if counted is None or not counted.total:
            return 1.0
        backlog = self._meter.backlog
        return backlog / max(1, backlog, self.lane.total_bytes)

    def look(self, experience: Experience) -> Observation | None:
        """What was seen until now, counted; None once it is over."""
        with self._lock:
            if self._done:
                return None
            self._mark_delivered()
            self._meter.read()
            seen = self._meter.observe(self._now_ms())
        self._seen = self._with_departure(self._counting.counted(seen, experience), None)
        return self._seen

    def checkpoint(self, experience: Experience, *, count: bool) -> Observation | None:
        """The state to write down; None where nothing new came since the last one.

        `count`: what arrived is counted; else it only is where too much of it waits.
        """
        with self._lock:
            is_old = self.lane.total_bytes == self._checkpointed_bytes
            if is_old and count and self._is_behind:  # it stands still: time to count it
                is_old = False
            if self._done or (is_old and not self.is_draining):
                return None
            self._mark_delivered()
            count = count or self._must_be_counted()
            if count:
                self._meter.read()
            seen = self._meter.observe(self._now_ms())
        self._checkpointed_bytes = seen.bytes
        self._is_behind = not count
        if count:
            self._seen = self._with_departure(self._counting.counted(seen, experience), None)
            return self._seen
        last = self._seen
        return replace(
            seen,
            output=last.output,
            prompt=last.prompt,
            prompt_reasons=last.prompt_reasons,
            uncounted_frames=max(0, seen.frames - self._counting.frames),
        )

    def tell_again(self) -> None:
        """The last checkpoint was not written: the next has it all, also if nothing new comes."""
        self._checkpointed_bytes = -1
        if self.purse is not None:
            self.purse.tell_again()

    def _must_be_counted(self) -> bool:
        """However little time there is: too much waits, or its numbers are about to matter."""
        reports = self._seen.reported is not None  # running usage, which stands in what is read
        return reports or self._left_ms is not None or self._meter.backlog > BACKLOG_LIMIT

    def _mark_delivered(self) -> None:
        """Once its caller has left, and before more is received. Locked."""
        if self._left_ms is not None:
            self._counting.mark_delivered()

    def _with_departure(self, seen: Observation, ending: Ending | None) -> Observation:
        """The observation with what was decided when the caller left; `ending` None: it goes on."""
        if ending is Ending.CALLER_LEFT and seen.phase < Phase.FINISHED:
            self._decide(Why.PROCESS_ENDED if self._process_ends else Why.CANNOT_READ_ON)
        if self._left_ms is None or not self._departing.is_decided:
            return seen
        departure = self._departing.departure(
            self._left_ms,
            seen.phase,
            self._counting.delivered(seen),
            is_over=ending is not None,
        )
        return replace(seen, departure=departure)

    def can_teach(self) -> bool:
        """See `Counting.can_teach`."""
        return self._counting.can_teach(self._seen)

    def teach(self, experience: Experience) -> list[LessonRow]:
        """See `Counting.teach`."""
        return self._counting.teach(self._seen, experience)

    def drop_content(self) -> None:
        """Keep nothing of prompt and output any longer."""
        self._counting.drop()

    def forget(self) -> None:
        """In a forked child: the parent goes on with this call, the child must not."""
        self._done = self.lane.is_closed = True
        self._stop = self._stop or (Stop.CALLER_LEFT, 0)
