"""What is decided about a call, before it and after it."""

from __future__ import annotations

from dataclasses import dataclass

from lastchunk.meter.departure import AfterCancel
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost
from lastchunk.usage import Quantity, Usage
from lastchunk.wire.request import CallRequest


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a call may use, before anything is known but its request.

    `hold` is the cost at the forecast's high end in nano-dollars, None without a price.
    `usual_hold` and `usual_tokens` are what such calls come to at the 95th percentile, None where
    nobody asked.
    """

    input_tokens: Quantity
    output_tokens: Quantity
    hold: int | None
    usual_hold: int | None = None
    usual_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that was reserved and may be under way.

    `attempt_of` is the id of the first attempt where this one is a retry of it; `way` names the way
    in (`python` or `gateway`); `opened_ms` is in Unix milliseconds. `after_cancel` is what its
    provider bills when the call is left, as was known when it was opened.
    """

    call_id: str
    attempt_of: str | None
    account: str
    tags: tuple[tuple[str, str], ...]
    request: CallRequest
    forecast: Forecast
    way: str
    opened_ms: int
    after_cancel: AfterCancel = AfterCancel.UNKNOWN


@dataclass(frozen=True, slots=True)
class Charge:
    """What a customer is charged, in nano-dollars (None: unpriced), and the reason."""

    amount: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class DepartureCost:
    """What it came to that the caller left early. Amounts are nano-dollars, None without a price.

    `undelivered` is billed output that the caller was not given, hidden reasoning left out;
    `drain_cost` what of its cost there is because it was drained: 0 for a provider that bills the
    rest anyway. `saved` is the output that was expected and not generated. All are intervals;
    `undelivered` is None where nobody counted what was delivered.
    """

    undelivered: Quantity | None
    undelivered_cost: Cost | None
    drain_cost: Cost | None
    saved: Quantity
    saved_cost: Cost | None


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
    departure: DepartureCost | None = None
    """The caller left when output could still come: what that cost, and saved."""
