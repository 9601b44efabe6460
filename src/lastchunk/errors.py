"""Every error that lastchunk raises, in one tree.

LastchunkError
├── SettingsError            a setting or file cannot be used; says which and why
├── LedgerError
│   ├── LedgerUnavailable    the ledger cannot be opened or written now
│   ├── EntryConflict        the same id was written before with other content
│   ├── CallNotFound         no call has that id
│   ├── AdjustmentRefused    a charge cannot be changed so; says why
│   ├── KeyNotFound          no key has that id, or it is not valid any more
│   └── CopyRefused          a ledger cannot be copied as things stand; says why
└── NotInstrumentable        the object given to `instrument` is no client we know
"""


class LastchunkError(Exception):
    """Base of all errors raised by lastchunk."""


class SettingsError(LastchunkError):
    """A setting or a settings file cannot be used."""


class LedgerError(LastchunkError):
    """Base of the ledger's errors."""


class LedgerUnavailable(LedgerError):
    """The ledger cannot be opened or written at the moment."""


class EntryConflict(LedgerError):
    """An entry with this id exists already, with other content."""


class CallNotFound(LedgerError):
    """No call in the ledger has this id."""


class AdjustmentRefused(LedgerError):
    """A call's charge cannot be changed so."""


class KeyNotFound(LedgerError):
    """No key in the ledger has this id, or it is not valid any more."""


class CopyRefused(LedgerError):
    """A ledger cannot be copied there as things stand."""


class NotInstrumentable(LastchunkError):
    """`instrument` was given something that is not a client it knows."""
