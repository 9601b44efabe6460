"""What is written down for good: the only SQL."""

from lastchunk.ledger.audit import verify
from lastchunk.ledger.calls import CallFilter
from lastchunk.ledger.conduct import Conduct
from lastchunk.ledger.entries import Correction, Entry, EntryKind
from lastchunk.ledger.in_flight import Orphan
from lastchunk.ledger.ledger import Ledger
from lastchunk.ledger.outage import LedgerHealth
from lastchunk.ledger.reader import CallRecord, Reader
from lastchunk.ledger.spend import SpendRow
from lastchunk.ledger.spool import SpoolOptions, default_folder

__all__ = [
    "CallFilter",
    "CallRecord",
    "Conduct",
    "Correction",
    "Entry",
    "EntryKind",
    "Ledger",
    "LedgerHealth",
    "Orphan",
    "Reader",
    "SpendRow",
    "SpoolOptions",
    "default_folder",
    "verify",
]
