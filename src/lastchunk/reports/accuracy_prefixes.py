"""Cuts finished streams short and compares the count so far with the chunks' own token counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lastchunk.meter.meter import Meter
from lastchunk.reports.accuracy_exchange import Exchange
from lastchunk.reports.accuracy_judge import request_of
from lastchunk.reports.accuracy_scores import Score
from lastchunk.settlement.learned_output import answer_count
from lastchunk.tokens.encodings import countable_model, encoding_of
from lastchunk.tokens.families import family_of
from lastchunk.tokens.tally import OutputTally
from lastchunk.usage import Quantity
from lastchunk.wire.events import ReasoningArrived, TextArrived, TextKind

CUTS_A_STREAM = 64
"""Chunks after which a stream is cut, evenly spread over those that tell their tokens."""

_LOGPROBS = "logprobs"
_RUNNING = "running usage"


@dataclass(frozen=True, slots=True)
class Cut:
    """The count of what had arrived after one chunk, and what the chunks said until then."""

    known_by: str
    family: str
    counted: Quantity
    truth: int


class PrefixScores:
    """Scores of all cuts, by how the truth is known and by family."""

    def __init__(self) -> None:
        self._scores: dict[tuple[str, str], Score] = {}
        self._streams: dict[tuple[str, str], int] = {}

    def add(self, exchange: Exchange) -> None:
        """All cuts of one exchange, if it is a stream that tells its tokens on the way."""
        cuts = list(prefix_cuts(exchange))
        for key in {(cut.known_by, cut.family) for cut in cuts}:
            self._streams[key] = self._streams.get(key, 0) + 1
        for cut in cuts:
            key = (cut.known_by, cut.family)
            self._scores.setdefault(key, Score()).add(cut.counted, cut.truth)

    def rows(self) -> Iterator[tuple[str, tuple[str], int, Score]]:
        """(known by, family, streams, score), the largest first."""
        for key, score in sorted(self._scores.items(), key=lambda found: -found[1].n):
            yield key[0], (key[1],), self._streams[key], score


def prefix_cuts(exchange: Exchange) -> Iterator[Cut]:
    """Cuts at chunk boundaries where the chunks so far add up to a known number above 0."""
    if not exchange.endpoint.answers or not exchange.answer.lstrip()[:6].startswith(_STREAM):
        return
    frames = _frames(exchange.answer)
    stride = max(1, len(frames) // CUTS_A_STREAM)
    request = request_of(exchange)
    meter = Meter(replace(request, stream=True))
    meter.headed(200, "text/event-stream", None)
    reading = _Reading(countable_model(exchange.served, request.model))
    for number, frame in enumerate(frames[:-1], start=1):
        meter.receive(frame, 0)
        meter.read()
        for text in meter.take_texts():
            reading.add(text)
        if number % stride:
            continue
        seen = replace(meter.observe(0), model_served=reading.model)
        if seen.finished_choices:
            return
        family = family_of(reading.model).value
        if reading.by_logprobs:
            counts = reading.tally.counts()
            yield Cut(_LOGPROBS, family, answer_count(request, seen, counts), reading.by_logprobs)
        elif seen.reported is not None and (told := seen.reported.output_tokens):
            counts = reading.tally.counts()
            yield Cut(_RUNNING, family, answer_count(request, seen, counts), told)


_STREAM = (b"data:", b"event:", b":")


class _Reading:
    """The text so far, counted by us alone, beside the tokens that its chunks claim to be."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.tally = OutputTally(encoding_of(model))
        self.by_logprobs: int | None = 0
        """None once a chunk with other output, or without logprobs, was seen."""

    def add(self, text: object) -> None:
        if isinstance(text, TextArrived):
            told = text.logprob_tokens
            known = text.kind is TextKind.CONTENT and told is not None
            if not known and text.text:
                self.by_logprobs = None
            elif self.by_logprobs is not None:
                self.by_logprobs += told or 0
            self.tally.add(TextArrived(text.choice, text.kind, text.text))
            return
        self.by_logprobs = None
        if not isinstance(text, ReasoningArrived) or not text.summary:
            self.tally.add(text)  # type: ignore[arg-type]


def _frames(answer: bytes) -> list[bytes]:
    """The stream cut behind each blank line, every byte kept."""
    text = answer.replace(b"\r\n", b"\n")
    return [frame + b"\n\n" for frame in text.split(b"\n\n") if frame.strip()]
