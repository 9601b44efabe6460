"""Output that is billed and never sent: reasoning shown as a summary, rejected predictions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.settlement.forecast import forecast
from lastchunk.settlement.settle import settle
from lastchunk.settlement.summarised import reasoning_summarised
from lastchunk.usage import Basis, OutputCounts, Quantity
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest, read_request

OPENED_MS = 1_760_000_000_000
BOOK = PriceBook.load()


def request_to(model: str, **fields: object) -> CallRequest:
    told = {"dialect": Dialect.RESPONSES, "model": model, "stream": True, "usage_requested": True}
    return CallRequest(**{**told, "upstream": "api.openai.com", "body_bytes": 400, **fields})


def settled(request: CallRequest, output: OutputCounts, *, seconds: float = 4.0) -> Settlement:
    """A stream that its caller left so many seconds after it was opened."""
    left_ms = OPENED_MS + round(seconds * 1000)
    call = OpenCall("c", None, "", (), request, forecast(request, BOOK, 0), "python", OPENED_MS)
    seen = Observation(
        phase=Phase.STREAMING,
        status=200,
        bytes=9000,
        output=output,
        reasoning_seen=output.summary_tokens > 0,
        prompt=Quantity(12, 12, 12, Basis.COUNTED),
        first_token_ms=OPENED_MS + 200,
        last_byte_ms=left_ms,
        observed_ms=left_ms,
    )
    return settle(call, seen, Ending.CALLER_LEFT, BOOK)


def output_of(settlement: Settlement) -> Quantity:
    assert settlement.usage.output_tokens is not None
    return settlement.usage.output_tokens


def test_a_summary_tells_how_much_was_thought() -> None:
    short = settled(request_to("gpt-5.4"), OutputCounts(text_tokens=20, summary_tokens=90))
    long = settled(request_to("gpt-5.4"), OutputCounts(text_tokens=20, summary_tokens=800))
    assert output_of(short).best < 100 < 2000 < output_of(long).best
    assert output_of(long).low >= 200
    assert output_of(long).basis is Basis.BOUNDED
    assert {"hidden_reasoning", "reasoning_summarised"} <= set(long.reasons)


def test_a_cut_before_the_answer_began_leaves_room_for_thought_that_is_not_summed_up_yet() -> None:
    thinking = settled(request_to("o3"), OutputCounts(summary_tokens=90), seconds=30)
    answering = settled(
        request_to("o3"), OutputCounts(text_tokens=1, summary_tokens=90), seconds=30
    )
    silent = settled(request_to("o3"), OutputCounts(), seconds=30)
    assert output_of(thinking).best > output_of(answering).best
    assert output_of(thinking).high >= output_of(silent).high > output_of(answering).high


def test_a_model_unheard_of_that_sums_up_its_reasoning_is_billed_for_it() -> None:
    output = output_of(settled(request_to("grok-9"), OutputCounts(20, summary_tokens=40)))
    assert output.low >= 10 + 36
    assert output.best >= 20 + 200


def test_no_summary_and_a_model_that_does_not_reason_leave_nothing_hidden() -> None:
    settlement = settled(request_to("gpt-4o"), OutputCounts(text_tokens=20))
    assert "hidden_reasoning" not in settlement.reasons


@given(st.sampled_from(["o3", "gpt-5-mini", "gpt-5.4", "grok-4.3", ""]), st.integers(1, 10**6))
def test_zero_is_never_claimed_and_more_summary_is_never_less_reasoning(
    model: str, summary: int
) -> None:
    found, more = reasoning_summarised(model, summary), reasoning_summarised(model, summary + 1)
    assert 1 <= found.best <= more.best
    assert (found.low, found.high) <= (more.low, more.high)
    if model in ("o3", "gpt-5-mini"):
        assert found.best % 64 == found.low % 64 == 0


PREDICTED = {"type": "content", "content": "fn main() {}" * 20}


def test_what_was_rejected_of_a_prediction_may_be_billed_and_is_named() -> None:
    body = {"model": "gpt-4o", "stream": True, "messages": [], "prediction": PREDICTED}
    predicted = read_request(Dialect.CHAT, body, upstream="api.openai.com", body_bytes=400)
    body.pop("prediction")
    plain = read_request(Dialect.CHAT, body, upstream="api.openai.com", body_bytes=400)
    with_one, without = (settled(one, OutputCounts(text_tokens=20)) for one in (predicted, plain))
    assert "prediction_rejected" in with_one.reasons
    assert "prediction_rejected" not in without.reasons
    assert output_of(with_one).high == output_of(without).high + 12  # as long as the prompt at most
    assert output_of(with_one).best == output_of(without).best
    assert output_of(with_one).basis is Basis.BOUNDED


@pytest.mark.parametrize(
    ("prediction", "length"),
    [
        (PREDICTED, 240),
        ({"type": "content", "content": "é\ud800"}, 3),
        ({"type": "content", "content": [{"type": "text", "text": "a"}]}, 400),
        ({}, 400),
        (None, 0),
        ("text", 0),
    ],
)
def test_a_predictions_length_is_never_told_too_small(prediction: object, length: int) -> None:
    body = {"model": "gpt-4o", "prediction": prediction}
    request = read_request(Dialect.CHAT, body, upstream="api.openai.com", body_bytes=400)
    assert request.prediction_bytes == length
