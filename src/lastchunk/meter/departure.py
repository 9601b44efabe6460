"""The caller left before the end: what was done about it, and why. Storable, without content."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lastchunk.usage import OutputCounts, Quantity


class AfterCancel(StrEnum):
    """What a provider does, and bills, when its client leaves in mid-answer."""

    STOPS = "stops"
    """It stops generating, and billing, within a moment."""
    BILLS_WHOLE = "bills_whole"
    """It generates the whole answer and bills it."""
    UNKNOWN = "unknown"
    """Nobody has said."""


class LeavePolicy(StrEnum):
    """What is to be done when a caller leaves."""

    CANCEL = "cancel"
    """Stop the upstream at once, and count."""
    DRAIN = "drain"
    """Read on to the end: the usage is reported, the rest is generated."""
    CHEAPER = "cheaper"
    """Drain where the rest is billed anyway or is expected to cost less than a threshold."""


class Done(StrEnum):
    """What was done when the caller had left."""

    CANCELLED = "cancelled"
    """The upstream was stopped."""
    DRAINING = "draining"
    """It is being read on."""
    DRAINED = "drained"
    """It was read to its end."""
    CUT = "cut"
    """It was read on, but not to its end."""


class Why(StrEnum):
    """Why it was cancelled or drained."""

    POLICY_SAYS = "policy_says"
    """A row of the settings says so."""
    PROVIDER_STOPS = "provider_stops"
    """The provider stops when it is cancelled: what is not generated is not billed."""
    PROVIDER_UNKNOWN = "provider_unknown"
    """Nobody knows what this provider does: it is cancelled."""
    BILLED_ANYWAY = "billed_anyway"
    """The rest is billed, read or not: reading it costs nothing more."""
    COSTS_LESS = "costs_less"
    """The rest is expected to cost less than the threshold."""
    COSTS_MORE = "costs_more"
    """The rest is expected to cost as much as the threshold, or more."""
    UNPRICED = "unpriced"
    """Nobody knows what the rest costs: no price is known."""
    TOO_MANY_DRAINS = "too_many_drains"
    """As many drains as are allowed were under way."""
    CANNOT_READ_ON = "cannot_read_on"
    """There was nothing to read on from, or nobody to do it."""
    PROCESS_ENDED = "process_ended"
    """The process was about to end."""


class Cut(StrEnum):
    """What ended a drain before the end."""

    SECONDS = "seconds"
    BYTES = "bytes"
    TOKENS = "tokens"
    UPSTREAM = "upstream"
    """The upstream's stream ended or broke, or failed."""
    SHUTDOWN = "shutdown"
    """The process, or the event loop, ended."""
    PROCESS_DIED = "process_died"


@dataclass(frozen=True, slots=True)
class Departure:
    """The caller left when output could still come.

    `rule` names the row of the settings, or of the built-in table, that decided. `rest` is how many
    tokens of output could still come then, as was expected. `delivered` is the output that had been
    handed to the caller, by kind; None while nobody has counted it. `left_ms` is Unix milliseconds.
    """

    done: Done
    why: Why
    policy: LeavePolicy
    rule: str
    left_ms: int
    rest: Quantity
    delivered: OutputCounts | None = None
    cut_by: Cut | None = None
