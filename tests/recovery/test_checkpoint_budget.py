"""What a checkpoint writes down of a call when there is no time to count it."""

from dataclasses import replace

import pytest

from lastchunk.clock import SystemClock
from lastchunk.leaving.departing import Caps, Departing, Permits
from lastchunk.leaving.rules import Rules
from lastchunk.meter.ending import Ending, Stop
from lastchunk.metered_call import BACKLOG_LIMIT, MeteredCall
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.estimate import LOST_SECONDS_USUAL, USUAL_TOKENS_PER_SECOND
from lastchunk.settlement.experience import NOTHING_LEARNED
from lastchunk.settlement.facts import OpenCall
from lastchunk.settlement.forecast import forecast
from lastchunk.settlement.settle import settle
from lastchunk.simulator import Script, render
from lastchunk.usage import Basis
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import read_request

BOOK = PriceBook.load(None)
CLOCK = SystemClock()
BODY = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
RAW = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hello"}]}'


def frames_of(tokens: int) -> list[bytes]:
    """The frames of a stream, the first one without a token, one token each after it."""
    return list(render(Script(output_tokens=tokens), BODY).frames)


def opened() -> MeteredCall:
    now = CLOCK.now_ms()
    request = read_request(Dialect.CHAT, BODY, upstream="api.openai.com", body_bytes=len(RAW))
    call = OpenCall(
        "call_1", None, "default", (), request, forecast(request, BOOK, now), "gateway", now
    )
    departing = Departing(Rules().rule_for(request, "default"), Caps(), Permits(1))
    metered = MeteredCall(call, RAW, CLOCK, lambda _: None, departing, BOOK)
    metered.headed(200, "text/event-stream", None)
    return metered


def feed(metered: MeteredCall, frames: list[bytes]) -> None:
    for frame in frames:
        metered.receive(frame)


@pytest.mark.parametrize(("counted", "arrived"), [(40, 240), (0, 200), (12, 600)])
def test_a_lost_call_whose_last_frames_were_not_counted_is_within_its_interval(
    counted: int, arrived: int
) -> None:
    metered, frames = opened(), frames_of(800)
    feed(metered, frames[:counted])
    if counted:
        assert metered.checkpoint(NOTHING_LEARNED, count=True) is not None
    feed(metered, frames[counted:arrived])
    seen = metered.checkpoint(NOTHING_LEARNED, count=False)
    assert seen is not None
    assert seen.uncounted_frames == arrived - counted
    assert (seen.frames, seen.bytes) == (arrived, sum(map(len, frames[:arrived])))
    # Of no measured pace, so that nothing but the frames tells what had arrived.
    still = replace(seen, first_token_ms=seen.last_byte_ms, observed_ms=seen.last_byte_ms)
    output = settle(metered.call, still, Ending.LOST, BOOK).usage.output_tokens
    assert output is not None
    assert output.low <= arrived - 1 <= output.high
    assert output.basis is (Basis.BOUNDED if counted else Basis.ASSUMED)
    if counted:
        assert output.low >= (arrived - 1) // 2
        behind = LOST_SECONDS_USUAL * USUAL_TOKENS_PER_SECOND
        assert output.best - behind == pytest.approx(arrived - 1, rel=0.02)


def test_a_call_that_ends_is_counted_whatever_its_checkpoints_left_out() -> None:
    at_once, in_steps, frames = opened(), opened(), frames_of(300)[:200]
    feed(at_once, frames)
    for start in range(0, len(frames), 50):
        feed(in_steps, frames[start : start + 50])
        in_steps.checkpoint(NOTHING_LEARNED, count=start == 50)
    settled = []
    for metered in (at_once, in_steps):
        metered.end(Stop.CALLER_LEFT)
        settled.append(metered.conclude(BOOK, NOTHING_LEARNED))
    assert settled[0].observation.output == settled[1].observation.output
    assert settled[0].usage.input_tokens == settled[1].usage.input_tokens
    assert settled[1].observation.uncounted_frames == 0
    for one in settled:
        assert one.usage.output_tokens is not None
        assert (one.usage.output_tokens.low, one.usage.output_tokens.best) == (199, 199)
        assert one.usage.output_tokens.basis is Basis.COUNTED


def test_a_checkpoint_that_counts_leaves_nothing_uncounted() -> None:
    metered, frames = opened(), frames_of(100)
    feed(metered, frames[:30])
    assert metered.uncounted == 1.0
    first = metered.checkpoint(NOTHING_LEARNED, count=True)
    assert first is not None
    assert metered.uncounted == 0.0
    feed(metered, frames[30:60])
    assert 0.4 < metered.uncounted < 0.6
    second = metered.checkpoint(NOTHING_LEARNED, count=True)
    assert second is not None
    assert (first.uncounted_frames, second.uncounted_frames) == (0, 0)
    assert first.output is not None
    assert second.output is not None
    assert (first.output.total, second.output.total) == (29, 59)
    assert metered.checkpoint(NOTHING_LEARNED, count=True) is None, "nothing new came"


def test_what_waits_is_bounded_also_where_there_is_never_time() -> None:
    metered, frames = opened(), frames_of(2)
    feed(metered, frames[:2])
    word = frames[1]
    while metered._meter.backlog <= BACKLOG_LIMIT:
        feed(metered, [word] * 100)
    seen = metered.checkpoint(NOTHING_LEARNED, count=False)
    assert seen is not None
    assert seen.uncounted_frames == 0
    assert metered._meter.backlog == 0
