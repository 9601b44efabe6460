"""All guessing: numbers for what was not reported, each with its interval and its reason."""

from __future__ import annotations

from dataclasses import dataclass

from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.settlement.experience import Experience
from lastchunk.settlement.facts import OpenCall
from lastchunk.settlement.learned_output import answer_count, is_finished
from lastchunk.settlement.learned_reasoning import reasons_silently
from lastchunk.tokens.output import PARALLEL_SPREAD
from lastchunk.usage import Basis, Quantity

UNDELIVERED_TOKENS = 16
"""Tokens that may have been generated and billed beyond what arrived: 1 to 12 were measured on
local servers, 7 to 15 are named for OpenAI."""

REACTION_SECONDS = 0.25
"""How long a provider may go on after its client left."""

LOST_SECONDS = 2.0
"""How old the last checkpoint of a dead process may be (they are a second apart), and then some."""

LOST_SECONDS_USUAL = 0.5
"""How old it is on average when the process dies."""

USUAL_TOKENS_PER_SECOND = 80.0
FAST_TOKENS_PER_SECOND = 250.0
FASTEST_TOKENS_PER_SECOND = 1000.0
"""A common, a fast and a very fast model's pace, where the call was too short to show its own."""

SHORTEST_PACE_SECONDS = 0.2
"""A pace measured over less than this says more about buffers than about the model."""

HIDDEN_TOKENS_PER_SECOND = 60.0
HIDDEN_TOKENS_PER_SECOND_HIGH = 250.0
HIDDEN_TOKENS_AT_LEAST_HIGH = 2048
HIDDEN_ROUNDING = 64
"""Hidden reasoning while a model was silent; o-series and gpt-5 report multiples of 64."""

CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and the names of the reasons why it is not a reported one."""

    tokens: Quantity
    reasons: tuple[str, ...]


def estimate_input(call: OpenCall, seen: Observation) -> Estimate:
    """Prompt tokens of a call whose usage never came."""
    guess = call.forecast.input_tokens
    reasons: tuple[str, ...] = ("prompt_not_counted",)
    if seen.prompt is not None:
        guess, reasons = seen.prompt, seen.prompt_reasons
    if seen.status is None:  # the provider may not have begun
        return Estimate(Quantity(0, guess.best, guess.high, Basis.ASSUMED), (*reasons, "no_answer"))
    if seen.status >= 500:  # as a rule not billed
        return Estimate(Quantity(0, 0, guess.high, Basis.BOUNDED), (*reasons, "server_error"))
    return Estimate(guess, reasons)


def estimate_output(
    call: OpenCall, seen: Observation, ending: Ending, experience: Experience
) -> Estimate:
    """Output tokens of a call whose usage never came: what arrived, and what may be behind it."""
    reasons: list[str] = []
    counted = _arrived(call, seen, experience, reasons)
    low, best, high, basis = counted.low, counted.best, counted.high, counted.basis
    if not call.request.stream and ending not in (Ending.COMPLETED, Ending.UPSTREAM_FAILED):
        return _unseen_answer(call, seen, reasons)
    if seen.status is not None and seen.status >= 500:
        return Estimate(
            Quantity(0, 0, call.forecast.output_tokens.best, Basis.BOUNDED), ("server_error",)
        )
    if seen.phase < Phase.FINISHED or seen.phase is Phase.FAILED or ending is Ending.LOST:
        high += _undelivered(call, seen, counted, ending)
        reasons.append("undelivered_tail")
        if ending is Ending.LOST and seen.phase < Phase.FINISHED:
            pace = _pace(seen, counted, unknown=USUAL_TOKENS_PER_SECOND)
            best += int(LOST_SECONDS_USUAL * pace)
            basis = min(basis, Basis.BOUNDED)
        if seen.first_token_ms is None:
            basis = min(basis, Basis.ASSUMED)
            reasons.append("no_output_seen")
    hidden = _hidden_reasoning(call, seen, experience)
    if hidden is not None:
        low, best, high = low + hidden.low, best + hidden.best, high + hidden.high
        basis = min(basis, Basis.BOUNDED)
        reasons.append("hidden_reasoning")
    if call.request.background:
        high = max(high, call.forecast.output_tokens.high)
        reasons.append("background_goes_on")
    high = _within_ceiling(call, best, high)
    return Estimate(Quantity(low, best, high, basis), tuple(reasons))


def estimate_running(
    call: OpenCall, seen: Observation, reported: int, ending: Ending, experience: Experience
) -> Estimate:
    """Output tokens where the provider's running usage stopped before the end."""
    counted = _arrived(call, seen, experience, [])
    tail = _undelivered(call, seen, counted, ending)
    behind_report = max(reported, counted.high) + tail
    tokens = Quantity(reported, reported, behind_report, Basis.REPORTED_SO_FAR)
    return Estimate(tokens, ("running_usage", "undelivered_tail"))


