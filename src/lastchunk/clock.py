"""The only clock: everything else is told what time it is."""

import time
from typing import Protocol


class Clock(Protocol):
    """Three readings: one to write down, two to measure with."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        ...

    def elapsed(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""
        ...

    def worked(self) -> float:
        """Seconds of a core that the calling thread has used; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    elapsed = staticmethod(time.monotonic)  # it is read for every chunk: one call less
    worked = staticmethod(time.thread_time)


def day_of(moment_ms: int) -> str:
    """The UTC day of a moment in Unix milliseconds, as `YYYY-MM-DD`."""
    return time.strftime("%Y-%m-%d", time.gmtime(moment_ms / 1000))
