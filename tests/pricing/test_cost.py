"""Tokens times price: exact where reported, an honest interval where not, never an error."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as some

from lastchunk.money import nano_usd
from lastchunk.pricing import Cost, Price, PriceBook, Rates, Step, ceiling, cost_of, costing
from lastchunk.pricing.price import RATE_NAMES
from lastchunk.usage import USAGE_PARTS, Basis, Quantity, Usage

NOVEMBER = datetime(2026, 11, 1, 12, tzinfo=UTC)
NOVEMBER_MS = int(NOVEMBER.timestamp() * 1000)
BOOK = PriceBook.load()

R = Quantity.reported


def counted(low: int, best: int, high: int) -> Quantity:
    return Quantity(low, best, high, Basis.COUNTED)


def flat(*, above: int | None = None, **rates: str) -> Price:
    """A price with these rates; beyond `above` input tokens everything costs the double."""
    exact = {name: Decimal(rate) for name, rate in rates.items()}
    steps = [Step(-1, Rates(**exact))]
    if above is not None:
        steps.append(Step(above, Rates(**{name: rate * 2 for name, rate in exact.items()})))
    return Price("test#1", "test", "test", None, tuple(steps), "own")


# $1 a token makes the numbers readable; the results are then whole dollars.
PLAIN = flat(input_tokens="1e6", output_tokens="2e6")
CACHING = flat(
    input_tokens="10e6",
    output_tokens="20e6",
    input_cached_tokens="1e6",
    input_cache_write_tokens="12e6",
)
REASONING = flat(input_tokens="10e6", output_tokens="20e6", output_reasoning_tokens="5e6")
LONG = flat(input_tokens="1e6", output_tokens="1e6", above=100)


@pytest.mark.parametrize(
    ("price", "usage", "dollars"),
    [
        (PLAIN, Usage(R(10), output_tokens=R(5)), (20, 20, 20)),
        (PLAIN, Usage(R(10), R(4), output_tokens=R(5)), (20, 20, 20)),
        (PLAIN, Usage(R(0), output_tokens=R(0)), (0, 0, 0)),
        (PLAIN, Usage(), (0, 0, 0)),
        (PLAIN, Usage(counted(8, 10, 12), output_tokens=counted(4, 5, 6)), (16, 20, 24)),
        (CACHING, Usage(R(10), R(4), R(0), output_tokens=R(5)), (164, 164, 164)),
        (CACHING, Usage(R(10), R(4), R(2), output_tokens=R(5)), (168, 168, 168)),
        # The cached share is not known: all of it, none of it, or all of it written.
        (CACHING, Usage(R(10), output_tokens=R(5)), (110, 200, 220)),
        (CACHING, Usage(R(10), R(4), output_tokens=R(5)), (164, 164, 176)),
        (CACHING, Usage(R(10), counted(2, 3, 4), R(0), output_tokens=R(0)), (64, 73, 82)),
        (CACHING, Usage(counted(8, 10, 12), output_tokens=R(0)), (8, 100, 144)),
        (REASONING, Usage(R(1), output_tokens=R(10), output_reasoning_tokens=R(4)), (150,) * 3),
        (REASONING, Usage(R(1), output_tokens=R(10)), (60, 210, 210)),
        # Beyond 100 input tokens all tokens cost the double, the output's too.
        (LONG, Usage(R(100), output_tokens=R(10)), (110, 110, 110)),
        (LONG, Usage(R(101), output_tokens=R(10)), (222, 222, 222)),
        (LONG, Usage(counted(90, 95, 110), output_tokens=R(10)), (100, 105, 240)),
    ],
)
def test_what_a_usage_costs(price: Price, usage: Usage, dollars: tuple[int, int, int]) -> None:
    assert cost_of(usage, price) == Cost(*(nano_usd(Decimal(one)) for one in dollars))


def test_a_longer_input_that_is_cheaper_is_inside_the_interval() -> None:
    """A volume discount: the dearest request is not the longest."""
    cheaper = Step(100, Rates(Decimal("0.1e6"), Decimal(0)))
    price = Price(
        "d#1", "d", "d", None, (Step(-1, Rates(Decimal("1e6"), Decimal(0))), cheaper), "own"
    )
    cost = cost_of(Usage(counted(90, 95, 200), output_tokens=R(0)), price)
    assert cost == Cost(*(nano_usd(Decimal(one)) for one in ("10.1", "95", "100")))


def test_a_request_has_a_price_of_its_own() -> None:
    price = flat(input_tokens="1", output_tokens="1", request_usd="0.012")
    usage = Usage(R(1_000_000), output_tokens=R(0))
    assert cost_of(usage, price).best == nano_usd(Decimal("1.012"))
    assert [line.part for line in costing(usage, price).lines][-1] == "request"


@pytest.mark.parametrize(
    ("usage", "reasons"),
    [
        (Usage(R(10), R(4), R(2), output_tokens=R(5)), ()),
        (Usage(R(10), R(40), R(0), output_tokens=R(5)), ("parts_exceed:input_tokens",)),
        (Usage(R(10), R(8), R(8), output_tokens=R(5)), ("parts_exceed:input_tokens",)),
        (Usage(R(10), R(4), output_tokens=R(5)), ("share_unknown:input_cache_write_tokens",)),
        (Usage(counted(9, 10, 11), output_tokens=R(5)), ()),
        (Usage(output_tokens=R(5)), ("no_usage:input_tokens",)),
        (Usage(R(10), R(4), R(0)), ("no_usage:output_tokens",)),
    ],
)
def test_what_is_doubtful_has_a_name(usage: Usage, reasons: tuple[str, ...]) -> None:
    assert costing(usage, CACHING).reasons == reasons


def test_more_cached_than_input_is_cut_to_the_input() -> None:
    usage = Usage(R(10), R(40), R(0), output_tokens=R(0))
    assert cost_of(usage, CACHING) == Cost(*[nano_usd(Decimal(10))] * 3)


def test_the_lines_add_up_to_the_best_guess() -> None:
    result = costing(Usage(R(10), R(4), R(2), output_tokens=R(5)), CACHING)
    assert [(line.part, line.count) for line in result.lines] == [
        ("input_tokens", 4),
        ("input_cached_tokens", 4),
        ("input_cache_write_tokens", 2),
        ("output_tokens", 5),
    ]
    assert nano_usd(sum((line.amount_usd for line in result.lines), Decimal(0))) == result.cost.best


def test_a_cheap_cached_token_still_costs_something() -> None:
    price = flat(input_tokens="0.05", output_tokens="0.4", input_cached_tokens="0.005")
    assert cost_of(Usage(R(1), R(1), output_tokens=R(0)), price).best == 5


def test_a_hold_covers_the_dearest_way_to_use_the_tokens() -> None:
    assert ceiling(CACHING, 10, 5) == nano_usd(Decimal(220))
    assert ceiling(LONG, 101, 10) == nano_usd(Decimal(222))
    assert ceiling(PLAIN, 0, 0) == 0


# --- properties -------------------------------------------------------------------------------

TOKENS = some.integers(0, 2_000_000)


@some.composite
def quantities(draw: some.DrawFn) -> Quantity:
    low, best, high = sorted([draw(TOKENS), draw(TOKENS), draw(TOKENS)])
    return Quantity(low, best, high, Basis.BOUNDED)


QUANTITIES = some.none() | quantities() | TOKENS.map(R)
USAGES = some.builds(Usage, **dict.fromkeys(USAGE_PARTS, QUANTITIES))
RATE = some.decimals(0, 100, places=4)
RATES = some.builds(
    Rates,
    input_tokens=RATE,
    output_tokens=RATE,
    **{name: some.none() | RATE for name in RATE_NAMES[2:-1]},
    request_usd=RATE,
)


@some.composite
def prices(draw: some.DrawFn) -> Price:
    starts = sorted(draw(some.sets(some.integers(0, 2_000_000), max_size=2)))
    steps = tuple(Step(start, draw(RATES)) for start in (-1, *starts))
    return Price("any#1", "any", "any", None, steps, "own")


@given(USAGES, prices())
def test_no_usage_raises_and_the_interval_is_in_order(usage: Usage, price: Price) -> None:
    cost = cost_of(usage, price)
    assert 0 <= cost.low <= cost.best <= cost.high


@given(some.data())
def test_a_consistent_report_has_no_interval(data: some.DataObject) -> None:
    given_input, given_output = data.draw(TOKENS), data.draw(TOKENS)
    usage: dict[str, Quantity] = {"input_tokens": R(given_input), "output_tokens": R(given_output)}
    for name in USAGE_PARTS:
        if name not in usage:
            whole = given_input if name.startswith("input") else given_output
            usage[name] = R(data.draw(some.integers(0, whole // 4)))
    result = costing(Usage(**usage), data.draw(prices()))
    assert result.cost.low == result.cost.best == result.cost.high
    assert result.reasons == ()


@given(some.data())
def test_a_truth_inside_the_usage_costs_something_inside_the_interval(
    data: some.DataObject,
) -> None:
    """Any exact usage that the interval allows has a cost that the interval allows."""
    wide_in, wide_out = data.draw(quantities()), data.draw(quantities())
    price = data.draw(prices())
    true_in = data.draw(some.integers(wide_in.low, wide_in.high))
    true_out = data.draw(some.integers(wide_out.low, wide_out.high))
    cached = data.draw(some.integers(0, true_in))
    written = data.draw(some.integers(0, true_in - cached))
    reasoning = data.draw(some.integers(0, true_out))
    truth = cost_of(
        Usage(
            input_tokens=R(true_in),
            input_cached_tokens=R(cached),
            input_cache_write_tokens=R(written),
            output_tokens=R(true_out),
            output_reasoning_tokens=R(reasoning),
        ),
        price,
    )
    guess = cost_of(Usage(input_tokens=wide_in, output_tokens=wide_out), price)
    assert guess.low <= truth.best <= guess.high


MODELS = ("gpt-4o", "gpt-5", "gpt-5.4", "gpt-5.6-sol", "o3", "gpt-4.1-nano")


@given(some.sampled_from(MODELS), TOKENS, TOKENS, TOKENS, TOKENS)
def test_more_tokens_never_cost_less(
    model: str, fewer_in: int, more_in: int, fewer_out: int, more_out: int
) -> None:
    price = BOOK.price(model, upstream="api.openai.com", at_ms=NOVEMBER_MS, tier=None)
    assert price is not None
    fewer = Usage(R(min(fewer_in, more_in)), output_tokens=R(min(fewer_out, more_out)))
    more = Usage(R(max(fewer_in, more_in)), output_tokens=R(max(fewer_out, more_out)))
    less, dearer = cost_of(fewer, price), cost_of(more, price)
    assert less.low <= dearer.low
    assert less.best <= dearer.best
    assert less.high <= dearer.high
    assert (
        ceiling(price, fewer_in, fewer_out)
        >= cost_of(Usage(R(fewer_in), R(0), output_tokens=R(fewer_out)), price).best
    )


@given(some.sampled_from(MODELS), TOKENS, TOKENS)
def test_the_ceiling_is_the_dearest_that_a_usage_of_unknown_parts_can_be(
    model: str, tokens_in: int, tokens_out: int
) -> None:
    price = BOOK.price(model, upstream="api.openai.com", at_ms=NOVEMBER_MS, tier=None)
    assert price is not None
    usage = Usage(R(tokens_in), output_tokens=R(tokens_out))
    assert ceiling(price, tokens_in, tokens_out) == cost_of(usage, price).high


# --- the same as genai-prices ------------------------------------------------------------------

LENGTHS = ((1_200, 700), (150_000, 3_000), (300_000, 900))
HOSTS = {
    "openai": "api.openai.com",
    "openrouter": "openrouter.ai",
    "groq": "api.groq.com",
    "deepseek": "api.deepseek.com",
    "mistral": "api.mistral.ai",
    "x-ai": "api.x.ai",
    "perplexity": "api.perplexity.ai",
    "azure": "team.openai.azure.com",
}


@pytest.mark.parametrize("provider_id", HOSTS)
@pytest.mark.parametrize("tier", [None, "flex", "priority"])
def test_every_model_costs_what_genai_prices_says(provider_id: str, tier: str | None) -> None:
    provider = next(one for one in providers if one.id == provider_id)
    compared = 0
    for model in provider.models:
        price = BOOK.price(model.id, upstream=HOSTS[provider_id], at_ms=NOVEMBER_MS, tier=tier)
        if price is None or price.model != model.id:
            continue
        for input_tokens, output_tokens in LENGTHS:
            counts = {
                "input_tokens": input_tokens,
                "cache_read_tokens": input_tokens // 3,
                "cache_write_tokens": input_tokens // 7,
                "output_tokens": output_tokens,
                "output_reasoning_tokens": output_tokens // 2,
            }
            assert cost_of(_reported(counts), price).best == _theirs(
                model.id, provider_id, counts, tier
            )
            compared += 1
    assert compared >= 6


def _reported(counts: dict[str, int]) -> Usage:
    zero = R(0)
    return Usage(
        input_tokens=R(counts["input_tokens"]),
        input_cached_tokens=R(counts["cache_read_tokens"]),
        input_cache_write_tokens=R(counts["cache_write_tokens"]),
        input_audio_tokens=zero,
        input_image_tokens=zero,
        output_tokens=R(counts["output_tokens"]),
        output_reasoning_tokens=R(counts["output_reasoning_tokens"]),
        output_audio_tokens=zero,
        output_image_tokens=zero,
    )


def _theirs(model: str, provider: str, counts: dict[str, int], tier: str | None) -> int:
    parameters: dict[str, Any] = {"provider_id": provider, "genai_request_timestamp": NOVEMBER}
    if tier is not None:
        parameters["price_context"] = {"service_tier": tier}
    usage = genai_prices.Usage(**counts)
    return nano_usd(genai_prices.calc_price(usage, model, **parameters).total_price)
