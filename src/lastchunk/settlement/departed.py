"""What it came to that the caller left early: output that nobody read, output that was spared."""

from __future__ import annotations

from dataclasses import replace

from lastchunk.meter.departure import AfterCancel, Cut, Departure, Done
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.pricing.cost import Cost, output_cost
from lastchunk.pricing.price import Price
from lastchunk.settlement.facts import DepartureCost, OpenCall
from lastchunk.usage import Basis, OutputCounts, Quantity, Usage

_NOTHING = Quantity(0, 0, 0, Basis.ASSUMED)


def closed(seen: Observation, ending: Ending) -> Observation:
    """The observation with its departure as it ended: a drain may have ended with its process."""
    departure = seen.departure
    if departure is None or departure.done is not Done.DRAINING:
        return seen
    by = Cut.PROCESS_DIED if ending is Ending.LOST else Cut.UPSTREAM
    done = Done.DRAINED if ending is Ending.COMPLETED else Done.CUT
    cut_by = by if done is Done.CUT else None
    return replace(seen, departure=replace(departure, done=done, cut_by=cut_by))


def departure_cost(
    call: OpenCall, seen: Observation, usage: Usage, price: Price | None
) -> DepartureCost | None:
    """What the departure cost and saved, by the call's usage; None where nobody left early."""
    departure, output = seen.departure, usage.output_tokens
    if departure is None or output is None:
        return None
    undelivered = None
    if departure.delivered is not None:
        undelivered = _beyond(output, departure.delivered, _hidden(seen, usage))
    saved = _saved(call, departure, undelivered)
    billed_anyway = call.after_cancel is AfterCancel.BILLS_WHOLE
    was_drained = departure.done in (Done.DRAINED, Done.CUT)
    undelivered_cost = _cost(price, usage, undelivered)
    return DepartureCost(
        undelivered=undelivered,
        undelivered_cost=undelivered_cost,
        drain_cost=undelivered_cost if was_drained and not billed_anyway else _free(price),
        saved=saved,
        saved_cost=_cost(price, usage, saved),
    )


def delivered_tokens(
    seen: Observation, usage: Usage, departure: DepartureCost | None
) -> int | None:
    """How much of the billed output its caller was sent, hidden reasoning included.

    None where that is not known to be less than all.
    """
    output = usage.output_tokens
    if output is None:
        return None
    if departure is not None:
        missed = departure.undelivered
        return None if missed is None else output.best - missed.best
    if seen.output is None or seen.phase >= Phase.FINISHED or output.basis >= Basis.REPORTED:
        return None
    told = seen.reported.output_tokens if seen.reported is not None else None
    return min(output.best, max(seen.output.total + _hidden(seen, usage), told or 0))


def _hidden(seen: Observation, usage: Usage) -> int:
    """Reasoning that is billed and never shown: it is no part of what a caller misses."""
    reasoning = usage.output_reasoning_tokens
    return reasoning.best if reasoning is not None and not seen.reasoning_seen else 0


def _beyond(output: Quantity, delivered: OutputCounts, hidden: int) -> Quantity:
    """The output beyond what was delivered; how that was counted bounds how well it is known."""
    given, spread = delivered.total + hidden, delivered.spread
    return Quantity(
        max(0, output.low - given - spread),
        max(0, output.best - given),
        max(0, output.high - given + spread),
        min(output.basis, Basis.COUNTED),
    )


def _saved(call: OpenCall, departure: Departure, undelivered: Quantity | None) -> Quantity:
    """What was expected to come and is not generated, as far as the provider stops."""
    was_ours = departure.done is not Done.DRAINED and departure.cut_by is not Cut.UPSTREAM
    if not was_ours or call.after_cancel is AfterCancel.BILLS_WHOLE:
        return _NOTHING
    rest, come = departure.rest, undelivered or _NOTHING
    best, high = max(0, rest.best - come.best), max(0, rest.high - come.low)
    return Quantity(0, min(best, high), high, Basis.ASSUMED)


def _cost(price: Price | None, usage: Usage, tokens: Quantity | None) -> Cost | None:
    if price is None or tokens is None:
        return None
    read = usage.input_tokens.best if usage.input_tokens is not None else 0
    return output_cost(price, read, tokens)


def _free(price: Price | None) -> Cost | None:
    return None if price is None else Cost(0, 0, 0)