def _arrived(
    call: OpenCall, seen: Observation, experience: Experience, reasons: list[str]
) -> Quantity:
    """What arrived, counted, with a finished turn's constants where the turn was finished."""
    request = call.request
    if seen.output is None:
        reasons.append("output_not_counted")
        return Quantity(0, seen.bytes // 64, seen.bytes, Basis.ASSUMED)
    finished = is_finished(seen)
    upstream = any(reason.startswith("builtin_tool") for reason in seen.prompt_reasons)
    counted = answer_count(request, seen, seen.output, tools_upstream=upstream)
    if finished:
        counted, corrections = experience.answer(request, seen, counted, tools_upstream=upstream)
        reasons += corrections
    if not finished:  # how much of a call's opening and end is spent, and billed, is not known
        spread = seen.output.spread + (PARALLEL_SPREAD if seen.output.calls > 1 else 0)
        text_only = min(counted.low, max(0, seen.output.total - spread))
        counted = Quantity(text_only, counted.best, counted.high, counted.basis)
    if seen.uncounted_chars:
        reasons.append("output_over_limit")
        counted = _plus_chars(counted, seen.uncounted_chars)
    for fault in seen.faults:
        reasons.append(fault)
        counted = Quantity(counted.low, counted.best, max(counted.high, seen.bytes), Basis.BOUNDED)
    return counted


def _unseen_answer(call: OpenCall, seen: Observation, reasons: list[str]) -> Estimate:
    """A whole answer that was cut: it is generated, and billed, to its end."""
    usual = call.forecast.output_tokens
    waited = _seconds(call.opened_ms, seen.observed_ms)
    best = min(usual.high, max(1, int(waited * USUAL_TOKENS_PER_SECOND)))
    return Estimate(Quantity(0, best, usual.high, Basis.ASSUMED), (*reasons, "answer_not_seen"))


def _undelivered(call: OpenCall, seen: Observation, counted: Quantity, ending: Ending) -> int:
    """Tokens that may be generated but not seen: pace times the time nobody looked, at most."""
    silence = _seconds(seen.last_byte_ms or call.opened_ms, seen.observed_ms)
    seconds = silence + (LOST_SECONDS if ending is Ending.LOST else REACTION_SECONDS)
    most = FASTEST_TOKENS_PER_SECOND if ending is Ending.LOST else FAST_TOKENS_PER_SECOND
    pace = _pace(seen, counted, unknown=most)
    if ending is Ending.LOST:  # a process in trouble sees less of the pace than there is
        pace = max(pace, USUAL_TOKENS_PER_SECOND)
    return max(UNDELIVERED_TOKENS, int(seconds * pace))


def _pace(seen: Observation, counted: Quantity, *, unknown: float) -> float:
    """Tokens a second of this call, or `unknown` where it was too short to tell."""
    lasted = _seconds(seen.first_token_ms, seen.last_byte_ms)
    if lasted >= SHORTEST_PACE_SECONDS and counted.best > 0:
        return counted.best / lasted
    return unknown


def _hidden_reasoning(call: OpenCall, seen: Observation, experience: Experience) -> Quantity | None:
    """Reasoning that is billed and never shown; None for models that do not reason in silence.

    The time to the first token, at the pace of this model's finished calls, else at a usual one.
    """
    model = seen.model_served or call.request.model
    thinking_ends = seen.first_token_ms or seen.observed_ms
    seconds = _seconds(call.opened_ms, thinking_ends)
    effort = call.request.reasoning_effort
    learned = None if seen.reasoning_seen else experience.hidden_reasoning(model, effort, seconds)
    if learned is not None or not reasons_silently(model):
        return learned
    steps = max(1, round(seconds * HIDDEN_TOKENS_PER_SECOND / HIDDEN_ROUNDING))
    high = max(HIDDEN_TOKENS_AT_LEAST_HIGH, int(seconds * HIDDEN_TOKENS_PER_SECOND_HIGH))
    best = steps * HIDDEN_ROUNDING
    return Quantity(0, best, max(best, high), Basis.BOUNDED)


def _within_ceiling(call: OpenCall, best: int, high: int) -> int:
    """No call has more output than the caller allowed; end-of-turn tokens come on top."""
    if call.request.output_ceiling is None:
        return high
    most = call.request.output_ceiling * call.request.choices + UNDELIVERED_TOKENS
    return max(best, min(high, most))


def _plus_chars(counted: Quantity, chars: int) -> Quantity:
    return Quantity(
        counted.low + chars // (2 * CHARS_PER_TOKEN),
        counted.best + chars // CHARS_PER_TOKEN,
        counted.high + chars,
        Basis.BOUNDED,
    )


def _seconds(start_ms: int | None, end_ms: int | None) -> float:
    if start_ms is None or end_ms is None:
        return 0.0
    return max(0, end_ms - start_ms) / 1000
