"""The two numbers of a finished call that its output residual is learned from."""

from __future__ import annotations

from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.tokens.encodings import encoding_of
from lastchunk.tokens.families import Family, family_of
from lastchunk.tokens.output import count_output, shown_tokens
from lastchunk.usage import Basis, OutputCounts, Quantity, TokenCounts
from lastchunk.wire.prompt import Prompt
from lastchunk.wire.request import CallRequest

UNFINISHED_REASONS = frozenset(
    {"length", "max_output_tokens", "max_messages", "incomplete", "steered"}
)
"""Finish reasons of turns that were stopped, and so carry no end-of-turn tokens."""

OTHER_VOCABULARY = 0.25
"""Of an answer: how far the vocabulary of a model that is not OpenAI's may differ from the nearest
one at hand. Nine of ten such recordings are within."""

OTHER_BELOW = 5
OTHER_ABOVE = 12
"""What a turn and each call of another model may have around their text: end tokens and call
markers above (0 to 12, calls to 40), call text that is shorter than ours below."""

UPSTREAM_TOOLS = 1024
"""Calls of the provider's own tools: 14 to 30 a search in the recordings, 860 for a summary."""

NOTHING_SEEN = 256
"""Output tokens of an answer without anything that can be read: 1 to 175 in the recordings."""

UPSTREAM_BELOW = 0.3
UPSTREAM_BELOW_TOKENS = 8
"""Of an answer beside the provider's own tools, how much may be shown and not billed as output:
citations and links that the provider writes in. 19 of 20 such recordings are within."""

_UPSTREAM = ("builtin_tool", "reasoning_mode", "context_management", "item:")


def is_finished(seen: Observation) -> bool:
    """The answer came to its own end, so that end-of-turn tokens are billed with it."""
    stopped = seen.finish_reason in UNFINISHED_REASONS or seen.phase is Phase.FAILED
    return seen.phase >= Phase.FINISHED and not stopped


def answer_count(
    request: CallRequest,
    seen: Observation,
    counts: OutputCounts,
    *,
    tools_upstream: bool = False,
    stops: bool = False,
    at_ms: int | None = None,
) -> Quantity:
    """Tokens of the output that arrived, with a finished turn's constants where it finished.

    `tools_upstream`: the provider runs tools of its own, whose calls are billed and not shown.
    `stops` and `at_ms` as for `count_output`: what is not told, today's calls do not depend on.
    BOUNDED where something may be billed that cannot be seen, or where the vocabulary or the end of
    a turn is not known.
    """
    model = seen.model_served or request.model
    counted = count_output(
        counts,
        model=model,
        dialect=request.billed_dialect,
        finished=is_finished(seen),
        tools_declared=request.tools_declared,
        forced_call=request.tool_choice == "forced",
        json_schema=request.json_schema,
        tool_choice_none=request.tool_choice == "none",
        azure=request.azure,
        refusals=seen.refused_choices,
        choices=max(1, seen.finished_choices),
        reasoned=_reasoned(seen) and not tools_upstream,
        stops=stops,
        relayed=request.relayed,
        at_ms=at_ms,
    )
    below = above = 0
    if family_of(model) is Family.OTHER:
        share = 0.0 if encoding_of(model).exact else OTHER_VOCABULARY
        below = round(counted.best * share) + OTHER_BELOW * (1 + counts.calls)
        above = round(counted.best * share) + OTHER_ABOVE * (1 + counts.calls)
    if tools_upstream:
        above += UPSTREAM_TOOLS
        below += round(counted.best * UPSTREAM_BELOW) + UPSTREAM_BELOW_TOKENS
    if not shown_tokens(counts, model):
        above += NOTHING_SEEN
    if not below and not above:
        return counted
    low = max(0, counted.low - below)
    return Quantity(low, counted.best, counted.high + above, Basis.BOUNDED)


def _reasoned(seen: Observation) -> bool:
    return seen.reported is not None and bool(seen.reported.output_reasoning_tokens)


def runs_tools_upstream(prompt: Prompt) -> bool:
    """Whether the provider may act on its own for this request: search, run code, think twice."""
    return any(name.startswith(_UPSTREAM) for name in prompt.unknowns)


def visible_output(reported: TokenCounts, counts: OutputCounts, model: str) -> int | None:
    """Reported output tokens that could be seen: what `answer_count` is compared with.

    Hidden reasoning is taken off; reasoning that arrived as text was counted and stays, but of
    OpenAI's models, which only show a summary of it. None where the provider gave no number or its
    parts do not fit.
    """
    if reported.output_tokens is None:
        return None
    hidden = reported.output_audio_tokens or 0
    if not counts.reasoning_tokens or family_of(model).reasons:
        hidden += reported.output_reasoning_tokens or 0
    visible = reported.output_tokens - hidden
    return visible if visible >= 0 else None
