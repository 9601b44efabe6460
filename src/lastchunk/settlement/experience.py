"""All that finished calls have taught: what `settle` may lean on besides constants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lastchunk.meter.observation import Observation
from lastchunk.settlement.learned_output import (
    answer_count,
    is_finished,
    runs_tools_upstream,
    visible_output,
)
from lastchunk.settlement.learned_reasoning import ReasoningPaces, ReasoningRow, reasons_silently
from lastchunk.settlement.residuals import ResidualRow, Residuals, Side
from lastchunk.settlement.shape import answer_shape_of, class_of, effort_at, shape_of
from lastchunk.tokens.prompt import PromptCount
from lastchunk.usage import Quantity
from lastchunk.wire.prompt import Prompt
from lastchunk.wire.request import CallRequest

LessonRow = ResidualRow | ReasoningRow


@dataclass(frozen=True, slots=True)
class KnownPrompt:
    """A prompt's count without its content: plain, and corrected by what was learned."""

    shape: str
    plain: Quantity
    quantity: Quantity
    reasons: tuple[str, ...]
    tools_upstream: bool


class Experience:
    """Residuals by shape, and paces of hidden reasoning. Used by one thread; holds no content.

    `key` keeps shapes from being guessed; without one nothing can be looked up or learned.
    """

    def __init__(
        self,
        key: bytes = b"",
        residuals: Iterable[ResidualRow] = (),
        paces: Iterable[ReasoningRow] = (),
    ) -> None:
        self._key = key
        self._residuals = Residuals.from_rows(residuals)
        self._paces = ReasoningPaces.from_rows(paces)

    def prompt(
        self, prompt: Prompt, request: CallRequest, model: str, counted: PromptCount
    ) -> KnownPrompt:
        """A counted prompt, corrected by finished calls of its shape or family."""
        shape = shape_of(prompt, request, model, self._key)
        family = class_of(model, request)
        quantity, reasons = self._residuals.corrected(Side.PROMPT, shape, family, counted.quantity)
        return KnownPrompt(
            shape=shape,
            plain=counted.quantity,
            quantity=quantity,
            reasons=(*counted.reasons, *reasons),
            tools_upstream=runs_tools_upstream(prompt),
        )

    def answer(
        self,
        request: CallRequest,
        seen: Observation,
        counted: Quantity,
        *,
        tools_upstream: bool = False,
    ) -> tuple[Quantity, tuple[str, ...]]:
        """The count of an answer that came to its own end, corrected likewise."""
        assert seen.output is not None
        shape = self._answer_shape(request, seen, tools_upstream=tools_upstream)
        family = class_of(seen.model_served or request.model, request)
        return self._residuals.corrected(Side.OUTPUT, shape, family, counted)

    def hidden_reasoning(
        self, request: CallRequest, model: str, silent_seconds: float
    ) -> Quantity | None:
        """Reasoning tokens of so many silent seconds; None where nothing was learned of it."""
        return self._paces.hidden_reasoning(model, effort_at(request), silent_seconds)

    def learn(
        self,
        request: CallRequest,
        prompt: KnownPrompt,
        seen: Observation,
        *,
        silent_seconds: float | None,
        seen_ms: int,
    ) -> list[LessonRow]:
        """Learns from a finished call with reported usage; the rows are what to store.

        `seen` holds the counted output; `silent_seconds` is the time to its first token, None where
        that says nothing. Of a predicted output the rejected tokens are billed and never sent: such
        a call teaches nothing about outputs. Reasoning that was shown, if only as a summary, was
        not silent, and teaches no pace.
        """
        assert seen.reported is not None
        model = seen.model_served or request.model
        family = class_of(model, request)
        learn = self._residuals.learn
        rows: list[LessonRow] = []
        if truth := seen.reported.input_tokens:
            rows.append(learn(Side.PROMPT, prompt.shape, family, prompt.plain, truth, seen_ms))
        predicted = request.prediction_bytes > 0
        visible = None if seen.output is None else visible_output(seen.reported, seen.output, model)
        if visible and seen.output is not None and is_finished(seen) and not predicted:
            upstream = prompt.tools_upstream
            answer = answer_count(request, seen, seen.output, tools_upstream=upstream)
            shape = self._answer_shape(request, seen, tools_upstream=upstream)
            rows.append(learn(Side.OUTPUT, shape, family, answer, visible, seen_ms))
        reasoning = seen.reported.output_reasoning_tokens
        thinks = bool(reasoning) or reasons_silently(model)
        silent = silent_seconds is not None and not seen.reasoning_seen
        if reasoning is not None and thinks and silent and silent_seconds is not None:
            effort = effort_at(request)
            learn_pace = self._paces.learn_reasoning
            rows.append(learn_pace(model, effort, silent_seconds, reasoning, seen_ms))
        return rows

    def _answer_shape(
        self, request: CallRequest, seen: Observation, *, tools_upstream: bool
    ) -> str:
        assert seen.output is not None
        return answer_shape_of(request, seen, seen.output, self._key, tools_upstream=tools_upstream)


NOTHING_LEARNED = Experience()
"""A beginner's: constants only."""
