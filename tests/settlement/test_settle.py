"""The waist: whatever the evidence, an account that says how it is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.facts import OpenCall
from lastchunk.settlement.forecast import forecast
from lastchunk.settlement.settle import settle
from lastchunk.usage import USAGE_PARTS, Basis, OutputCounts, Quantity, TokenCounts
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest

BOOK = PriceBook.load()
OPENED_MS = 1_760_000_000_000
COUNT = st.integers(0, 5000)
MAYBE = st.none() | COUNT
MOMENT = st.none() | st.integers(OPENED_MS - 1000, OPENED_MS + 900_000)
MODELS = st.sampled_from(["gpt-4o", "gpt-4", "o3", "gpt-5", "gpt-5.1", "o4-mini", "unknown-9", ""])
NAMES = st.none() | st.sampled_from(["gpt-4o-2024-08-06", "o3-2025-04-16", "nobody/knows"])
REPORTS = st.builds(TokenCounts, *[MAYBE] * 9)
COUNTED = st.builds(OutputCounts, COUNT, COUNT, COUNT, COUNT, calls=st.integers(0, 4), spread=COUNT)


@st.composite
def quantities(draw: st.DrawFn) -> Quantity:
    low, best, high = sorted(draw(st.tuples(COUNT, COUNT, COUNT)))
    basis = draw(st.sampled_from([Basis.ASSUMED, Basis.BOUNDED, Basis.COUNTED]))
    return Quantity(low, best, high, basis)


REQUESTS = st.builds(
    CallRequest,
    dialect=st.sampled_from(Dialect),
    model=MODELS,
    stream=st.booleans(),
    usage_requested=st.booleans(),
    upstream=st.sampled_from(["api.openai.com", "x.openai.azure.com:443", "127.0.0.1:80"]),
    body_bytes=st.integers(0, 100_000),
    choices=st.integers(1, 4),
    output_ceiling=st.none() | st.integers(1, 4000),
    service_tier=st.sampled_from([None, "flex", "priority", "odd"]),
    tools_declared=st.booleans(),
    tool_choice=st.sampled_from(["auto", "none", "required", "forced"]),
    json_schema=st.booleans(),
    background=st.booleans(),
)
SEEN = st.builds(
    Observation,
    phase=st.sampled_from(Phase),
    status=st.sampled_from([None, 200, 429, 500]),
    model_served=NAMES,
    tier_served=st.sampled_from([None, "default", "priority", "flex"]),
    frames=COUNT,
    bytes=st.integers(0, 10**7),
    output=st.none() | COUNTED,
    finished_choices=st.integers(0, 4),
    refused_choices=st.integers(0, 2),
    finish_reason=st.sampled_from([None, "stop", "length", "tool_calls", "incomplete"]),
    reasoning_seen=st.booleans(),
    prompt=st.none() | quantities(),
    prompt_reasons=st.just(("image_by_url",)) | st.just(()),
    reported=st.none() | REPORTS,
    reported_is_final=st.booleans(),
    uncounted_chars=COUNT,
    first_byte_ms=MOMENT,
    first_token_ms=MOMENT,
    last_byte_ms=MOMENT,
    observed_ms=MOMENT,
    faults=st.sampled_from([(), ("meter_failed",), ("count_failed", "undecodable_encoding")]),
)


def open_call(request: CallRequest) -> OpenCall:
    told = forecast(request, BOOK, OPENED_MS)
    return OpenCall("call_1", None, "default", (), request, told, "python", OPENED_MS)


@given(REQUESTS, SEEN, st.sampled_from(Ending))
def test_any_evidence_gives_an_account_in_order(request_, seen, ending):
    settlement = settle(open_call(request_), seen, ending, BOOK)
    again = settle(open_call(request_), seen, ending, BOOK)
    assert settlement == again
    if settlement.nothing_used:
        assert ending in (Ending.REFUSED, Ending.NEVER_SENT)
        assert settlement.cost.high == 0
        return
    usage, cost = settlement.usage, settlement.cost
    assert usage.input_tokens is not None
    assert usage.output_tokens is not None
    for name in USAGE_PARTS:
        quantity = getattr(usage, name)
        if quantity is not None:
            assert 0 <= quantity.low <= quantity.best <= quantity.high
            if quantity.basis >= Basis.REPORTED:
                assert quantity.low == quantity.high == getattr(seen.reported, name)
    if cost is not None:
        assert 0 <= cost.low <= cost.best <= cost.high
    assert (settlement.charge.amount is None) is (cost is None)


@given(REQUESTS, SEEN, REPORTS, st.sampled_from(Ending))
def test_a_final_report_is_the_account_to_the_token(request_, seen, told, ending):
    assume(ending not in (Ending.REFUSED, Ending.NEVER_SENT))
    seen = replace(seen, reported=told, reported_is_final=True)
    usage = settle(open_call(request_), seen, ending, BOOK).usage
    for name in USAGE_PARTS:
        tokens = getattr(told, name)
        if tokens is not None:
            assert getattr(usage, name) == Quantity.reported(tokens)


def plain(**fields: object) -> CallRequest:
    told = {"dialect": Dialect.CHAT, "model": "gpt-4o", "stream": True, "usage_requested": True}
    return CallRequest(**{**told, "upstream": "api.openai.com", "body_bytes": 400, **fields})


def cut(**fields: object) -> Observation:
    """A stream that was cut after 40 tokens in half a second."""
    told = {
        "phase": Phase.STREAMING,
        "status": 200,
        "bytes": 9000,
        "output": OutputCounts(text_tokens=40),
        "prompt": Quantity(12, 12, 12, Basis.COUNTED),
        "first_token_ms": OPENED_MS + 300,
        "last_byte_ms": OPENED_MS + 800,
        "observed_ms": OPENED_MS + 800,
    }
    return Observation(**{**told, **fields})


def output_of(request_: CallRequest, seen: Observation, ending: Ending) -> Quantity:
    usage = settle(open_call(request_), seen, ending, BOOK).usage
    assert usage.output_tokens is not None
    return usage.output_tokens


def test_a_cut_call_is_what_arrived_and_may_be_a_little_more():
    output = output_of(plain(), cut(), Ending.CALLER_LEFT)
    assert (output.low, output.best, output.basis) == (40, 40, Basis.COUNTED)
    assert 40 + 16 <= output.high < 40 + 60


def test_the_longer_the_silence_the_wider_the_interval():
    waits = (0, 1000, 30_000)
    highs = [
        output_of(plain(), cut(observed_ms=OPENED_MS + 800 + wait), Ending.UPSTREAM_TIMEOUT).high
        for wait in waits
    ]
    assert highs == sorted(set(highs))


def test_no_interval_goes_beyond_what_the_caller_allowed():
    silent = cut(observed_ms=OPENED_MS + 600_000)
    limited = output_of(plain(output_ceiling=100), silent, Ending.UPSTREAM_TIMEOUT)
    assert limited.high <= 100 + 16
    assert output_of(plain(), silent, Ending.UPSTREAM_TIMEOUT).high > 1000


def test_a_lost_call_has_the_widest_interval():
    left, lost = (output_of(plain(), cut(), e) for e in (Ending.CALLER_LEFT, Ending.LOST))
    assert lost.high > left.high
    assert lost.best >= left.best


def test_hidden_reasoning_widens_only_the_models_that_reason_unseen():
    answers = {m: output_of(plain(model=m), cut(), Ending.CALLER_LEFT) for m in ("gpt-4o", "o3")}
    assert answers["o3"].high >= 2048 > answers["gpt-4o"].high
    assert answers["o3"].basis is Basis.BOUNDED


def test_a_report_without_output_is_completed_by_counting():
    seen = cut(reported=TokenCounts(input_tokens=10), reported_is_final=True)
    usage = settle(open_call(plain()), seen, Ending.COMPLETED, BOOK).usage
    assert usage.input_tokens == Quantity.reported(10)
    assert usage.output_tokens.basis is Basis.COUNTED


def test_running_usage_is_the_low_end_and_its_parts_are_not_told():
    told = TokenCounts(input_tokens=10, output_tokens=38, output_reasoning_tokens=5)
    settlement = settle(open_call(plain()), cut(reported=told), Ending.CALLER_LEFT, BOOK)
    output = settlement.usage.output_tokens
    assert (output.low, output.basis) == (38, Basis.REPORTED_SO_FAR)
    assert output.high > 40
    assert settlement.usage.output_reasoning_tokens is None


def test_a_model_without_a_price_is_unpriced_not_free():
    settlement = settle(open_call(plain(model="unknown-9")), cut(), Ending.CALLER_LEFT, BOOK)
    assert settlement.cost is None
    assert settlement.charge.amount is None
    assert settlement.price_id is None


@pytest.mark.parametrize("fault", ["meter_failed", "undecodable_encoding", "count_failed"])
def test_our_own_fault_costs_the_basis_and_is_named(fault):
    seen = cut(faults=(fault,))
    settlement = settle(open_call(plain()), seen, Ending.CALLER_LEFT, BOOK)
    output = settlement.usage.output_tokens
    assert fault in settlement.reasons
    assert output.basis <= Basis.BOUNDED
    assert output.high >= seen.bytes


@given(REQUESTS)
def test_a_forecast_is_an_interval_around_what_may_come(request_):
    told = forecast(request_, BOOK, OPENED_MS)
    for quantity in (told.input_tokens, told.output_tokens):
        assert quantity.basis is Basis.ASSUMED
        assert quantity.low <= quantity.best <= quantity.high
    if request_.output_ceiling is not None:
        assert told.output_tokens.high == request_.output_ceiling * request_.choices
    assert told.hold is None or told.hold > 0
