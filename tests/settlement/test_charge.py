"""What a customer is charged: who bears what, as tables, and what holds for every call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_settle import BOOK, OPENED_MS, REQUESTS, SEEN, open_call

from lastchunk.meter.departure import Departure, Done, LeavePolicy, Why
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.pricing.cost import cost_of
from lastchunk.settlement.charge import (
    CAUSES,
    Cause,
    Charged,
    ChargeRule,
    cause_of,
    charge,
    rule_for,
)
from lastchunk.settlement.facts import Settlement
from lastchunk.settlement.settle import settle
from lastchunk.usage import Basis, OutputCounts, Quantity, TokenCounts, Usage
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest

PRICE = BOOK.price("gpt-4o", upstream="api.openai.com", at_ms=OPENED_MS, tier=None)
"""USD 2.5 and 10 a million tokens: 2,500 and 10,000 nano-dollars a token."""

REQUEST = CallRequest(
    dialect=Dialect.CHAT,
    model="gpt-4o",
    stream=True,
    usage_requested=False,
    upstream="api.openai.com",
    body_bytes=4_000,
    output_ceiling=500,
)
COMPLETED = Observation(
    phase=Phase.TERMINATED,
    status=200,
    model_served="gpt-4o",
    reported=TokenCounts(input_tokens=1_000, input_cached_tokens=0, output_tokens=400),
    reported_is_final=True,
    observed_ms=OPENED_MS,
)
CUT = replace(
    COMPLETED,
    phase=Phase.STREAMING,
    reported=None,
    reported_is_final=False,
    prompt=Quantity(1_000, 1_000, 1_000, Basis.COUNTED),
    output=OutputCounts(text_tokens=100),
)
REST = Quantity(0, 300, 400, Basis.ASSUMED)
LEFT = Departure(
    Done.DRAINED,
    Why.POLICY_SAYS,
    LeavePolicy.DRAIN,
    "a row",
    OPENED_MS,
    REST,
    OutputCounts(text_tokens=150),
)
DRAINED = replace(COMPLETED, departure=LEFT)
PROMPT_NANO, TOKEN_NANO = 2_500_000, 10_000


def settled(seen: Observation, ending: Ending, *rules: ChargeRule) -> Settlement:
    return settle(open_call(REQUEST), seen, ending, BOOK, charges=rules)


@pytest.mark.parametrize(
    ("seen", "ending", "charged", "output_tokens"),
    [
        (COMPLETED, Ending.COMPLETED, Charged.ACTUAL, 400),
        (COMPLETED, Ending.COMPLETED, Charged.DELIVERED, 400),
        (COMPLETED, Ending.COMPLETED, Charged.PROMPT, 0),
        (DRAINED, Ending.COMPLETED, Charged.ACTUAL, 400),
        (DRAINED, Ending.COMPLETED, Charged.DELIVERED, 150),
        (DRAINED, Ending.COMPLETED, Charged.PROMPT, 0),
        (CUT, Ending.UPSTREAM_CUT, Charged.DELIVERED, 100),
        (CUT, Ending.CALLER_LEFT, Charged.PROMPT, 0),
    ],
)
def test_what_is_charged_of_a_call(
    seen: Observation, ending: Ending, charged: Charged, output_tokens: int
) -> None:
    settlement = settled(seen, ending, ChargeRule(charged, markup=Decimal("1.2")))
    wanted = PROMPT_NANO + output_tokens * TOKEN_NANO
    assert settlement.charge.amount == wanted * 12 // 10
    assert settlement.cost == settled(seen, ending).cost, "the cost is the provider's"


def test_output_that_a_provider_bills_unseen_was_not_delivered() -> None:
    """A stream that this gateway gave up, at a provider that goes on: the estimate is of all."""
    seen = replace(CUT, shut_down=True)
    call = replace(open_call(REQUEST), request=replace(REQUEST, background=True))
    rule = ChargeRule(Charged.DELIVERED)
    settlement = settle(call, seen, Ending.LIMIT_REACHED, BOOK, charges=[rule])
    assert settlement.cost is not None
    assert settlement.charge.amount == PROMPT_NANO + 100 * TOKEN_NANO
    assert settlement.charge.amount < settlement.cost.high


def test_nothing_is_zero_whether_priced_or_not() -> None:
    nothing = ChargeRule(Charged.NOTHING, name="our treat")
    assert settled(COMPLETED, Ending.COMPLETED, nothing).charge.amount == 0
    assert charge(nothing, Usage(), None, None, None).amount == 0


def test_a_call_without_a_price_is_charged_nothing_that_is_known() -> None:
    call = open_call(replace(REQUEST, model="unknown-9"))
    seen = replace(COMPLETED, model_served=None)
    for charged in (Charged.ACTUAL, Charged.DELIVERED, Charged.PROMPT):
        told = settle(call, seen, Ending.COMPLETED, BOOK, charges=[ChargeRule(charged)]).charge
        assert (told.amount, told.reason) == (None, "unpriced")


@pytest.mark.parametrize("ending", [Ending.REFUSED, Ending.NEVER_SENT])
def test_what_used_nothing_is_charged_nothing_whatever_the_rules(ending: Ending) -> None:
    told = settled(Observation(status=429), ending, ChargeRule(Charged.ACTUAL, markup=Decimal(9)))
    assert (told.charge.amount, told.charge.reason) == (0, "nothing_used")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (ChargeRule(Charged.ACTUAL), "cost"),
        (ChargeRule(Charged.ACTUAL, markup=Decimal("1.2"), name="house"), 'cost x 1.2, by "house"'),
        (ChargeRule(Charged.DELIVERED, name="row 2"), 'delivered, by "row 2"'),
        (ChargeRule(Charged.NOTHING), "nothing"),
    ],
)
def test_a_charge_names_its_rule_and_markup(rule: ChargeRule, reason: str) -> None:
    assert settled(COMPLETED, Ending.COMPLETED, rule).charge.reason == reason


CALLERS = ChargeRule(Charged.ACTUAL, cause=Cause.CALLER)
PROVIDERS = ChargeRule(Charged.NOTHING, cause=Cause.PROVIDER)
OURS = ChargeRule(Charged.NOTHING, cause=Cause.GATEWAY)
ACMES = ChargeRule(Charged.PROMPT, accounts="acme/*")
GONE = ChargeRule(Charged.DELIVERED, endings=frozenset({Ending.CALLER_LEFT}))


@pytest.mark.parametrize(
    ("rules", "account", "ending", "seen", "wanted"),
    [
        ([CALLERS, PROVIDERS], "acme", Ending.COMPLETED, COMPLETED, CALLERS),
        ([CALLERS, PROVIDERS], "acme", Ending.UPSTREAM_CUT, CUT, PROVIDERS),
        ([CALLERS, OURS], "acme", Ending.LIMIT_REACHED, CUT, CALLERS),
        ([CALLERS, OURS], "acme", Ending.LIMIT_REACHED, replace(CUT, shut_down=True), OURS),
        ([OURS], "acme", Ending.LOST, CUT, OURS),
        ([ACMES], "acme/search/ann", Ending.COMPLETED, COMPLETED, ACMES),
        ([ACMES], "acme", Ending.COMPLETED, COMPLETED, None),
        ([ACMES], "acmeister/ann", Ending.COMPLETED, COMPLETED, None),
        ([GONE], "acme", Ending.CALLER_LEFT, CUT, GONE),
        ([GONE], "acme", Ending.COMPLETED, DRAINED, GONE),
        ([GONE], "acme", Ending.COMPLETED, COMPLETED, None),
        ([ACMES, GONE], "acme/ann", Ending.CALLER_LEFT, CUT, ACMES),
        ([GONE, ACMES], "acme/ann", Ending.CALLER_LEFT, CUT, GONE),
    ],
)
def test_the_first_row_that_fits_decides(
    rules: Sequence[ChargeRule],
    account: str,
    ending: Ending,
    seen: Observation,
    wanted: ChargeRule | None,
) -> None:
    assert rule_for(rules, account, ending, seen) == (wanted or ChargeRule(Charged.ACTUAL))


def test_every_ending_has_a_cause() -> None:
    assert set(CAUSES) == set(Ending)
    assert {cause_of(ending, COMPLETED) for ending in Ending} == set(Cause)


# Whatever the evidence.

RULES = st.builds(
    ChargeRule,
    charged=st.sampled_from(Charged),
    markup=st.decimals(min_value=0, max_value=100, places=4),
)


@given(REQUESTS, SEEN, st.sampled_from(Ending), RULES)
def test_a_charge_is_at_most_the_marked_up_cost(
    request_: CallRequest, seen: Observation, ending: Ending, rule: ChargeRule
) -> None:
    settlement = settle(open_call(request_), seen, ending, BOOK, charges=[rule])
    plain = settle(open_call(request_), seen, ending, BOOK)
    assert replace(settlement, charge=plain.charge) == plain
    amount = settlement.charge.amount
    if rule.charged is Charged.NOTHING:
        assert amount == 0
    elif settlement.cost is None:
        assert amount is None
    else:
        assert amount is not None
        assert 0 <= amount <= settlement.cost.best * rule.markup + Decimal("0.5")


@given(REQUESTS, SEEN, st.sampled_from(Ending), st.decimals(0, 100, places=3))
def test_the_kinder_a_rule_the_less_is_charged(
    request_: CallRequest, seen: Observation, ending: Ending, markup: Decimal
) -> None:
    amounts = [
        settle(
            open_call(request_), seen, ending, BOOK, charges=[ChargeRule(charged, markup=markup)]
        ).charge.amount
        for charged in (Charged.NOTHING, Charged.PROMPT, Charged.DELIVERED, Charged.ACTUAL)
    ]
    known = [amount for amount in amounts if amount is not None]
    assert known == sorted(known)


@given(
    st.integers(0, 5_000),
    st.integers(0, 5_000),
    st.integers(0, 5_000),
    st.integers(0, 5_000),
    st.decimals(0, 100, places=3),
)
def test_who_was_sent_more_is_charged_no_less(
    output: int, reasoning: int, one: int, other: int, markup: Decimal
) -> None:

    usage = Usage(
        input_tokens=Quantity.reported(1_000),
        output_tokens=Quantity.reported(output),
        output_reasoning_tokens=Quantity.reported(min(reasoning, output)),
    )
    assert PRICE is not None
    cost = cost_of(usage, PRICE)
    rule = ChargeRule(Charged.DELIVERED, markup=markup)
    less, more = (
        charge(rule, usage, cost, PRICE, tokens).amount for tokens in sorted((one, other))
    )
    assert less is not None
    assert more is not None
    assert less <= more
