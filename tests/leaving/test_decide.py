"""Cancel or drain: the decision as a table, and what holds for any call."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.leaving.decide import Decision, decide, needs_price
from lastchunk.leaving.departing import BYTES_PER_TOKEN, Caps, Departing, Permits
from lastchunk.leaving.rules import Rule
from lastchunk.meter.departure import AfterCancel, Cut, Done, LeavePolicy, Why
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.pricing.book import PriceBook
from lastchunk.pricing.cost import output_cost
from lastchunk.settlement.facts import OpenCall
from lastchunk.settlement.forecast import forecast
from lastchunk.settlement.settle import settle
from lastchunk.usage import Basis, OutputCounts, Quantity
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest

BOOK = PriceBook.load()
AT_MS = 1_760_000_000_000
PRICE = BOOK.price("gpt-4o", upstream="api.openai.com", at_ms=AT_MS, tier=None)
STOPS, WHOLE, UNKNOWN = AfterCancel.STOPS, AfterCancel.BILLS_WHOLE, AfterCancel.UNKNOWN
CANCEL, DRAIN, CHEAPER = LeavePolicy.CANCEL, LeavePolicy.DRAIN, LeavePolicy.CHEAPER
CENT = 10_000_000


def open_call(ceiling: int | None = None, after: AfterCancel = UNKNOWN) -> OpenCall:
    request = CallRequest(
        dialect=Dialect.CHAT, model="gpt-4o", stream=True, usage_requested=False,
        upstream="h", body_bytes=400, output_ceiling=ceiling,
    )  # fmt: skip
    told = forecast(request, BOOK, AT_MS)
    return OpenCall("call_1", None, "a", (), request, told, "python", AT_MS, after)


def rule(policy: LeavePolicy, after: AfterCancel, threshold: int = CENT) -> Rule:
    return Rule(policy, after, "a row", Why.POLICY_SAYS, threshold)


# gpt-4o: USD 10 for a million tokens of output, so that a usual answer's 500 cost half a cent.
DECISIONS = [
    (CANCEL, STOPS, CENT, None, 0, False, Why.POLICY_SAYS),
    (CANCEL, WHOLE, CENT, None, 0, False, Why.POLICY_SAYS),
    (DRAIN, STOPS, 0, None, 0, True, Why.POLICY_SAYS),
    (DRAIN, UNKNOWN, 0, None, 0, True, Why.POLICY_SAYS),
    (DRAIN, WHOLE, 0, None, 0, True, Why.BILLED_ANYWAY),
    (CHEAPER, WHOLE, 0, None, 0, True, Why.BILLED_ANYWAY),
    (CHEAPER, STOPS, CENT, None, 0, True, Why.COSTS_LESS),
    (CHEAPER, STOPS, CENT // 2, None, 0, False, Why.COSTS_MORE),
    (CHEAPER, STOPS, CENT // 2, 400, 0, True, Why.COSTS_LESS),
    (CHEAPER, UNKNOWN, CENT // 10, 1000, 0, False, Why.COSTS_MORE),
    (CHEAPER, UNKNOWN, CENT // 10, 1000, 950, True, Why.COSTS_LESS),
    (CHEAPER, STOPS, 0, None, 0, False, Why.COSTS_MORE),
]


@pytest.mark.parametrize(
    ("policy", "after", "threshold", "ceiling", "arrived", "drains", "why"), DECISIONS
)
def test_the_decision(policy, after, threshold, ceiling, arrived, drains, why):
    found = decide(rule(policy, after, threshold), open_call(ceiling), arrived, PRICE)
    assert (found.drains, found.why) == (drains, why)


def test_without_a_price_only_what_is_billed_anyway_is_drained_by_cheaper() -> None:
    assert decide(rule(CHEAPER, STOPS), open_call(), 0, None).why is Why.UNPRICED
    assert decide(rule(CHEAPER, WHOLE), open_call(), 0, None).drains
    assert decide(rule(DRAIN, STOPS), open_call(), 0, None).drains
    assert needs_price(rule(CHEAPER, STOPS))
    assert not needs_price(rule(CHEAPER, WHOLE))


@given(
    st.sampled_from(LeavePolicy),
    st.sampled_from(AfterCancel),
    st.integers(0, 10 * CENT),
    st.none() | st.integers(1, 20_000),
    st.integers(0, 30_000),
)
def test_whatever_the_call_a_drain_is_asked_for_free_or_bought(
    policy, after, threshold, ceiling, arrived
):
    call = open_call(ceiling)
    found = decide(rule(policy, after, threshold), call, arrived, PRICE)
    assert 0 == found.rest.low <= found.rest.best <= found.rest.high
    assert found.rest.high <= max(0, call.forecast.output_tokens.high - arrived)
    if policy is CANCEL:
        assert not found.drains
    elif after is WHOLE or policy is DRAIN:
        assert found.drains
        assert found.most_tokens is None
    elif found.drains:  # no more is drained than the threshold buys
        most = found.rest.high if found.most_tokens is None else found.most_tokens
        bought = Quantity(most, most, most, Basis.ASSUMED)
        assert output_cost(PRICE, call.forecast.input_tokens.best, bought).best <= threshold


def departing(caps: Caps, permits: Permits | None = None, **decision) -> Departing:
    made = Departing(rule(DRAIN, STOPS), caps, permits or Permits(1))
    rest = Quantity(0, 10, 100, Basis.ASSUMED)
    decided = Decision(True, Why.POLICY_SAYS, rest, **decision)
    made.begin(decided, prevented=None, total_bytes=1000, output_bytes=400)
    return made


@pytest.mark.parametrize(
    ("total_bytes", "tokens", "most", "cut_by"),
    [
        (1999, 49, None, None),
        (2000, 0, None, Cut.BYTES),
        (1001, 50, None, Cut.TOKENS),
        (1001, 9, 10, None),
        (1001, 10, 10, Cut.TOKENS),
        (1001, 49, 60, None),
    ],
)
def test_caps_count_from_the_moment_of_leaving(total_bytes, tokens, most, cut_by):
    drain = departing(Caps(bytes=1000, tokens=50), most_tokens=most)
    drain.check(total_bytes, 400 + tokens * BYTES_PER_TOKEN)
    assert drain.goes_on is (cut_by is None)
    told = drain.departure(1, Phase.STREAMING, None, is_over=True)
    assert (told.done, told.cut_by) == (Done.CUT, cut_by or Cut.UPSTREAM)


def test_permits_are_given_back_once_however_often_a_call_ends() -> None:
    permits = Permits(2)
    first, second, third = (departing(Caps(), permits) for _ in range(3))
    assert [one.drains for one in (first, second, third)] == [True, True, False]
    told = third.departure(1, Phase.STREAMING, None, is_over=True)
    assert (told.done, told.why) == (Done.CANCELLED, Why.TOO_MANY_DRAINS)
    third.release()
    assert not departing(Caps(), permits).drains
    for _ in range(3):
        first.release()
    assert departing(Caps(), permits).drains
    assert not departing(Caps(), permits).drains


CUT_MIDWAY = Observation(
    phase=Phase.STREAMING, status=200, bytes=900, output=OutputCounts(text_tokens=40),
    first_token_ms=AT_MS + 100, last_byte_ms=AT_MS + 900, observed_ms=AT_MS + 900,
)  # fmt: skip


@pytest.mark.parametrize(
    "ending", [Ending.CALLER_LEFT, Ending.LIMIT_REACHED, Ending.LOST, Ending.UPSTREAM_TIMEOUT]
)
@given(ceiling=st.none() | st.integers(50, 5000), truth=st.floats(0, 1))
def test_where_the_whole_answer_is_billed_any_rest_of_it_is_inside(ending, ceiling, truth):
    call = open_call(ceiling, WHOLE)
    settlement = settle(call, CUT_MIDWAY, ending, BOOK)
    told = settlement.usage.output_tokens
    most = call.forecast.output_tokens.high
    assert told.low <= 40 + int(truth * (most - 40)) <= told.high
    assert told.basis is Basis.BOUNDED
    assert "billed_after_cancel" in settlement.reasons
    plain = settle(open_call(ceiling, STOPS), CUT_MIDWAY, ending, BOOK)
    assert told.best >= plain.usage.output_tokens.best


def test_a_finished_answer_is_billed_no_more_whoever_serves_it() -> None:
    seen = replace(CUT_MIDWAY, phase=Phase.FINISHED, finish_reason="stop", finished_choices=1)
    told = settle(open_call(None, WHOLE), seen, Ending.CALLER_LEFT, BOOK)
    assert "billed_after_cancel" not in told.reasons
