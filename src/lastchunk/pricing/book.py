"""Which price a call has: the operator's own file first, then the genai-prices snapshot.

How a provider is found, in this order:

1. An own price whose model (exact or glob) and upstream (if it names one) fit. It wins always.
2. genai-prices by the upstream's host: `api.openai.com`, `*.openai.azure.com`, `openrouter.ai`, …
   If that provider does not sell the model, the call is unpriced: another's price would be a guess.
3. For every other host (a loopback address, a self-hosted server, a proxy, a regional host) by the
   model's name: `gpt-4o` is OpenAI's, `openai/gpt-4o` too. `Price.matched_by` is then `model`.
   Whoever serves a model himself under such a name writes an own price, if only of 0.

A service tier for which no price is known gets the standard price and the reason
`tier_unpriced:TIER`. None would drop the whole call out of every budget, for tiers that cost
between half and three times the standard.
The snapshot is the one inside the installed genai-prices: nothing is ever downloaded.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import genai_prices
from genai_prices.data_snapshot import find_provider_by_id
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

from lastchunk.pricing.own import OwnPrice, own_price, read_own
from lastchunk.pricing.price import RATE_NAMES, Price, Rates, Step, identity, tier_named

_SOURCE = f"genai-prices/{genai_prices.__version__}"

_KEPT_LOOKUPS = 4096
"""Models times hosts whose provider is remembered. Names come from callers: a bound is needed."""

_KEYS: dict[str, str] = {
    "input_tokens": "input_mtok",
    "output_tokens": "output_mtok",
    "input_cached_tokens": "cache_read_mtok",
    "input_cache_write_tokens": "cache_write_mtok",
    "input_audio_tokens": "input_audio_mtok",
    "input_image_tokens": "input_image_mtok",
    "output_reasoning_tokens": "output_reasoning_mtok",
    "output_audio_tokens": "output_audio_mtok",
    "output_image_tokens": "output_image_mtok",
    "request_usd": "requests_kcount",
}
"""Our names for genai-prices' own. Not used: prices of an hour of audio, a search, a page, a cache
write kept for an hour: no usage of a metered call tells how many there were."""

_Found = tuple[Provider, ModelInfo, str]


class PriceBook:
    """All prices that this process knows. Read-only once loaded; safe to share between threads."""

    def __init__(self, providers: list[Provider], own: tuple[OwnPrice, ...] = ()) -> None:
        self._providers = providers
        self._own = own
        self._found: dict[tuple[str, str], _Found | None] = {}
        self._latest: dict[tuple[str, str, str | None], tuple[int, Price | None]] = {}

    @classmethod
    def load(cls, own: Path | None = None) -> PriceBook:
        """The installed snapshot and, where given, the operator's TOML file.

        Raises SettingsError for a file that cannot be used, naming the file, the key and what to
        write.
        """
        # Not get_snapshot(): a host application may have put a downloaded snapshot there, and the
        # version in our price ids would then be untrue. Not at import: it is 1.6 MB of Python.
        from genai_prices.data import providers  # noqa: PLC0415

        return cls(providers, read_own(own) if own is not None else ())

    def price(self, model: str, *, upstream: str, at_ms: int, tier: str | None) -> Price | None:
        """The price of `model` at `upstream` (host[:port]) at a moment in Unix milliseconds.

        `tier` is the service tier that served (or was asked for, where none was echoed). None: no
        price is known for this model, which is not the same as free.
        """
        named = tier_named(tier)
        written = own_price(self._own, model, upstream=upstream, at_ms=at_ms, tier=named)
        if written is not None:
            return written
        second, key = at_ms // 1000, (model, upstream, named)
        latest = self._latest.get(key)
        if latest is None or latest[0] != second:  # no price changes within a second
            found = self._find(model, upstream)
            priced = None if found is None else _snapshot_price(found, at_ms, named)
            if len(self._latest) >= _KEPT_LOOKUPS:
                self._latest.clear()
            self._latest[key] = latest = (second, priced)
        return latest[1]

    def _find(self, model: str, upstream: str) -> _Found | None:
        key = (model, upstream)
        if key not in self._found:
            if len(self._found) >= _KEPT_LOOKUPS:
                self._found.clear()
            self._found[key] = self._look_up(model, upstream)
        return self._found[key]

    def _look_up(self, model: str, upstream: str) -> _Found | None:
        # Not genai_prices' own lookup: it remembers every name it was ever asked for.
        if (provider := self._provider_at(upstream)) is not None:
            sold = provider.find_model(model, all_providers=self._providers)
            return (provider, sold, "upstream") if sold is not None else None
        maker, _, rest = model.partition("/")
        prefixed = find_provider_by_id(self._providers, maker) if rest else None
        for candidate, name in ((self._provider_of(model), model), (prefixed, rest)):
            if candidate is None:
                continue
            sold = candidate.find_model(name, all_providers=self._providers)
            if sold is not None:
                return candidate, sold, "model"
        return None

    def _provider_at(self, upstream: str) -> Provider | None:
        host = _host(upstream)
        if not host or _is_address(host):
            return None
        url = f"https://{host}/"
        return next((one for one in self._providers if re.match(one.api_pattern, url)), None)

    def _provider_of(self, model: str) -> Provider | None:
        name = model.lower()
        for one in self._providers:
            if one.model_match is not None and one.model_match.is_match(name):
                return one
        return None


def _host(upstream: str) -> str:
    """The host without its port: prices do not depend on it, but the patterns would."""
    host, _, port = upstream.rpartition(":")
    return (host if port.isdigit() else upstream).lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _snapshot_price(found: _Found, at_ms: int, tier: str | None) -> Price | None:
    provider, model, matched_by = found
    when = datetime.fromtimestamp(at_ms / 1000, UTC)
    served = tier if tier is not None and _sells(provider, model, tier, when) else None
    context = {"service_tier": served} if served is not None else None
    steps = _steps(model.get_prices(when, context), free=model.id.endswith(":free"))
    if steps is None:
        return None
    return Price(
        price_id=identity(f"{_SOURCE}:{provider.id}/{model.id}", served, steps),
        provider=provider.id,
        model=model.id,
        tier=served,
        steps=steps,
        matched_by=matched_by,
        reasons=(f"tier_unpriced:{tier}",) if tier is not None and served is None else (),
    )


def _sells(provider: Provider, model: ModelInfo, tier: str, when: datetime) -> bool:
    """Whether this provider has a price for this tier at that moment.

    A model found at another provider (Azure's are OpenAI's) keeps only the standard price: a tier
    is an offer of the one who serves. genai-prices does the same.
    """
    if not any(offered is model for offered in provider.models):
        return False
    return any(
        variant.when == {"service_tier": tier}
        and (variant.constraint is None or variant.constraint.active(when))
        for variant in model.price_variants or ()
    )


def _steps(prices: ModelPrice, *, free: bool) -> tuple[Step, ...] | None:
    """The prices by length of input, or None where input or output has none.

    An empty list of prices means that nothing is known, except for OpenRouter's `:free` models.
    """
    values = {name: getattr(prices, key) for name, key in _KEYS.items()}
    if free:
        values["input_tokens"] = values["input_tokens"] or Decimal(0)
        values["output_tokens"] = values["output_tokens"] or Decimal(0)
    if values["input_tokens"] is None or values["output_tokens"] is None:
        return None
    tiered = [value for value in values.values() if isinstance(value, TieredPrices)]
    starts = sorted({tier.start for value in tiered for tier in value.tiers})
    return tuple(Step(start, _rates(values, start)) for start in (-1, *starts))


def _rates(values: dict[str, Decimal | TieredPrices | None], start: int) -> Rates:
    """The rates of a request longer than `start`: a length beyond a step changes all its tokens."""
    chosen: dict[str, Decimal] = {}
    for name in RATE_NAMES:
        value = values[name]
        if isinstance(value, TieredPrices):
            reached = [tier.price for tier in value.tiers if tier.start <= start]
            value = reached[-1] if reached else value.base
        if value is not None:
            chosen[name] = value
    if "request_usd" in chosen:
        chosen["request_usd"] /= 1000  # genai-prices counts them by the thousand
    return Rates(**chosen)
