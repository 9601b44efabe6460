"""The operator's own prices: what the file may say, who wins, and what a mistake is told."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from lastchunk.errors import SettingsError
from lastchunk.pricing import Price, PriceBook

JUNE = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1000)
AUGUST = int(datetime(2026, 8, 1, tzinfo=UTC).timestamp() * 1000)


def load(folder: Path, text: str) -> PriceBook:
    path = folder / "prices.toml"
    path.write_text(text, "utf-8")
    return PriceBook.load(path)


def price_at(
    book: PriceBook,
    model: str,
    upstream: str = "llm.internal:8000",
    at_ms: int = AUGUST,
    tier: str | None = None,
) -> Price:
    price = book.price(model, upstream=upstream, at_ms=at_ms, tier=tier)
    assert price is not None
    return price


def input_rate(book: PriceBook, model: str, upstream: str = "llm.internal:8000") -> Decimal:
    return price_at(book, model, upstream).rates_for(1).input_tokens


LLAMA = """
[models."my-llama"]
input_usd_per_mtok = 0.10
input_cached_usd_per_mtok = 0.01
input_cache_write_usd_per_mtok = 0.125
output_usd_per_mtok = 0.40
request_usd = 0.001

[[models."my-llama".long_context]]
above_input_tokens = 200_000
input_usd_per_mtok = 0.2

[models."my-llama".tiers.flex]
output_usd_per_mtok = 0.2
"""


def test_every_key_of_the_format_is_read_exactly(tmp_path: Path) -> None:
    price = price_at(load(tmp_path, LLAMA), "my-llama")
    rates = price.rates_for(200_000)
    assert (rates.input_tokens, rates.output_tokens) == (Decimal("0.10"), Decimal("0.40"))
    assert rates.input_cached_tokens == Decimal("0.01")
    assert rates.input_cache_write_tokens == Decimal("0.125")
    assert rates.input_audio_tokens is None
    assert rates.request_usd == Decimal("0.001")
    assert price.matched_by == "own"
    assert price.price_id.startswith("own:prices.toml:my-llama#")


def test_a_long_context_keeps_what_it_does_not_repeat(tmp_path: Path) -> None:
    rates = price_at(load(tmp_path, LLAMA), "my-llama").rates_for(200_001)
    assert (rates.input_tokens, rates.output_tokens) == (Decimal("0.2"), Decimal("0.40"))


def test_a_tier_keeps_what_it_does_not_repeat_at_every_length(tmp_path: Path) -> None:
    price = price_at(load(tmp_path, LLAMA), "my-llama", tier="flex")
    assert price.tier == "flex"
    short, long = price.rates_for(1), price.rates_for(200_001)
    assert (short.input_tokens, short.output_tokens) == (Decimal("0.1"), Decimal("0.2"))
    assert (long.input_tokens, long.output_tokens) == (Decimal("0.2"), Decimal("0.2"))


def test_a_tier_that_the_file_does_not_price_is_flagged(tmp_path: Path) -> None:
    price = price_at(load(tmp_path, LLAMA), "my-llama", tier="priority")
    assert (price.tier, price.reasons) == (None, ("tier_unpriced:priority",))


def test_own_prices_win_over_the_snapshot(tmp_path: Path) -> None:
    book = load(tmp_path, '[models."gpt-4o"]\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 2\n')
    assert price_at(book, "gpt-4o", "api.openai.com").matched_by == "own"
    assert price_at(book, "gpt-4o-mini", "api.openai.com").matched_by == "upstream"


def test_an_explicit_zero_is_free(tmp_path: Path) -> None:
    book = load(tmp_path, '[models."mine"]\ninput_usd_per_mtok = 0\noutput_usd_per_mtok = 0.0\n')
    assert input_rate(book, "mine") == 0


def test_the_last_start_that_was_reached_applies(tmp_path: Path) -> None:
    book = load(
        tmp_path,
        """
