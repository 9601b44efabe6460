"""`lastchunk departures`, and what `explain` says of a caller who left."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from cli_running import Cli
from made_calls import call_id, cut, made_call, reported, write

from lastchunk.ledger import Ledger
from lastchunk.meter.departure import AfterCancel, Cut, Departure, Done, LeavePolicy, Why
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.settlement.facts import OpenCall
from lastchunk.usage import Basis, OutputCounts, Quantity

REST = Quantity(0, 500, 1_900, Basis.ASSUMED)
DELIVERED = OutputCounts(text_tokens=100)
BEDROCK = "bedrock-runtime.eu-west-1.amazonaws.com"


def left(
    call: OpenCall, seen: Observation, done: Done, why: Why, policy: LeavePolicy, **more: object
) -> Observation:
    """The same observation, of a call whose caller had left after a hundred tokens."""
    departure = Departure(done, why, policy, "a row", call.opened_ms + 900, REST, DELIVERED, **more)  # type: ignore[arg-type]
    return replace(seen, departure=departure)


@pytest.fixture
def departed(ledger: Ledger) -> None:
    """At OpenAI one drained, one cancelled, one cut; at Bedrock two drained; one call ran on."""
    drained = made_call(1)
    seen = reported(drained, 1_000, 400)
    write(ledger, drained, left(drained, seen, Done.DRAINED, Why.COSTS_LESS, LeavePolicy.CHEAPER))
    gone = made_call(2)
    seen = cut(gone, 1_000, 100)
    seen = left(gone, seen, Done.CANCELLED, Why.COSTS_MORE, LeavePolicy.CHEAPER)
    write(ledger, gone, seen, Ending.CALLER_LEFT)
    capped = made_call(3)
    seen = cut(capped, 1_000, 250)
    seen = left(capped, seen, Done.CUT, Why.COSTS_LESS, LeavePolicy.CHEAPER, cut_by=Cut.TOKENS)
    write(ledger, capped, seen, Ending.CALLER_LEFT)
    for number in (4, 5):
        call = replace(
            made_call(number, upstream=BEDROCK, account="batch"),
            after_cancel=AfterCancel.BILLS_WHOLE,
        )
        seen = reported(call, 1_000, 400)
        write(ledger, call, left(call, seen, Done.DRAINED, Why.BILLED_ANYWAY, LeavePolicy.DRAIN))
    write(ledger, made_call(6), reported(made_call(6), 1_000, 400))


@pytest.mark.usefixtures("departed")
def test_what_was_done_cost_and_saved_is_summed_by_upstream_and_policy(cli: Cli) -> None:
    openai, bedrock = cli.json("departures")["departures"]["rows"]
    assert (openai["upstream"], openai["policy"], openai["calls"]) == (
        "api.openai.com",
        "cheaper",
        3,
    )
    counts = [openai[f"{name}_calls"] for name in ("drained", "cancelled", "cut")]
    assert counts == [1, 1, 1]
    # 300 tokens of the drained call and 150 of the cut one, at USD 10 for a million
    assert openai["drain_usd"] == Decimal("0.0045")
    # 500 expected of the cancelled call, and of the cut one the 350 that had not come
    assert openai["saved_usd"] == Decimal("0.0085")
    assert openai["saved_usd_low"] == 0
    assert (bedrock["after_cancel"], bedrock["drained_calls"]) == ("bills the whole", 2)
    assert bedrock["drain_usd"] == 0
    assert bedrock["saved_usd"] == 0


@pytest.mark.usefixtures("departed")
def test_filters_and_formats(cli: Cli) -> None:
    (row,) = cli.csv("departures", "--account", "batch")
    assert (row["upstream"], row["calls"]) == (BEDROCK, "2")
    text = cli.text("departures")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "total" in text
    assert "Nobody has left early" in cli.text("departures", "--account", "nobody")


@pytest.mark.usefixtures("departed")
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, ["it was read to its end", "expected to cost less than the threshold"]),
        (2, ["the upstream was cancelled", "cost the threshold or more", "saved"]),
        (3, ["not to its end: so many tokens are not drained"]),
        (4, ["the rest is billed anyway", "bills the whole"]),
    ],
)
def test_explain_says_it_in_plain_words(cli: Cli, number: int, words: list[str]) -> None:
    text = " ".join(cli.text("explain", call_id(number)).split())
    for said in ("When the caller left", *words):
        assert said in text
    assert "When the caller left" not in cli.text("explain", call_id(6))
