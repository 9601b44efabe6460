"""`lastchunk explain`: where every number of one call is from."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from cli_running import Cli
from genai_prices import __version__
from made_calls import call_id, held, made_call, reported, write

from lastchunk.ledger import Ledger
from lastchunk.ledger.entries import Correction
from lastchunk.pricing import Cost
from lastchunk.settlement.facts import Charge
from lastchunk.usage import Quantity, Usage

BILLED = Correction(
    call_id=call_id(30),
    correction_id="statement:2026-11",
    reason="reconciled",
    usage=Usage(
        Quantity.reported(1_200), Quantity.reported(0), output_tokens=Quantity.reported(50)
    ),
    cost=Cost(3_500_000, 3_500_000, 3_500_000),
    charge=Charge(3_500_000, "statement"),
    price_id=None,
    occurred_ms=1_794_100_000_000,
)


def explained(cli: Cli, number: int, *arguments: str) -> str:
    """The text, with each run of blanks as one."""
    return " ".join(cli.text("explain", call_id(number), *arguments).split())


@pytest.mark.usefixtures("a_day")
@pytest.mark.parametrize("any_id", [call_id(36), "chatcmpl-000036"])
def test_a_call_is_found_by_its_own_and_the_providers_id(cli: Cli, any_id: str) -> None:
    assert cli.text("explain", any_id).splitlines()[0].split() == ["call", call_id(36)]


@pytest.mark.usefixtures("a_day")
def test_a_beginning_that_fits_several_calls_names_them(cli: Cli) -> None:
    result = cli("explain", "call_0")
    assert result.exit_code == 2
    assert "fits several calls" in result.stderr
    assert call_id(0) in result.stderr


@pytest.mark.usefixtures("a_day")
def test_a_cut_call_says_how_it_ended_and_what_each_number_rests_on(cli: Cli) -> None:
    written = explained(cli, 36)
    assert "upstream_cut" in written
    assert "the stream stopped without its end; status 200" in written
    assert "input ~2,000 our tokenizer counted it" in written
    assert "seen but not countable: an interval 150–" in written
    assert "hidden_reasoning this model reasons silently" in written
    assert "first token" in written


@pytest.mark.usefixtures("a_day")
def test_the_cost_adds_up_line_by_line(cli: Cli) -> None:
    written = explained(cli, 43)
    assert "input 10,000 0.625 $0.006250" in written
    assert "input, cached 20,000 0.0625 $0.001250" in written
    assert "output 4,000 5 $0.020000" in written
    assert "sum $0.027500" in written
    assert f"Price: genai-prices/{__version__}:openai/gpt-5@flex#" in written
    document = json.loads(cli.text("explain", call_id(43), "--json"), parse_float=Decimal)
    lines = document["cost"]["rows"]
    assert sum(line["amount_usd"] for line in lines) == document["cost"]["totals"]["amount_usd"]


@pytest.mark.usefixtures("a_day")
def test_every_call_can_be_explained(cli: Cli) -> None:
    for row in cli.csv("calls"):
        written = cli.text("explain", row["call_id"])
        assert max(map(len, written.splitlines())) <= 80


@pytest.mark.usefixtures("a_day")
@pytest.mark.parametrize("number", [44, 45, 46])
def test_the_attempts_of_a_call_are_shown_together_from_each_of_them(cli: Cli, number: int) -> None:
    document = json.loads(cli.text("explain", call_id(number), "--json"), parse_float=Decimal)
    assert [row["call_id"] for row in document["attempts"]["rows"]] == [
        call_id(44),
        call_id(45),
        call_id(46),
    ]
    costs = [row["cost_usd"] for row in document["attempts"]["rows"]]
    assert document["attempts"]["totals"]["cost_usd"] == sum(costs) > costs[2]
    names = [row["attempt"].strip() for row in document["attempts"]["rows"]]
    assert names[number - 44].endswith("(this)")


@pytest.mark.usefixtures("a_day")
def test_a_call_without_retries_shows_none(cli: Cli) -> None:
    assert "Attempts" not in explained(cli, 30)


def test_a_retry_whose_first_attempt_is_unknown_says_so(cli: Cli, ledger: Ledger) -> None:
    call = made_call(1, attempt_of="call_gone")
    write(ledger, call, reported(call, 10, 10))
    assert "The first attempt, call_gone, is not here." in explained(cli, 1)


@pytest.mark.usefixtures("a_day")
def test_an_open_call_says_that_nothing_is_known_yet(cli: Cli) -> None:
    written = explained(cli, 47)
    assert "it is under way; nothing was written down of it yet" in written
    assert f"held {held(47)}: at most " in written


def test_an_open_call_shows_what_was_last_seen(cli: Cli, ledger: Ledger) -> None:
    call = made_call(1)
    write(ledger, call, None)
    ledger.checkpoint([(call.call_id, reported(call, 100, 20))]).result(10)
    assert "it is under way; last written down: 4,200 bytes, terminated" in explained(cli, 1)


@pytest.mark.usefixtures("a_day")
def test_an_unpriced_call_says_what_to_do(cli: Cli) -> None:
    written = explained(cli, 41)
    assert "no price is known for my-own-llama at 10.0.0.7:8000" in written
    assert "LASTCHUNK_PRICES" in written


@pytest.mark.usefixtures("a_day")
def test_a_refused_call_says_that_nothing_was_used(cli: Cli) -> None:
    assert "None: there is proof that nothing was used." in explained(cli, 39)


@pytest.mark.usefixtures("a_day")
def test_a_price_that_has_changed_since_leaves_the_recorded_cost(cli: Cli) -> None:
    """History does not change with the price list; only the lines cannot be shown any more."""
    Path("prices.toml").write_text(
        '[models."gpt-4o"]\ninput_usd_per_mtok = 99\noutput_usd_per_mtok = 99\n'
    )
    written = explained(cli, 46, "--prices", "prices.toml")
    assert "as recorded - - $0.005150" in written
    assert "The price list here has own:prices.toml:gpt-4o#" in written
    assert f"genai-prices/{__version__}:openai/gpt-4o#" in written


@pytest.mark.usefixtures("a_day")
def test_a_correction_is_on_the_timeline_and_in_the_numbers(cli: Cli, ledger: Ledger) -> None:
    ledger.correct(BILLED).result(10)
    written = explained(cli, 30)
    assert "corrected reconciled (statement:2026-11)" in written
    assert "output 50 the provider's final usage" in written
    assert "Why they were not exact at first" in written
    assert "sum $0.003500" in written
    assert "charged as statement" in written


@pytest.mark.usefixtures("a_day")
def test_a_price_of_the_same_numbers_from_elsewhere_is_not_the_recorded_one(cli: Cli) -> None:
    Path("prices.toml").write_text(
        '[models."gpt-4o"]\ninput_usd_per_mtok = 2.5\ninput_cached_usd_per_mtok = 1.25\n'
        "output_usd_per_mtok = 10\n"
    )
    assert "The price list here has own:" in explained(cli, 46, "--prices", "prices.toml")


@pytest.mark.usefixtures("a_day")
def test_a_receipt_that_brings_the_usage_shows_its_lines(cli: Cli, ledger: Ledger) -> None:
    """1,200 in at 2.50 and 50 out at 10 USD a million: the lines are of the corrected usage."""
    ledger.correct(BILLED).result(10)
    written = explained(cli, 30)
    assert "input 1,200 2.5 $0.003000" in written
    assert "output 50 10 $0.000500" in written


@pytest.mark.usefixtures("a_day")
def test_a_bill_that_is_not_tokens_times_price_says_so(cli: Cli, ledger: Ledger) -> None:
    ledger.correct(replace(BILLED, cost=Cost(4_000_000, 4_000_000, 4_000_000))).result(10)
    written = explained(cli, 30)
    assert "as recorded - - $0.004000" in written
    assert "The recorded cost is not tokens times this price: it was corrected since." in written


@pytest.mark.usefixtures("a_day")
def test_an_unknown_id_says_what_would_be_one(cli: Cli) -> None:
    result = cli("explain", "nonsense")
    assert result.exit_code == 2
    assert "no call in" in result.stderr
    assert "the provider's response id" in result.stderr


@pytest.mark.usefixtures("a_day")
def test_a_wrong_price_file_is_told_by_name(cli: Cli) -> None:
    Path("prices.toml").write_text("[models]\n")
    result = cli("explain", call_id(1), "--prices", "prices.toml")
    assert result.exit_code == 2
    assert "prices.toml: models is missing" in result.stderr
