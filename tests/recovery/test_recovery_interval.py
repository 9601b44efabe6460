"""What a killed process had last written down, and how much may lie behind it."""

from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.facts import OpenCall
from lastchunk.settlement.forecast import forecast
from lastchunk.settlement.settle import settle
from lastchunk.usage import OutputCounts
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest


def test_a_process_that_was_starved_before_it_was_killed_does_not_tell_the_pace() -> None:
    """Met in the test of kill -9: 14 tokens seen in 0.6 s of a busy machine, 62 generated."""
    book = PriceBook.load(None)
    request = CallRequest(Dialect.CHAT, "gpt-4o-mini", True, False, "api.openai.com", 100)
    opened_ms = 1_795_236_551_500
    guess = forecast(request, book, opened_ms)
    call = OpenCall("call_1", None, "default", (), request, guess, "python", opened_ms)
    seen = Observation(
        phase=Phase.STREAMING,
        status=200,
        bytes=4984,
        output=OutputCounts(text_tokens=14),
        first_byte_ms=opened_ms + 224,
        first_token_ms=opened_ms + 249,
        last_byte_ms=opened_ms + 883,
        observed_ms=opened_ms + 891,
    )
    output = settle(call, seen, Ending.LOST, book).usage.output_tokens
    assert output is not None
    assert output.low <= 14
    assert output.high >= 62
