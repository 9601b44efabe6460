"""A process that serves streams: what would make it pause is done before it begins."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Coroutine

from lastchunk.tokens.encodings import warm

COLLECTOR_THRESHOLDS = (10_000, 20, 20)
"""Streams leave few cycles behind: the default looks for them after every 700 new objects."""

SWITCH_SECONDS = 0.001
"""How long the event loop may keep the interpreter from the threads that write and settle: each
time it is handed over a reservation may have to wait so long. Python's own is 5 ms."""


def settle_in() -> None:
    """Load what is loaded once, and spare it the collector.

    A whole collection of what a gateway has imported takes 0.07 s, the first use of a vocabulary
    0.1 s, and meanwhile no stream goes on. (The older models' vocabulary would be 29 MB more.)
    """
    warm()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    sys.setswitchinterval(SWITCH_SECONDS)


def run(main: Coroutine[object, object, None]) -> None:
    """With uvloop, where there is one."""
    if sys.platform == "win32":
        asyncio.run(main)
        return
    import uvloop  # noqa: PLC0415 - it does not exist on Windows

    uvloop.run(main)
