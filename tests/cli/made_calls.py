"""A ledger of varied calls, written through the real Ledger and settled by the real `settle`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lastchunk.clock import Clock
from lastchunk.ledger import Ledger
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.money import format_usd
from lastchunk.pricing import PriceBook
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.settlement.forecast import forecast
from lastchunk.settlement.settle import settle
from lastchunk.usage import Basis, OutputCounts, Quantity, TokenCounts
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest

START_MS = 1_793_872_800_000
"""2026-11-05 10:00 UTC."""

MINUTE = 60_000
BOOK = PriceBook.load()


@dataclass
class FixedClock:
    """A clock that stands where it was put."""

    at_ms: int = START_MS

    def now_ms(self) -> int:
        return self.at_ms

    def elapsed(self) -> float:
        return self.at_ms / 1000


def call_id(number: int) -> str:
    return f"call_{number:026d}"


def made_call(
    number: int,
    *,
    model: str = "gpt-4o",
    account: str = "search/ann",
    opened_ms: int | None = None,
    upstream: str = "api.openai.com",
    tier: str | None = None,
    attempt_of: str | None = None,
    tags: tuple[tuple[str, str], ...] = (),
    way: str = "gateway",
) -> OpenCall:
    """An open call; `number` makes its id and, unless given, its minute."""
    opened = START_MS + number * MINUTE if opened_ms is None else opened_ms
    request = CallRequest(
        dialect=Dialect.CHAT,
        model=model,
        stream=True,
        usage_requested=False,
        upstream=upstream,
        body_bytes=4_800,
        output_ceiling=2_000,
        service_tier=tier,
    )
    return OpenCall(
        call_id=call_id(number),
        attempt_of=attempt_of,
        account=account,
        tags=tags,
        request=request,
        forecast=forecast(request, BOOK, opened),
        way=way,
        opened_ms=opened,
    )


def held(number: int) -> str:
    """What the made call of that number holds, as people read it."""
    return format_usd(made_call(number).forecast.hold)


def reported(call: OpenCall, tokens_in: int, tokens_out: int, cached: int = 0) -> Observation:
    """What is seen of a call that runs to its end."""
    return Observation(
        phase=Phase.TERMINATED,
        status=200,
        response_id=f"chatcmpl-{call.call_id[-6:]}",
        model_served=call.request.model,
        tier_served=call.request.service_tier,
        frames=tokens_out + 3,
        bytes=tokens_out * 210,
        finish_reason="stop",
        reported=TokenCounts(
            input_tokens=tokens_in,
            input_cached_tokens=cached,
            output_tokens=tokens_out,
            output_reasoning_tokens=0,
        ),
        reported_is_final=True,
        first_byte_ms=call.opened_ms + 310,
        first_token_ms=call.opened_ms + 420,
        last_byte_ms=call.opened_ms + 420 + tokens_out * 12,
        observed_ms=call.opened_ms + 425 + tokens_out * 12,
    )


def cut(call: OpenCall, tokens_in: int, arrived: int) -> Observation:
    """What is seen of a stream that stops before its usage: text was counted."""
    whole = reported(call, tokens_in, arrived)
    return replace(
        whole,
        phase=Phase.STREAMING,
        finish_reason=None,
        reported=None,
        reported_is_final=False,
        output=OutputCounts(text_tokens=arrived),
        prompt=Quantity(tokens_in, tokens_in, tokens_in, Basis.COUNTED),
    )


def silent(call: OpenCall) -> Observation:
    """Nothing came back for thirty seconds."""
    return Observation(observed_ms=call.opened_ms + 30_000)


def refused(call: OpenCall) -> Observation:
    return Observation(status=429, observed_ms=call.opened_ms + 200, last_byte_ms=call.opened_ms)


def write(
    ledger: Ledger, call: OpenCall, seen: Observation | None, ending: Ending = Ending.COMPLETED
) -> Settlement | None:
    """Reserves a call and, unless `seen` is None, settles it."""
    ledger.reserve(call).result(10)
    if seen is None:
        return None
    settlement = settle(call, seen, ending, BOOK)
    ledger.settle(call, settlement, seen.observed_ms or call.opened_ms).result(10)
    return settlement


def a_day_of_calls(path: Path, clock: Clock) -> Path:
    """Some forty calls of every kind; the numbers are in the order of time."""
    with Ledger.open(str(path), clock=clock) as ledger:
        for number in range(24):
            model = ("gpt-4o", "gpt-4o-mini", "gpt-5")[number % 3]
            account = ("search/ann", "search/bob", "support")[number % 3]
            call = made_call(
                number,
                model=model,
                account=account,
                tags=(("team", account.partition("/")[0]),),
                opened_ms=START_MS + number * 53 * MINUTE,
            )
            write(ledger, call, reported(call, 900 + 37 * number, 200 + 11 * number, 256))
        _interrupted(ledger)
        _odd(ledger)
    return path


def _interrupted(ledger: Ledger) -> None:
    for number in range(30, 36):
        call = made_call(number, account="search/bob", opened_ms=_later(number))
        write(ledger, call, cut(call, 1_200, 40 * (number - 29)), Ending.CALLER_LEFT)
    call = made_call(36, model="gpt-5", account="support", opened_ms=_later(36))
    write(ledger, call, cut(call, 2_000, 150), Ending.UPSTREAM_CUT)
    call = made_call(37, opened_ms=_later(37))
    write(ledger, call, silent(call), Ending.UPSTREAM_TIMEOUT)
    call = made_call(38, opened_ms=_later(38))
    running = TokenCounts(input_tokens=700, output_tokens=90)
    seen = replace(cut(call, 700, 90), reported=running)
    write(ledger, call, seen, Ending.LOST)
    call = made_call(39, opened_ms=_later(39))
    write(ledger, call, refused(call), Ending.REFUSED)


def _odd(ledger: Ledger) -> None:
    for number in (41, 42):
        call = made_call(
            number, model="my-own-llama", upstream="10.0.0.7:8000", opened_ms=_later(number)
        )
        write(ledger, call, reported(call, 5_000, 300))
    call = made_call(43, model="gpt-5", tier="flex", account="batch", opened_ms=_later(43))
    write(ledger, call, reported(call, 30_000, 4_000, 20_000))
    first = made_call(44, account="support", opened_ms=_later(44))
    write(ledger, first, silent(first), Ending.UPSTREAM_TIMEOUT)
    again = made_call(45, account="support", opened_ms=_later(45), attempt_of=first.call_id)
    write(ledger, again, refused(again), Ending.REFUSED)
    last = made_call(46, account="support", opened_ms=_later(46), attempt_of=first.call_id)
    write(ledger, last, reported(last, 1_100, 240))
    write(ledger, made_call(47, opened_ms=_later(47)), None)
    write(ledger, made_call(48, model="my-own-llama", upstream="h", opened_ms=_later(48)), None)


def _later(number: int) -> int:
    return START_MS + 24 * 60 * MINUTE + number * MINUTE
