"""Budgets and rate limits: who may still spend. Pure; the ledger decides nothing, it only sums.

Limit        so much money, tokens, requests or open streams, an account path and a span of time
span_of      the calendar: minute to month in the operator's time zone
Admission    one call against all limits above it, asked inside the ledger's transaction
alerts       accounts whose callers leave too much unread, or unpaid
Purse        what an open call holds, while its answer comes, and when it must stop
Habits       what such calls come to as a rule: what `balanced` limits hold for a call
"""

from lastchunk.limits.admission import Admission, Refused, Standing
from lastchunk.limits.calendar import Per, span_of
from lastchunk.limits.conduct import NO_THRESHOLDS, Alert, Sign, Thresholds, alerts
from lastchunk.limits.habits import Habits
from lastchunk.limits.limit import Limit, Mode, Unit
from lastchunk.limits.purse import Purse, Terms, expect, is_balanced

__all__ = [
    "NO_THRESHOLDS",
    "Admission",
    "Alert",
    "Habits",
    "Limit",
    "Mode",
    "Per",
    "Purse",
    "Refused",
    "Sign",
    "Standing",
    "Terms",
    "Thresholds",
    "Unit",
    "alerts",
    "expect",
    "is_balanced",
    "span_of",
]
