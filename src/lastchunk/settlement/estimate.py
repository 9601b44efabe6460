"""All guessing: numbers for what was not reported, each with its interval and its reason."""

from __future__ import annotations

from dataclasses import dataclass

from lastchunk.meter.departure import AfterCancel
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.settlement.experience import Experience
from lastchunk.settlement.facts import OpenCall
from lastchunk.settlement.learned_output import answer_count, is_finished
from lastchunk.settlement.learned_reasoning import reasons_silently
from lastchunk.settlement.summarised import reasoning_summarised, summary_tokens
from lastchunk.tokens.output import PARALLEL_SPREAD, shown_tokens
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

USUAL_FRAME_BYTES = 64
"""The shortest frames of a token that are common."""

FEWEST_FRAMES = 10
"""Counted frames that show how many tokens a frame of their stream has."""

_WE_LEFT = frozenset(
    {Ending.CALLER_LEFT, Ending.LIMIT_REACHED, Ending.UPSTREAM_TIMEOUT, Ending.LOST}
)
"""Endings at which this side closed the connection, or died: what its provider then bills is told
by `OpenCall.after_cancel`. Where the upstream broke, its generation may have broken as well."""


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
    if _is_billed_on(call, seen, ending):
        rest = rest_of_answer(call, best)
        best, high = best + rest.best, max(high, best + rest.high)
        basis = min(basis, Basis.BOUNDED)
        reasons.append("billed_after_cancel")
    if rejected := _rejected_at_most(call, seen):
        high += rejected
        basis = min(basis, Basis.BOUNDED)
        reasons.append("prediction_rejected")
    hidden = _hidden_reasoning(call, seen, experience, reasons)
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
    """Output tokens where the provider's running usage stopped before the end.

    What was delivered is exact; only what may be generated behind it is an interval.
    """
    counted = _arrived(call, seen, experience, [])
    tail = _undelivered(call, seen, counted, ending)
    behind_report = max(reported, counted.high) + tail
    if _is_billed_on(call, seen, ending):
        rest = rest_of_answer(call, reported)
        high = max(behind_report, reported + rest.high)
        tokens = Quantity(reported, reported + rest.best, high, Basis.BOUNDED)
        return Estimate(tokens, ("running_usage", "billed_after_cancel"))
    behind_report = _within_ceiling(call, reported, behind_report)
    tokens = Quantity(reported, reported, behind_report, Basis.REPORTED_SO_FAR)
    return Estimate(tokens, ("running_usage", "undelivered_tail"))


def rest_of_answer(call: OpenCall, arrived: int) -> Quantity:
    """Output tokens that can still come after so many.

    The best guess is a usual answer's length once more, whatever has come: lengths of answers have
    a long tail, and one that has gone on for long is no nearer to its end.
    """
    most = call.forecast.output_tokens
    left = max(0, most.high - arrived)
    return Quantity(0, min(left, most.best), left, Basis.ASSUMED)


def _arrived(
    call: OpenCall, seen: Observation, experience: Experience, reasons: list[str]
) -> Quantity:
    """What arrived, counted, with a finished turn's constants where the turn was finished."""
    request = call.request
    if seen.output is None:
        reasons.append("output_not_counted")
        best = seen.uncounted_frames or seen.bytes // USUAL_FRAME_BYTES
        return Quantity(0, best, max(best, seen.bytes), Basis.ASSUMED)
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
    if seen.uncounted_frames:
        reasons.append("frames_not_counted")
        counted = _plus_frames(counted, seen, seen.output.total)
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


def _is_billed_on(call: OpenCall, seen: Observation, ending: Ending) -> bool:
    """We left in mid-answer, and this provider generates and bills the rest all the same."""
    unfinished = seen.phase < Phase.FINISHED
    return call.after_cancel is AfterCancel.BILLS_WHOLE and ending in _WE_LEFT and unfinished


def _pace(seen: Observation, counted: Quantity, *, unknown: float) -> float:
    """Tokens a second of this call, or `unknown` where it was too short to tell."""
    lasted = _seconds(seen.first_token_ms, seen.last_byte_ms)
    if lasted >= SHORTEST_PACE_SECONDS and counted.best > 0:
        return counted.best / lasted
    return unknown


def _rejected_at_most(call: OpenCall, seen: Observation) -> int:
    """Tokens of a predicted output that the model may have rejected: billed as output, never sent.

    Not more than the prediction holds: a token is at least a byte, and it is part of the prompt.
    """
    predicted = call.request.prediction_bytes
    return predicted if seen.prompt is None else min(predicted, seen.prompt.high)


def _hidden_reasoning(
    call: OpenCall, seen: Observation, experience: Experience, reasons: list[str]
) -> Quantity | None:
    """Reasoning that is billed and never shown; None for models that do not reason in silence.

    By its summary where one was shown. A summary lags behind: while nothing else has arrived the
    model may have thought on, as long as it would have in silence.
    """
    model = seen.model_served or call.request.model
    summary = summary_tokens(seen.output, model)
    if not summary:
        thinking_ends = seen.first_token_ms or seen.observed_ms
        return _silent_reasoning(call, seen, model, thinking_ends, experience)
    reasons.append("reasoning_summarised")
    told = reasoning_summarised(model, summary)
    if seen.output is not None and shown_tokens(seen.output, model):
        return told
    silent = _silent_reasoning(call, seen, model, seen.observed_ms, experience)
    if silent is None:
        return told
    return Quantity(told.low, max(told.best, silent.best), max(told.high, silent.high), told.basis)


def _silent_reasoning(
    call: OpenCall, seen: Observation, model: str, until_ms: int | None, experience: Experience
) -> Quantity | None:
    """The time thought, at the pace of this model's finished calls, else at a usual one."""
    seconds = _seconds(call.opened_ms, until_ms)
    shown = seen.reasoning_seen and not summary_tokens(seen.output, model)
    learned = None if shown else experience.hidden_reasoning(call.request, model, seconds)
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


def _plus_frames(counted: Quantity, seen: Observation, tokens: int) -> Quantity:
    """Frames of which nothing but their number was kept are taken for such as were counted.

    A stream keeps to its pace a frame, mostly one token; twice as much or half is allowed for.
    """
    told = seen.frames - seen.uncounted_frames - 1  # the first one names the role
    known = told >= FEWEST_FRAMES
    more = round(seen.uncounted_frames * (tokens / told if known else 1))
    least = more // 2 if known else 0
    most = 2 * more + UNDELIVERED_TOKENS if known else max(more, seen.bytes)
    return Quantity(
        counted.low + least,
        counted.best + more,
        counted.high + most,
        min(counted.basis, Basis.BOUNDED),
    )


def _seconds(start_ms: int | None, end_ms: int | None) -> float:
    if start_ms is None or end_ms is None:
        return 0.0
    return max(0, end_ms - start_ms) / 1000
