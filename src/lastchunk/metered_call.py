"""One attempt under way: what the way in tells, and what the accountant makes of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from lastchunk.clock import Clock
from lastchunk.meter.ending import Ending, Stop, ending_of
from lastchunk.meter.meter import Meter
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.experience import Experience, KnownPrompt, LessonRow
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.settlement.settle import settle
from lastchunk.tokens.encodings import encoding_of
from lastchunk.tokens.prompt import count_prompt
from lastchunk.tokens.tally import OutputTally
from lastchunk.wire.prompt import read_prompt
from lastchunk.wire.request import read_body

log = logging.getLogger("lastchunk")


class MeteredCall:
    """One attempt under way. Every method may be called from any thread; none raises.

    `reserved` is done when the reservation is durable; `settled` when the settlement is.
    """

    def __init__(
        self, call: OpenCall, body: bytes, clock: Clock, accept: Callable[[MeteredCall], None]
    ) -> None:
        self.call = call
        self.reserved: Future[None] = Future()
        self.settled: Future[Settlement] = Future()
        self._accept = accept
        self._clock = clock
        self._meter = Meter(call.request)
        self._lock = threading.Lock()
        self._body: bytes | None = body
        self._stop: tuple[Stop, int] | None = None
        self._done = False
        self.finish_seen = False
        self._reads_until: float | None = None
        self.hang_up: Callable[[], object] | None = None
        """Gives the connection up, where this process ends before the stream."""
        self._tally: OutputTally | None = None
        self._prompt: KnownPrompt | None = None
        self._seen = Observation()
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
                self._accept(self)

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
            self._accept(self)

    # What follows runs on the accountant's thread only.

    def conclude(self, book: PriceBook, experience: Experience) -> Settlement:
        """Everything that is known, settled."""
        stop, at_ms = self._stop or (Stop.END_OF_BODY, self._clock.now_ms())
        with self._lock:
            self._done = True
            if self._stop is not None:
                self._meter.finish()
            seen = self._meter.observe(at_ms)
        ending = ending_of(seen.phase, seen.status, stop)
        if ending not in (Ending.REFUSED, Ending.NEVER_SENT) and not seen.is_fully_reported:
            seen = self._counted(seen, experience)
        self._seen, self.hang_up = seen, None
        return settle(self.call, seen, ending, book, experience)

    def checkpoint(self, experience: Experience) -> Observation | None:
        """The state to write down; None where nothing new came since the last one."""
        with self._lock:
            if self._done:
                return None
            self._meter.read()
            seen = self._meter.observe(self._clock.now_ms())
        if seen.bytes == self._checkpointed_bytes:
            return None
        self._checkpointed_bytes = seen.bytes
        return self._counted(seen, experience)

    def can_teach(self) -> bool:
        """It is concluded, was reported in full, and can be counted beside that."""
        seen = self._seen
        known = self._prompt is not None or self._body is not None
        ended_well = seen.phase in (Phase.FINISHED, Phase.REPORTED, Phase.TERMINATED)
        return known and ended_well and seen.is_fully_reported and not seen.faults

    def teach(self, experience: Experience) -> list[LessonRow]:
        """Count this concluded call as if its usage had not come, and learn from the difference."""
        with self._lock:
            self._meter.read()
            seen = self._meter.observe(self._seen.observed_ms or self.call.opened_ms)
        seen = self._counted(seen, experience)
        self.drop_content()
        if self._prompt is None or seen.output is None:
            return []
        opened, first = self.call.opened_ms, seen.first_token_ms
        silent = (first - opened) / 1000 if self.call.request.stream and first else None
        return experience.learn(
            self.call.request,
            self._prompt,
            replace(seen, model_served=_countable(seen.model_served, self.call.request.model)),
            silent_seconds=silent,
            seen_ms=seen.observed_ms or opened,
        )

    def drop_content(self) -> None:
        """Keep nothing of prompt and output any longer."""
        self._body = None
        self._tally = None
        self._meter.drop_content()

    def _counted(self, seen: Observation, experience: Experience) -> Observation:
        """The observation with what our own tokenizer makes of prompt and output."""
        model = _countable(seen.model_served, self.call.request.model)
        try:
            if self._prompt is None and self._body is not None:
                self._prompt = self._count_prompt(self._body, model, experience)
                self._body = None
            if self._tally is None:
                self._tally = OutputTally(encoding_of(model))
            with self._lock:
                self._meter.read()
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

    def _count_prompt(self, raw: bytes, model: str, experience: Experience) -> KnownPrompt | None:
        request = self.call.request
        if (body := read_body(raw)) is None:
            return None
        prompt = read_prompt(request.dialect, body)
        counted = count_prompt(prompt, model, request.billed_dialect)
        return experience.prompt(prompt, request, model, counted)

    def forget(self) -> None:
        """In a forked child: the parent goes on with this call, the child must not."""
        self._done = True
        self._stop = self._stop or (Stop.CALLER_LEFT, 0)

    def _note_fault(self, name: str, error: Exception) -> None:
        # Not the message nor the traceback: either may quote content.
        kind = type(error).__name__
        log.error("%s: %s (%s); its numbers will be weaker", self.call_id, name, kind)
        self._meter.note_fault(name)


def _countable(served: str | None, asked: str) -> str:
    """The name to count by: what served, unless only the name asked for tells the vocabulary."""
    if served is None or (not encoding_of(served).known and encoding_of(asked).known):
        return asked
    return served