[[models."mine"]]
from = 2026-07-01
input_usd_per_mtok = 1
output_usd_per_mtok = 1
[[models."mine"]]
input_usd_per_mtok = 3
output_usd_per_mtok = 3
""",
    )
    july = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp() * 1000)
    prices = [price_at(book, "mine", at_ms=at) for at in (JUNE, july - 1, july, AUGUST)]
    assert [price.rates_for(1).input_tokens for price in prices] == [3, 3, 1, 1]
    assert prices[1].price_id != prices[2].price_id


def test_before_its_first_start_an_own_price_says_nothing(tmp_path: Path) -> None:
    book = load(
        tmp_path,
        '[models."gpt-4o"]\nfrom = 2026-07-01\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 1\n',
    )
    assert price_at(book, "gpt-4o", at_ms=JUNE).provider == "openai"
    assert price_at(book, "gpt-4o", at_ms=AUGUST).matched_by == "own"


def test_an_exact_name_wins_over_a_glob_and_a_host_over_any_host(tmp_path: Path) -> None:
    book = load(
        tmp_path,
        """
[[models."llama-3*"]]
input_usd_per_mtok = 1
output_usd_per_mtok = 1
[[models."llama-3*"]]
upstream = "*.internal"
input_usd_per_mtok = 2
output_usd_per_mtok = 1
[models."llama-3-70b"]
input_usd_per_mtok = 3
output_usd_per_mtok = 1
""",
    )
    assert input_rate(book, "llama-3-8b", "elsewhere") == 1
    assert input_rate(book, "llama-3-8b", "llm.internal") == 2
    assert input_rate(book, "llama-3-8b", "LLM.internal:8000") == 2
    assert input_rate(book, "llama-3-70b", "llm.internal") == 3


BOTH = "input_usd_per_mtok = 1\noutput_usd_per_mtok = 1\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "models is missing"),
        ("models = 3", "models is missing"),
        ("[prices]", "prices is not known here: write one of models"),
        ('[models."m"]\noutput_usd_per_mtok = 1', 'models."m".input_usd_per_mtok is missing'),
        ('[models."m"]\ninput_usd_per_mtok = 1', 'models."m".output_usd_per_mtok is missing'),
        ('[models."m"]\ninput_usd_per_mtok = "1"\noutput_usd_per_mtok = 1', "write a number"),
        ('[models."m"]\ninput_usd_per_mtok = -1\noutput_usd_per_mtok = 1', "from 0 up"),
        ('[models."m"]\ninput_usd_per_mtok = nan\noutput_usd_per_mtok = 1', "write a number"),
        ('[models."m"]\ninput_usd_per_mtok = true\noutput_usd_per_mtok = 1', "write a number"),
        (f'[models."m"]\n{BOTH}price = 3', 'models."m".price is not known here'),
        (f'[models."m"]\n{BOTH}from = "2026-01-01"', "write one without quotes"),
        (f'[models."m"]\n{BOTH}upstream = 5', "is no host"),
        (f'[models."m"]\n{BOTH}tiers = 5', "is no table"),
        (f'[models."m"]\n{BOTH}[models."m".tiers.default]', "is the standard tier"),
        (f'[models."m"]\n{BOTH}[models."m".tiers]\nflex = 1', "is no table"),
        (
            f'[models."m"]\n{BOTH}[models."m".tiers.fast]\n[models."m".tiers.priority]',
            "repeats the tier priority",
        ),
        (f'[models."m"]\n{BOTH}[[models."m".long_context]]', "above_input_tokens must be"),
        (f'[[models."m"]]\n{BOTH}[[models."m"]]\ninput_usd_per_mtok = 1', 'models."m"[2].output'),
        ('models.m = "free"', "is no table"),
        ("[models", "not valid TOML"),
    ],
)
def test_a_mistake_is_told_with_the_file_the_key_and_what_to_write(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    assert told in str(caught.value)
    assert str(tmp_path / "prices.toml") in str(caught.value)


def test_a_file_that_is_not_there_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml cannot be read"):
        PriceBook.load(tmp_path / "missing.toml")


def test_a_changed_number_changes_the_identity(tmp_path: Path) -> None:
    ids = set()
    for changed in (LLAMA, LLAMA.replace("0.01", "0.02"), LLAMA.replace("200_000", "100_000")):
        ids.add(price_at(load(tmp_path, changed), "my-llama").price_id)
    assert len(ids) == 3
    same = price_at(load(tmp_path, LLAMA.replace("0.10", "0.1")), "my-llama")
    assert same.price_id in ids
