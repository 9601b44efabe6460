"""Names of the ledger in plain words: endings, bases, reasons."""

from __future__ import annotations

from lastchunk.meter.departure import AfterCancel, Cut, Departure, Done, Why
from lastchunk.meter.ending import Ending
from lastchunk.usage import Basis

ENDINGS: dict[Ending, str] = {
    Ending.COMPLETED: "the end was seen in the bytes",
    Ending.UPSTREAM_CUT: "the stream stopped without its end",
    Ending.UPSTREAM_TIMEOUT: "nothing more came in time",
    Ending.UPSTREAM_FAILED: "the provider said that it failed",
    Ending.CALLER_LEFT: "the caller left before the end",
    Ending.LIMIT_REACHED: "lastchunk stopped it at a limit",
    Ending.REFUSED: "the provider refused the request; nothing was generated",
    Ending.NEVER_SENT: "the request never left; no connection came about",
    Ending.LOST: "its process died; settled afterwards from what was last written down",
}

BASES: dict[Basis, str] = {
    Basis.STATED: "the provider's bill",
    Basis.REPORTED: "the provider's final usage",
    Basis.REPORTED_SO_FAR: "the provider's running usage, then silence",
    Basis.COUNTED: "our tokenizer counted it",
    Basis.BOUNDED: "seen but not countable: an interval",
    Basis.ASSUMED: "nothing was seen: a forecast",
}

BASES_IN_SHORT: dict[Basis, str] = {
    Basis.STATED: "provider's bill",
    Basis.REPORTED: "provider's final usage",
    Basis.REPORTED_SO_FAR: "provider's running usage",
    Basis.COUNTED: "counted by our tokenizer",
    Basis.BOUNDED: "seen, not countable",
    Basis.ASSUMED: "forecast, nothing seen",
}
"""As long as fits beside an amount and its interval in 80 columns."""

PARTS: dict[str, str] = {
    "input_tokens": "input",
    "input_cached_tokens": "input, cached",
    "input_cache_write_tokens": "input, cache write",
    "input_audio_tokens": "input, audio",
    "input_image_tokens": "input, images",
    "output_tokens": "output",
    "output_reasoning_tokens": "output, reasoning",
    "output_audio_tokens": "output, audio",
    "output_image_tokens": "output, images",
    "request": "the request",
}

_REASONS: dict[str, str] = {
    # the prompt
    "prompt_not_counted": "the prompt was not counted: its size is the forecast's",
    "no_answer": "no answer came: the provider may not have begun",
    "server_error": "the provider answered with a server error, as a rule not billed",
    "prompt": "the prompt has a shape that is not known",
    "prompt_template": "the prompt is a template stored with the provider",
    "suffix": "the request has a suffix, whose rendering is not known",
    "content": "a part of the prompt has a shape that is not known",
    "item": "the prompt has an item that cannot be counted",
    "part": "the prompt has a part that cannot be counted",
    "audio": "the prompt refers to audio that is not in it",
    "image_by_url": "the prompt names an image by its address: its size is not known",
    "image_by_id": "the prompt names an image by its id: its size is not known",
    "image_unreadable": "an image in the prompt could not be read",
    "builtin_tool": "a tool of the provider's own adds tokens that are never shown",
    "namespace_tool": "a tool is called by a name in a namespace",
    "custom_call": "the prompt has a call of a custom tool",
    "tool_choice": "the choice of tools has a shape that is not known",
    "allowed_tools": "only some tools are allowed: how this is rendered is not known",
    "format": "the answer's format is not known",
    "reasoning_mode": "the request sets a mode of reasoning that is not known",
    "reasoning_context": "the request sets how much earlier reasoning is kept",
    "previous_response_id": "the prompt goes on from a response stored with the provider",
    "conversation": "the prompt goes on from a conversation stored with the provider",
    "context_management": "the provider may shorten the prompt",
    "file": "the prompt holds a file, whose size in tokens is not known",
    "encrypted_reasoning": "the prompt holds reasoning that only the provider can read",
    "stored_reasoning": "the prompt refers to reasoning that the provider has stored",
    "extrapolated": "the prompt was too long to be counted whole: the rest was extrapolated",
    "schema_limit": "a tool's schema was too large to be rendered whole",
    "template_unknown": "how this model's prompts are rendered is not known",
    "vocabulary_nearest": "this model's vocabulary is not known: the nearest one was taken",
    "vocabulary_unknown": "this model's vocabulary is not known",
    # the output
    "undelivered_tail": "tokens may have been generated that never arrived",
    "no_output_seen": "no output had arrived when it ended",
    "output_not_counted": "what arrived could not be counted",
    "frames_not_counted": "of the last frames before it was lost only the number was written down",
    "output_over_limit": "the answer was longer than what is kept for counting",
    "answer_not_seen": "the answer was not streamed, and was cut before it came",
    "hidden_reasoning": "this model reasons silently; reasoning is billed and never shown",
    "reasoning_summarised": "its reasoning was shown as a summary: more is billed than was shown",
    "prediction_rejected": "rejected tokens of the predicted output are billed and never sent",
    "corrected_by_shape": "corrected by finished calls of the same shape",
    "corrected_by_stem": "corrected by finished calls that declare the same",
    "corrected_by_family": "corrected by finished calls of the same models at the same upstream",
    "interval_learned": "the interval is what 95 % of finished calls like it needed",
    "background_goes_on": "the provider goes on in the background after a cut",
    "billed_after_cancel": "this provider bills the rest of an answer that is left",
    "running_usage": "the provider's running usage is the last that it said",
    # the price
    "tier_unpriced": "no price is known for this service tier: the standard price was taken",
    # our own faults
    "meter_failed": "our own metering failed on this call",
    "count_failed": "our own counting failed on this call",
    "undecodable_encoding": "the body's compression is not known",
    "body_over_limit": "the answer was too long to be kept whole",
}


