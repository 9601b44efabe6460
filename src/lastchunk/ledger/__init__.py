"""What is written down for good: the only SQL."""

from lastchunk.ledger.audit import verify
from lastchunk.ledger.calls import CallFilter
from lastchunk.ledger.entries import Entry, EntryKind
from lastchunk.ledger.in_flight import Orphan
from lastchunk.ledger.ledger import Ledger
from lastchunk.ledger.reader import CallRecord, Reader
from lastchunk.ledger.spend import SpendRow

__all__ = [
    "CallFilter",
    "CallRecord",
    "Entry",
    "EntryKind",
    "Ledger",
    "Orphan",
    "Reader",
    "SpendRow",
    "verify",
]
