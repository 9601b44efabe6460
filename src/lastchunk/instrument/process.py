"""The bookkeepers of this process: one a ledger, opened when first needed, again after a fork."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable

from lastchunk.asking import UsageAsking
from lastchunk.bookkeeper import Bookkeeper, abandon_all
from lastchunk.instrument.grace import forget_keeper
from lastchunk.settings import Settings
from lastchunk.startup import open_books

log = logging.getLogger("lastchunk")

asking = UsageAsking()
"""What this process has learned about its upstreams."""

after_fork: list[Callable[[], None]] = []
"""What else a forked child has to forget."""

_bookkeepers: dict[str, Bookkeeper] = {}
_lock = threading.Lock()

_is_ending = False
_never = threading.Event()
"""What a daemon thread waits for that begins a call while the interpreter ends. In a moment it is
stopped wherever it is: a call that it sent before would be answered for nobody, and stay open."""


def bookkeeper_for(settings: Settings) -> Bookkeeper:
    """This process's bookkeeper on the ledger that the settings name.

    Raises LedgerUnavailable if it cannot be opened.
    """
    found = _bookkeepers.get(settings.ledger)
    if found is not None:
        return found
    with _lock:
        if not (_is_ending and threading.current_thread().daemon):
            if settings.ledger not in _bookkeepers:
                _bookkeepers[settings.ledger] = open_books(settings)
                _close_with_the_process()
            return _bookkeepers[settings.ledger]
    _never.wait()
    raise AssertionError("unreachable")


def close() -> None:
    """Settle what is open as left by its caller, and close the ledgers; a later call opens them."""
    with _lock:
        closing = list(_bookkeepers.values())
        _bookkeepers.clear()
    for bookkeeper in closing:
        bookkeeper.close()


def _end() -> None:
    """The interpreter ends. Threads that it waits for have ended; daemon threads still run."""
    global _is_ending
    with _lock:
        _is_ending = True
    close()


def _close_with_the_process() -> None:
    """A child made by multiprocessing leaves without `atexit`: it has finalizers of its own."""
    if (multiprocessing := sys.modules.get("multiprocessing.util")) is not None:
        multiprocessing.Finalize(None, _end, exitpriority=10)


def _forget_the_parents() -> None:
    global _lock, _is_ending
    _lock, _is_ending = threading.Lock(), False
    _bookkeepers.clear()
    abandon_all()
    forget_keeper()
    for forget in after_fork:
        forget()


atexit.register(_end)
os.register_at_fork(after_in_child=_forget_the_parents)
