"""One call's prompt and output, kept until they are counted, as our own tokenizer counts them."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from lastchunk.meter.evidence import OutputText
from lastchunk.meter.meter import Meter
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.settlement.experience import Experience, KnownPrompt, LessonRow
from lastchunk.settlement.facts import OpenCall
from lastchunk.tokens.encodings import countable_model, encoding_of
from lastchunk.tokens.prompt import count_prompt
from lastchunk.tokens.tally import OutputTally
from lastchunk.usage import OutputCounts
from lastchunk.wire.prompt import read_prompt
from lastchunk.wire.request import read_body

log = logging.getLogger("lastchunk")


class Counting:
    """Counts one call, piece by piece. On the accountant's thread, all but `mark_delivered`.

    `lock` is the call's: the meter is read and emptied under it.
    """

    def __init__(self, call: OpenCall, body: bytes, meter: Meter, lock: threading.Lock) -> None:
        self._call = call
        self._body: bytes | None = body
        self._meter = meter
        self._lock = lock
        self._tally: OutputTally | None = None
        self._prompt: KnownPrompt | None = None
        self._delivered_texts: list[OutputText] | None = None
        self._delivered: OutputCounts | None = None
        self.frames = 0
        """How many were counted."""

    def mark_delivered(self) -> None:
        """What came until now was delivered, and what comes later was not. Said once; locked."""
        if self._delivered_texts is None:
            self._meter.read()
            self._delivered_texts = self._meter.take_texts()

    def counted(self, seen: Observation, experience: Experience) -> Observation:
        """The observation with what the tokenizer makes of prompt and output so far."""
        try:
            if self._prompt is None and self._body is not None:
                self._prompt = self._count_prompt(self._body, seen, experience)
                self._body = None
            tally = self._tally_of(seen)
            with self._lock:
                self._meter.read()
                texts = self._meter.take_texts()
                self.frames = self._meter.frames_read
            for text in texts:
                tally.add(text)
            seen = replace(seen, output=tally.counts())
        except Exception as error:  # a tokenizer's failure costs the basis, not the call
            note_fault(self._call, self._meter, "count_failed", error)
            seen = replace(seen, faults=(*seen.faults, "count_failed"))
        if self._prompt is not None:
            seen = replace(seen, prompt=self._prompt.quantity, prompt_reasons=self._prompt.reasons)
        return seen

    def delivered(self, seen: Observation) -> OutputCounts | None:
        """Of that, what had come when the caller left; None where that cannot be counted."""
        try:
            self._tally_of(seen)
        except Exception as error:  # as in counted
            note_fault(self._call, self._meter, "count_failed", error)
        return self._delivered

    def can_teach(self, seen: Observation) -> bool:
        """A concluded call was reported in full, and can be counted beside that."""
        known = self._prompt is not None or self._body is not None
        ended_well = seen.phase in (Phase.FINISHED, Phase.REPORTED, Phase.TERMINATED)
        return known and ended_well and seen.is_fully_reported and not seen.faults

    def teach(self, concluded: Observation, experience: Experience) -> list[LessonRow]:
        """Count a concluded call as if its usage had not come, and learn from the difference."""
        with self._lock:
            self._meter.read()
            seen = self._meter.observe(concluded.observed_ms or self._call.opened_ms)
        seen = self.counted(seen, experience)
        self.drop()
        if self._prompt is None or seen.output is None:
            return []
        opened, first = self._call.opened_ms, seen.first_token_ms
        silent = (first - opened) / 1000 if self._call.request.stream and first else None
        return experience.learn(
            self._call.request,
            self._prompt,
            replace(seen, model_served=self._model(seen)),
            silent_seconds=silent,
            seen_ms=seen.observed_ms or opened,
        )

    def drop(self) -> None:
        """Keep nothing of prompt and output any longer."""
        self._body = self._tally = None
        self._delivered_texts = []
        self._meter.drop_content()

    def _model(self, seen: Observation) -> str:
        return countable_model(seen.model_served, self._call.request.model)

    def _tally_of(self, seen: Observation) -> OutputTally:
        """The tally; what had come when the caller left is in it first, and known by itself."""
        if self._tally is None:
            self._tally = OutputTally(encoding_of(self._model(seen)))
        if self._delivered is None and self._delivered_texts is not None:
            for text in self._delivered_texts:
                self._tally.add(text)
            self._delivered_texts = []
            self._delivered = self._tally.counts()
        return self._tally

    def _count_prompt(
        self, raw: bytes, seen: Observation, experience: Experience
    ) -> KnownPrompt | None:
        request, model = self._call.request, self._model(seen)
        if (body := read_body(raw)) is None:
            return None
        prompt = read_prompt(request.dialect, body)
        counted = count_prompt(prompt, model, request.billed_dialect)
        return experience.prompt(prompt, request, model, counted)


def note_fault(call: OpenCall, meter: Meter, name: str, error: Exception) -> None:
    """A trouble of our own with a call: it is logged, and on its row."""
    # Not the message nor the traceback: either may quote content.
    kind = type(error).__name__
    log.error("%s: %s (%s); its numbers will be weaker", call.call_id, name, kind)
    meter.note_fault(name)
