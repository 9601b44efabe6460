"""Which price a call gets, and that its identity stands for its numbers."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import __version__

from lastchunk.pricing import Price, PriceBook

NOVEMBER = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook.load()


def priced(
    book: PriceBook, model: str, upstream: str, tier: str | None = None, at_ms: int = NOVEMBER
) -> Price:
    price = book.price(model, upstream=upstream, at_ms=at_ms, tier=tier)
    assert price is not None
    return price


@pytest.mark.parametrize(
    ("model", "upstream", "provider", "name"),
    [
        ("gpt-4o", "api.openai.com", "openai", "gpt-4o"),
        ("gpt-4o", "api.openai.com:443", "openai", "gpt-4o"),
        ("gpt-4o-2024-08-06", "API.OPENAI.COM", "openai", "gpt-4o"),
        ("gpt-4o", "my-team.openai.azure.com", "azure", "gpt-4o"),
        ("openai/gpt-4o", "openrouter.ai", "openrouter", "openai/gpt-4o"),
        ("llama-3.3-70b-versatile", "api.groq.com", "groq", "llama-3.3-70b-versatile"),
        ("deepseek-chat", "api.deepseek.com", "deepseek", "deepseek-chat"),
    ],
)
def test_the_host_names_the_provider(
    book: PriceBook, model: str, upstream: str, provider: str, name: str
) -> None:
    price = priced(book, model, upstream)
    assert (price.provider, price.model, price.matched_by) == (provider, name, "upstream")


@pytest.mark.parametrize(
    "upstream", ["localhost:8000", "127.0.0.1", "[::1]:8000", "llm.internal", "eu.api.openai.com"]
)
@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o"])
def test_a_host_that_says_nothing_leaves_it_to_the_models_name(
    book: PriceBook, model: str, upstream: str
) -> None:
    price = priced(book, model, upstream)
    assert (price.provider, price.model, price.matched_by) == ("openai", "gpt-4o", "model")
    assert price.steps == priced(book, "gpt-4o", "api.openai.com").steps


@pytest.mark.parametrize(
    ("model", "upstream"),
    [
        ("gpt-99-imaginary", "api.openai.com"),
        ("unknown", "localhost"),
        ("Qwen/Qwen2.5-7B-Instruct", "localhost:8000"),
        ("gpt-4o", "api.groq.com"),  # Groq does not sell it: OpenAI's price would be a guess
        ("gpt-4o", "api.githubcopilot.com"),  # listed there without any number
        ("whisper-1", "api.openai.com"),  # priced by the hour: nothing of it per token
        ("text-embedding-3-small", "api.openai.com"),  # no price for output
        ("", ""),
        ("/", ":"),
        ("a/" * 500, "x" * 500),
    ],
)
def test_a_model_without_a_price_is_unpriced(book: PriceBook, model: str, upstream: str) -> None:
    assert book.price(model, upstream=upstream, at_ms=NOVEMBER, tier=None) is None


def test_a_free_model_costs_zero_and_is_not_unpriced(book: PriceBook) -> None:
    rates = priced(book, "openai/gpt-oss-20b:free", "openrouter.ai").rates_for(10)
    assert (rates.input_tokens, rates.output_tokens) == (Decimal(0), Decimal(0))


@pytest.mark.parametrize("tier", [None, "auto", "default", "standard", "Default"])
def test_the_standard_tier_has_many_names_and_one_price(book: PriceBook, tier: str | None) -> None:
    price = priced(book, "gpt-5", "api.openai.com", tier)
    assert price == priced(book, "gpt-5", "api.openai.com")
    assert price.tier is None


def test_tiers_have_their_own_price_and_identity(book: PriceBook) -> None:
    prices = {
        tier: priced(book, "gpt-5", "api.openai.com", tier) for tier in (None, "flex", "fast")
    }
    rates = {tier: price.rates_for(1).output_tokens for tier, price in prices.items()}
    assert rates == {None: Decimal(10), "flex": Decimal(5), "fast": Decimal(20)}
    assert len({price.price_id for price in prices.values()}) == 3
    assert prices["fast"] == priced(book, "gpt-5", "api.openai.com", "priority")


@pytest.mark.parametrize(
    ("model", "upstream", "tier"),
    [
        ("gpt-4o", "api.openai.com", "flex"),  # OpenAI sells no flex for it
        ("gpt-4o", "api.openai.com", "scale"),
        ("gpt-4o", "my-team.openai.azure.com", "priority"),  # OpenAI's offer is not Azure's
    ],
)
def test_a_tier_without_a_price_costs_the_standard_and_is_flagged(
    book: PriceBook, model: str, upstream: str, tier: str
) -> None:
    price = priced(book, model, upstream, tier)
    standard = priced(book, model, upstream)
    assert price.reasons == (f"tier_unpriced:{tier}",)
    assert (price.price_id, price.steps) == (standard.price_id, standard.steps)


def test_a_tier_that_was_not_yet_sold_is_flagged(book: PriceBook) -> None:
    earlier = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp() * 1000)
    assert priced(book, "gpt-5", "api.openai.com", "flex", earlier).reasons == (
        "tier_unpriced:flex",
    )


def test_prices_are_those_of_the_day(book: PriceBook) -> None:
    """o3 became 80 % cheaper on 2025-06-10."""
    before = int(datetime(2025, 6, 1, tzinfo=UTC).timestamp() * 1000)
    old, new = (
        priced(book, "o3", "api.openai.com", at_ms=before),
        priced(book, "o3", "api.openai.com"),
    )
    assert old.rates_for(1).input_tokens == 10
    assert new.rates_for(1).input_tokens == 2
    assert old.price_id != new.price_id


def test_the_length_of_the_input_chooses_the_rates_of_all_tokens(book: PriceBook) -> None:
    price = priced(book, "gpt-5.4", "api.openai.com")
    limit = price.steps[1].above_input_tokens
    assert price.rates_for(limit) == price.steps[0].rates
    assert price.rates_for(limit + 1) == price.steps[1].rates
    assert price.rates_for(limit + 1).input_tokens > price.rates_for(limit).input_tokens


def test_the_identity_names_source_version_provider_model_and_tier(book: PriceBook) -> None:
    head, _, digest = priced(book, "gpt-4o", "api.openai.com", "priority").price_id.partition("#")
    assert head == f"genai-prices/{__version__}:openai/gpt-4o@priority"
    assert len(digest) == 8


def test_the_identity_is_the_same_whenever_the_book_is_loaded(book: PriceBook) -> None:
    again = priced(PriceBook.load(), "gpt-4o", "localhost")
    assert again.price_id == priced(book, "gpt-4o", "localhost").price_id


def test_lookups_of_invented_names_do_not_grow_without_end() -> None:
    fresh = PriceBook.load()
    for number in range(5000):
        fresh.price(f"invented-{number}", upstream="localhost", at_ms=NOVEMBER, tier=None)
    assert len(fresh._found) <= 4096
