"""Who stops billing when the client leaves, and who bills the whole answer: the built-in table.

What a provider does is found by the upstream's host. At OpenRouter, which asks many providers, it
is known only for models whose providers all do the same, by the beginning of the model's name. What
no row names is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from lastchunk.meter.departure import AfterCancel
from lastchunk.wire.request import CallRequest

_RELAYS_LIST = "OpenRouter's documentation, “Stream cancellation”"
_LISTED = "2026-11"
"""When OpenRouter's list was last read, from a stored copy."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One row. `hosts` are globs without a port; none: the operator says where it is.

    `models` are beginnings of model names, where only those are meant. `streams_only`: a request
    that is not streamed is billed to its end all the same.
    """

    name: str
    hosts: tuple[str, ...]
    after_cancel: AfterCancel
    source: str
    dated: str
    models: tuple[str, ...] = ()
    streams_only: bool = False


def _stops(name: str, *hosts: str, source: str = _RELAYS_LIST, dated: str = _LISTED) -> Provider:
    return Provider(name, hosts, AfterCancel.STOPS, source, dated)


def _bills(name: str, *hosts: str, source: str = _RELAYS_LIST, dated: str = _LISTED) -> Provider:
    return Provider(name, hosts, AfterCancel.BILLS_WHOLE, source, dated)


def _relayed(name: str, after: AfterCancel, *models: str) -> Provider:
    hosts = ("openrouter.ai", "*.openrouter.ai")
    return Provider(name, hosts, after, _RELAYS_LIST, _LISTED, models, streams_only=True)


PROVIDERS: tuple[Provider, ...] = (
    _stops(
        "openai",
        "api.openai.com",
        "*.api.openai.com",
        source=f"{_RELAYS_LIST}; OpenAI itself says nothing",
    ),
    _stops(
        "azure",
        "*.openai.azure.com",
        "*.services.ai.azure.com",
        "*.cognitiveservices.azure.com",
    ),
    _stops("anthropic", "api.anthropic.com"),
    _stops("fireworks", "api.fireworks.ai"),
    _stops("deepinfra", "api.deepinfra.com"),
    _stops("together", "api.together.xyz", "api.together.ai"),
    _stops("cohere", "api.cohere.com", "api.cohere.ai"),
    _stops("xai", "api.x.ai"),
    _stops("deepseek", "api.deepseek.com"),
    _stops("novita", "api.novita.ai"),
    _stops("cloudflare", "api.cloudflare.com"),
    _stops("friendli", "api.friendli.ai"),
    _stops("avian", "api.avian.io"),
    _bills(
        "bedrock",
        "bedrock-runtime.*.amazonaws.com",
        source=f"{_RELAYS_LIST}; measured by users (litellm#36008, #13245)",
    ),
    _bills("google", "generativelanguage.googleapis.com", "*aiplatform.googleapis.com"),
    _bills("groq", "api.groq.com"),
    _bills("mistral", "api.mistral.ai"),
    _bills("perplexity", "api.perplexity.ai"),
    _bills("sambanova", "api.sambanova.ai"),
    _bills("huggingface", "router.huggingface.co", "api-inference.huggingface.co"),
    _bills("alibaba", "dashscope.aliyuncs.com", "dashscope-*.aliyuncs.com"),
    _bills("nebius", "*.nebius.ai", "*.nebius.com"),
    _bills("minimax", "api.minimax.io", "api.minimax.chat", "api.minimaxi.com"),
    _bills("replicate", "api.replicate.com"),
    _bills("ai21", "api.ai21.com"),
    _bills("featherless", "api.featherless.ai"),
    _relayed("openrouter-stopping", AfterCancel.STOPS, "openai/", "x-ai/", "cohere/command"),
    _relayed(
        "openrouter-billing",
        AfterCancel.BILLS_WHOLE,
        "google/gemini",
        "amazon/nova",
        "perplexity/",
        "ai21/",
        "minimax/",
    ),
    _relayed("openrouter", AfterCancel.UNKNOWN),
    _stops("vllm", source="measured: stops within 50 ms (version 0.32)", dated="2026-11"),
    _stops("llama.cpp", source="measured: stops; some versions did not (#11720)", dated="2026-11"),
    _stops("tgi", source="its maintainers: a closed connection drops it (#495)", dated="2026-11"),
)
"""The first row that fits a call is its provider."""

REMEMBERED = 1024
"""Hosts times models whose provider is remembered. Names come from callers: a bound is needed."""

NAMES: tuple[str, ...] = tuple(provider.name for provider in PROVIDERS)


def host_of(upstream: str) -> str:
    """The host of `host[:port]`, in lower case."""
    host, _, port = upstream.rpartition(":")
    return (host if port.isdigit() else upstream).lower()


def provider_of(request: CallRequest) -> Provider | None:
    """The row that names this call's provider, by its host and, at a relay, its model."""
    return _provider_at(host_of(request.upstream), request.model)


@lru_cache(REMEMBERED)
def _provider_at(host: str, model: str) -> Provider | None:
    for provider in PROVIDERS:
        named = any(fnmatchcase(host, pattern) for pattern in provider.hosts)
        if named and (not provider.models or model.startswith(provider.models)):
            return provider
    return None


def provider_named(name: str) -> Provider | None:
    """The row of this name."""
    return next((provider for provider in PROVIDERS if provider.name == name), None)


def after_cancel(provider: Provider | None, request: CallRequest) -> AfterCancel:
    """What is billed when this call's caller leaves.

    A response in the background goes on without its caller, whoever serves it. The providers' word
    is about streams: of a whole answer that is not waited for only OpenRouter says what it does.
    """
    if request.background:
        return AfterCancel.BILLS_WHOLE
    if provider is None:
        return AfterCancel.UNKNOWN
    if not request.stream and provider.streams_only:
        return AfterCancel.BILLS_WHOLE
    if not request.stream and provider.after_cancel is AfterCancel.STOPS:
        return AfterCancel.UNKNOWN
    return provider.after_cancel