_DONE: dict[Done, str] = {
    Done.CANCELLED: "the upstream was cancelled",
    Done.DRAINING: "it is being read on",
    Done.DRAINED: "it was read to its end",
    Done.CUT: "it was read on, but not to its end",
}

_CUTS: dict[Cut, str] = {
    Cut.SECONDS: "its time was over",
    Cut.BYTES: "so many bytes are not drained",
    Cut.TOKENS: "so many tokens are not drained",
    Cut.UPSTREAM: "the upstream's stream broke off",
    Cut.SHUTDOWN: "the process or its event loop ended",
    Cut.PROCESS_DIED: "the process died",
}

_WHYS: dict[Why, str] = {
    Why.POLICY_SAYS: "the rule says so",
    Why.PROVIDER_STOPS: "this provider stops generating, and billing, when it is cancelled",
    Why.PROVIDER_UNKNOWN: "what this provider does after a cancel is not known",
    Why.BILLED_ANYWAY: "the rest is billed anyway: reading it costs nothing more",
    Why.COSTS_LESS: "the rest was expected to cost less than the threshold",
    Why.COSTS_MORE: "the rest was expected to cost the threshold or more",
    Why.UNPRICED: "no price is known, so what the rest costs could not be weighed",
    Why.TOO_MANY_DRAINS: "as many drains as are allowed were under way",
    Why.CANNOT_READ_ON: "there was nothing yet to read on from",
    Why.PROCESS_ENDED: "the process was ending",
}

AFTER_CANCEL: dict[AfterCancel, str] = {
    AfterCancel.STOPS: "stops billing",
    AfterCancel.BILLS_WHOLE: "bills the whole",
    AfterCancel.UNKNOWN: "unknown",
}


def done_in_words(departure: Departure) -> str:
    """What was done when the caller had left, as a sentence."""
    if departure.cut_by is None:
        return _DONE[departure.done]
    return f"{_DONE[departure.done]}: {_CUTS[departure.cut_by]}"


def why_in_words(departure: Departure) -> str:
    """Why that was done, and which rule decided."""
    return f"{_WHYS[departure.why]} ({departure.policy}, {departure.rule})"


def reason_in_words(name: str) -> str:
    """A reason's name as a sentence; an unknown one is at least readable."""
    kind, _, what = name.partition(":")
    words = _REASONS.get(kind, kind.replace("_", " "))
    return f"{words} ({what})" if what else words
