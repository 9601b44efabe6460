"""The only clock: everything else is told what time it is."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings: one to write down, one to measure with."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        ...

    def elapsed(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def elapsed(self) -> float:
        return time.monotonic()


def day_of(moment_ms: int) -> str:
    """The UTC day of a moment in Unix milliseconds, as `YYYY-MM-DD`."""
    return time.strftime("%Y-%m-%d", time.gmtime(moment_ms / 1000))
