"""Calls to hold and settle."""

from __future__ import annotations

from itertools import count

from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost
from lastchunk.settlement.facts import Charge, Forecast, OpenCall, Settlement
from lastchunk.usage import Basis, Quantity, Usage
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest

_numbers = count(1)


def call_of(account: str, hold: int) -> OpenCall:
    return OpenCall(
        call_id=f"call_{next(_numbers):026}",
        attempt_of=None,
        account=account,
        tags=(),
        request=CallRequest(
            dialect=Dialect.CHAT,
            model="gpt-5",
            stream=True,
            usage_requested=False,
            upstream="api.openai.com",
            body_bytes=321,
        ),
        forecast=Forecast(
            Quantity(10, 12, 20, Basis.COUNTED), Quantity(0, 100, 4096, Basis.ASSUMED), hold
        ),
        way="gateway",
        opened_ms=1_780_056_000_000,
    )


def settled(call: OpenCall, cost: int) -> Settlement:
    return Settlement(
        call_id=call.call_id,
        ending=Ending.COMPLETED,
        usage=Usage(Quantity.reported(12), output_tokens=Quantity.reported(30)),
        cost=Cost(cost, cost, cost),
        charge=Charge(cost, "cost"),
        price_id="openai/gpt-5",
        reasons=(),
        observation=Observation(status=200),
    )
