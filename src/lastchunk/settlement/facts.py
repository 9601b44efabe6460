"""What is decided about a call, before it and after it."""

from __future__ import annotations

from dataclasses import dataclass

from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost
from lastchunk.usage import Quantity, Usage
from lastchunk.wire.request import CallRequest


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a call may use, before anything is known but its request.

    `hold` is the cost at the forecast's high end in nano-dollars, None without a price.
    """

    input_tokens: Quantity
    output_tokens: Quantity
    hold: int | None


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that was reserved and may be under way.

    `attempt_of` is the id of the first attempt where this one is a retry of it; `way` names the way
    in (`python` or `gateway`); `opened_ms` is in Unix milliseconds.
    """

    call_id: str
    attempt_of: str | None
    account: str
    tags: tuple[tuple[str, str], ...]
    request: CallRequest
    forecast: Forecast
    way: str
    opened_ms: int


@dataclass(frozen=True, slots=True)
class Charge:
    """What a customer is charged, in nano-dollars (None: unpriced), and the reason."""

    amount: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """The account of one call. `cost` None: no price is known for this model."""

    call_id: str
    ending: Ending
    usage: Usage
    cost: Cost | None
    charge: Charge
    price_id: str | None
    reasons: tuple[str, ...]
    """Why numbers are not reported ones, by name, in the order they were found."""
    observation: Observation
    nothing_used: bool = False
    """There is proof that nothing was used: released, not settled."""
