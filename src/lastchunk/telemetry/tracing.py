"""OpenTelemetry: one span a call and two metrics, by the GenAI semantic conventions. No content.

Names as in the conventions' own repository (semantic-conventions-genai, November 2026); what they
have no name for begins with `lastchunk.`. A span is made when its call is settled, with the times
of the call, under the span that was current when the call was opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lastchunk.meter.ending import Ending
from lastchunk.money import NANO_PER_USD
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.telemetry.observer import Difference, Observer
from lastchunk.telemetry.told import duration_seconds, ended_ms, first_token_seconds
from lastchunk.usage import Usage
from lastchunk.wire.dialect import Dialect

try:
    from opentelemetry import context as otel_context
    from opentelemetry import metrics, propagate, trace
except ModuleNotFoundError:  # the extra `otel` is not installed: there is nothing to be told
    IS_INSTALLED = False
else:
    IS_INSTALLED = True

if TYPE_CHECKING:
    from opentelemetry.context import Context

NAME = "lastchunk"

OPERATIONS = {
    Dialect.CHAT: "chat",
    Dialect.RESPONSES: "chat",
    Dialect.COMPLETIONS: "text_completion",
}

PROVIDERS = {
    "azure.com": "azure.ai.openai",
    "openai.com": "openai",
    "anthropic.com": "anthropic",
    "googleapis.com": "gcp.gen_ai",
    "mistral.ai": "mistral_ai",
    "groq.com": "groq",
    "deepseek.com": "deepseek",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
    "cohere.com": "cohere",
}
"""Ends of host names and the conventions' names for who is there; a host not listed is told as
`openai`, whose protocol it speaks."""

TOKEN_BUCKETS = tuple(4**power for power in range(14))
DURATION_BUCKETS = tuple(0.01 * 2**power for power in range(14))
"""Both as the conventions give them: 1 to 67,108,864 tokens, 0.01 to 81.92 s."""

_USAGE = {
    "gen_ai.usage.input_tokens": "input_tokens",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.usage.cache_read.input_tokens": "input_cached_tokens",
    "gen_ai.usage.cache_creation.input_tokens": "input_cache_write_tokens",
    "gen_ai.usage.reasoning.output_tokens": "output_reasoning_tokens",
}

MOST_PARENTS = 20_000
"""Open calls whose parent span is remembered; a call that is refused at the door is never told."""

_WELL = frozenset({Ending.COMPLETED, Ending.CALLER_LEFT})
"""Endings that are no error of anybody's."""


def tracing() -> Observer | None:
    """Tells OpenTelemetry of calls; None where it is not installed.

    Without a provider configured by the application, the API's own no-op takes what it is told.
    """
    return Tracing() if IS_INSTALLED else None


@contextmanager
def attached(headers: Mapping[str, str]) -> Iterator[None]:
    """What is opened inside belongs to the trace that a request's `traceparent` header names."""
    if not IS_INSTALLED or "traceparent" not in headers:
        yield
        return
    found = {name.lower(): value for name, value in headers.items()}
    token = otel_context.attach(propagate.extract(found))
    try:
        yield
    finally:
        otel_context.detach(token)


class Tracing:
    """An observer of calls. Needs `opentelemetry-api`."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer(NAME)
        meter = metrics.get_meter(NAME)
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self._parents: dict[str, Context] = {}

    def opened(self, call: OpenCall) -> None:
        current = otel_context.get_current()
        if trace.get_current_span(current).get_span_context().is_valid:
            self._parents[call.call_id] = current
            while len(self._parents) > MOST_PARENTS:
                del self._parents[next(iter(self._parents))]

    def settled(self, call: OpenCall, settlement: Settlement) -> None:
        parent = self._parents.pop(call.call_id, None)
        common = _common(call, settlement)
        self._record(settlement.usage, duration_seconds(call, settlement), common)
        span = self._tracer.start_span(
            f"{common['gen_ai.operation.name']} {call.request.model}",
            context=parent if parent is not None else otel_context.Context(),
            kind=trace.SpanKind.CLIENT,
            start_time=call.opened_ms * 1_000_000,
        )
        if span.is_recording():
            span.set_attributes(common | _of_call(call, settlement))
            if settlement.ending not in _WELL:
                span.set_status(trace.StatusCode.ERROR, settlement.ending.value)
        at_ms = ended_ms(call, settlement) or settlement.observation.last_byte_ms
        span.end(end_time=max(at_ms or call.opened_ms, call.opened_ms) * 1_000_000)

    def corrected(self, call: OpenCall, difference: Difference) -> None:
        """A span cannot be changed: corrections are in the ledger and in Prometheus's metrics."""
        self._parents.pop(call.call_id, None)

    def _record(self, usage: Usage, seconds: float | None, common: dict[str, Any]) -> None:
        for kind, quantity in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if quantity is not None:
                told = common | {"gen_ai.token.type": kind}
                self._tokens.record(quantity.best, told)
        if seconds is not None:
            self._duration.record(seconds, common)


def _common(call: OpenCall, settlement: Settlement) -> dict[str, Any]:
    """Attributes of both the span and the metrics: of few values."""
    request, seen = call.request, settlement.observation
    host, _, port = request.upstream.partition(":")
    told: dict[str, Any] = {
        "gen_ai.operation.name": OPERATIONS[request.dialect],
        "gen_ai.provider.name": provider_of(host),
        "gen_ai.request.model": request.model,
        "server.address": host,
    }
    if port.isdecimal():
        told["server.port"] = int(port)
    if seen.model_served is not None:
        told["gen_ai.response.model"] = seen.model_served
    if settlement.ending not in _WELL:
        told["error.type"] = settlement.ending.value
    return told


def _of_call(call: OpenCall, settlement: Settlement) -> dict[str, Any]:
    request, seen, usage = call.request, settlement.observation, settlement.usage
    told: dict[str, Any] = {
        "gen_ai.request.stream": request.stream,
        "gen_ai.request.max_tokens": request.output_ceiling,
        "gen_ai.response.id": seen.response_id,
        "gen_ai.response.time_to_first_chunk": first_token_seconds(call, settlement),
        "http.response.status_code": seen.status,
        "lastchunk.call.id": call.call_id,
        "lastchunk.account": call.account,
        "lastchunk.ending": settlement.ending.value,
        "lastchunk.basis": None if usage.basis is None else usage.basis.name.lower(),
        "lastchunk.charge": _dollars(settlement.charge.amount),
    }
    if request.choices != 1:
        told["gen_ai.request.choice.count"] = request.choices
    if seen.finish_reason is not None:
        told["gen_ai.response.finish_reasons"] = [seen.finish_reason]
    for name, field in _USAGE.items():
        quantity = getattr(usage, field)
        told[name] = None if quantity is None else quantity.best
    if (cost := settlement.cost) is not None:
        told["lastchunk.cost"] = _dollars(cost.best)
        told["lastchunk.cost.low"] = _dollars(cost.low)
        told["lastchunk.cost.high"] = _dollars(cost.high)
    return {name: value for name, value in told.items() if value is not None}


def _dollars(nano: int | None) -> float | None:
    return None if nano is None else nano / NANO_PER_USD


def provider_of(host: str) -> str:
    """The conventions' name of who answers at a host."""
    dotted = f".{host.lower()}"
    found = (name for end, name in PROVIDERS.items() if dotted.endswith(f".{end}"))
    return next(found, "openai")
