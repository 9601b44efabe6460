"""Judges the counter on one recorded exchange: what it says, cold and warm, and what was billed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lastchunk.meter.meter import Meter
from lastchunk.meter.observation import Observation
from lastchunk.reports.accuracy_classes import output_class, prompt_class
from lastchunk.reports.accuracy_cookbook import cookbook_count
from lastchunk.reports.accuracy_exchange import Endpoint, Exchange, Skipped
from lastchunk.settlement.learned_output import (
    answer_count,
    runs_tools_upstream,
    visible_output,
)
from lastchunk.settlement.residuals import Residuals, Side
from lastchunk.settlement.shape import answer_shape_of, class_of, shape_of
from lastchunk.tokens.encodings import countable_model, encoding_of
from lastchunk.tokens.families import family_of as openai_family_of
from lastchunk.tokens.prompt import count_prompt
from lastchunk.tokens.tally import OutputTally
from lastchunk.usage import Quantity, TokenCounts
from lastchunk.wire.counts import read_counts
from lastchunk.wire.prompt import Prompt, read_prompt
from lastchunk.wire.request import CallRequest, read_request

_KEY = b"lastchunk accuracy"
"""Shapes live as long as the command: they need no secret."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One number of one exchange, without content: counted cold, counted warm, and billed.

    `family` and `kind` are names of the model's family and of the class; `cookbook` is the plain
    rule's number, None for outputs. `derivable`: the class is one that can be counted exactly;
    `familiar`: an exchange of the same shape was learned before.
    """

    side: Side
    provider: str
    endpoint: str
    family: str
    kind: str
    derivable: bool
    truth: int
    cold: Quantity
    warm: Quantity
    familiar: bool
    cookbook: int | None = None


class Judge:
    """Judges exchanges in order, and learns from each only after it has judged it."""

    def __init__(self) -> None:
        self._residuals = Residuals()
        self.disagreeing = 0
        """Answers in which our reader found other usage than the recording notes."""

    def judge(self, exchange: Exchange) -> list[Judged] | Skipped:
        """The prompt and the output, as far as there is a truth; never raises on any JSON."""
        request, body = request_of(exchange), _body(exchange)
        seen, tally = _watched(exchange, request)
        billed = read_counts(exchange.usage) or seen.reported
        if billed is None:
            return Skipped.USAGE
        if exchange.usage and seen.reported is not None and _differ(billed, seen.reported):
            self.disagreeing += 1
        model = countable_model(seen.model_served, request.model)
        prompt = read_prompt(request.dialect, body)
        judged = [
            self._prompt(exchange, request, prompt, model, billed),
            self._output(exchange, request, prompt, seen, tally, billed),
        ]
        return [one for one in judged if one is not None] or Skipped.USAGE

    def _prompt(
        self,
        exchange: Exchange,
        request: CallRequest,
        prompt: Prompt,
        model: str,
        billed: TokenCounts,
    ) -> Judged | None:
        truth = billed.input_tokens
        if not truth:
            return None
        dialect, at_ms = request.billed_dialect, exchange.created_ms
        cold = count_prompt(prompt, model, dialect, at_ms=at_ms).quantity
        shape = shape_of(prompt, request, model, _KEY)
        kind = prompt_class(exchange.endpoint, prompt, model)
        warm, familiar = self._learned(Side.PROMPT, shape, request, model, cold, truth)
        return Judged(
            side=Side.PROMPT,
            provider=exchange.provider,
            endpoint=exchange.endpoint,
            family=openai_family_of(model).value,
            kind=kind,
            derivable=kind.is_derivable,
            truth=truth,
            cold=cold,
            warm=warm,
            familiar=familiar,
            cookbook=cookbook_count(exchange.endpoint, exchange.request, model),
        )

    def _output(
        self,
        exchange: Exchange,
        request: CallRequest,
        prompt: Prompt,
        seen: Observation,
        tally: OutputTally,
        billed: TokenCounts,
    ) -> Judged | None:
        if not exchange.endpoint.answers or not exchange.answer:
            return None
        counts = tally.counts()
        model = countable_model(seen.model_served, request.model)
        truth = visible_output(billed, counts, model)
        if truth is not None:
            truth -= _rejected(exchange.usage)
        if not truth or truth < 0:
            return None
        seen = replace(seen, model_served=model, reported=billed)
        upstream = runs_tools_upstream(prompt)
        cold = answer_count(
            request,
            seen,
            counts,
            tools_upstream=upstream,
            stops=bool(exchange.request.get("stop")),
            at_ms=exchange.created_ms,
        )
        shape = answer_shape_of(request, seen, counts, _KEY, tools_upstream=upstream)
        kind = output_class(counts, seen, model, upstream)
        if request.prediction_bytes:  # what it rejects is billed and not seen: nothing to learn
            warm, familiar = cold, False
        else:
            warm, familiar = self._learned(Side.OUTPUT, shape, request, model, cold, truth)
        return Judged(
            side=Side.OUTPUT,
            provider=exchange.provider,
            endpoint=exchange.endpoint,
            family=openai_family_of(model).value,
            kind=kind,
            derivable=kind.is_derivable,
            truth=truth,
            cold=cold,
            warm=warm,
            familiar=familiar,
        )

    def _learned(
        self, side: Side, shape: str, request: CallRequest, model: str, cold: Quantity, truth: int
    ) -> tuple[Quantity, bool]:
        """What the exchanges before this one make of the count, and whether one had its shape.

        Then this one is learned, too.
        """
        family = class_of(model, request)
        warm, _ = self._residuals.corrected(side, shape, family, cold)
        familiar = self._residuals.knows(side, shape)
        self._residuals.learn(side, shape, family, cold, truth)
        return warm, familiar


def request_of(exchange: Exchange) -> CallRequest:
    """The storable facts of the request, as a live call has them."""
    return read_request(
        exchange.endpoint.dialect,
        _body(exchange),
        upstream=exchange.upstream,
        body_bytes=exchange.request_bytes,
        path=exchange.path,
    )


def _body(exchange: Exchange) -> Mapping[str, object]:
    """The request's body; embeddings in the form of the dialect that they are read by."""
    if exchange.endpoint is not Endpoint.EMBEDDINGS:
        return exchange.request
    return {**exchange.request, "prompt": exchange.request.get("input")}


def _watched(exchange: Exchange, request: CallRequest) -> tuple[Observation, OutputTally]:
    """The answer through the reader that live calls have, its text counted and dropped."""
    meter = Meter(request)
    if exchange.endpoint.answers and exchange.answer:
        meter.headed(exchange.status, exchange.content_type, None)
        meter.receive(exchange.answer, 0)
        meter.finish()
    seen = meter.observe(0)
    tally = OutputTally(encoding_of(countable_model(seen.model_served, request.model)))
    for text in meter.take_texts():
        tally.add(text)
    return seen, tally


def _differ(noted: TokenCounts, read: TokenCounts) -> bool:
    pairs = (
        (noted.input_tokens, read.input_tokens),
        (noted.output_tokens, read.output_tokens),
    )
    return any(one != other for one, other in pairs if None not in (one, other))


def _rejected(usage: Mapping[str, object]) -> int:
    """Tokens of a prediction that the model did not use: billed as output, never sent."""
    details = usage.get("completion_tokens_details")
    rejected = details.get("rejected_prediction_tokens") if isinstance(details, dict) else None
    return rejected if isinstance(rejected, int) and rejected > 0 else 0
