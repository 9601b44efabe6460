"""Token and cost accounting for LLM streams, also for those that never finish.

    request body  → CallRequest → Forecast → RESERVED, durable before a byte leaves
    response bytes → Frame → Event → Observation ─┐
    how it ended                       → Ending  ─┤
                                                  ▼
                                 settle → Settlement: usage, each number with its basis; cost
                                                  ▼
                                 SETTLED in the ledger → reports

Five words: a *call* is one request; an *ending* is how it ended; a *basis* is how a number is
known; a *settlement* is the one account of a call; the *ledger* keeps it for good.
"""

from lastchunk.errors import (
    CallNotFound,
    EntryConflict,
    LastchunkError,
    LedgerError,
    LedgerUnavailable,
    NotInstrumentable,
    SettingsError,
)
from lastchunk.instrument import close, exact, instrument, label, uninstrument, watch
from lastchunk.meter.ending import Ending
from lastchunk.pricing.cost import Cost
from lastchunk.settlement.facts import Charge, Settlement
from lastchunk.usage import Basis, Quantity, Usage

__version__ = "0.1.0"

__all__ = [
    "Basis",
    "CallNotFound",
    "Charge",
    "Cost",
    "Ending",
    "EntryConflict",
    "LastchunkError",
    "LedgerError",
    "LedgerUnavailable",
    "NotInstrumentable",
    "Quantity",
    "SettingsError",
    "Settlement",
    "Usage",
    "close",
    "exact",
    "instrument",
    "label",
    "uninstrument",
    "watch",
]
