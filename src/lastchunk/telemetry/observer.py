"""Who is told of calls: an observer hears of each settlement once, after it is durable."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lastchunk.pricing.cost import Cost
from lastchunk.settlement.facts import OpenCall, Settlement

log = logging.getLogger("lastchunk")


@dataclass(frozen=True, slots=True)
class Difference:
    """What a correction changed. Signed: tokens by kind, nano-dollars; None: unchanged."""

    tokens: tuple[tuple[str, int], ...]
    cost: Cost | None
    charge_nano: int | None


class Observer(Protocol):
    """Told on the thread that opens (`opened`), and on the accountant's or recovery's (the rest).

    Must be quick and must not wait: what it raises is logged and goes no further.
    """

    def opened(self, call: OpenCall) -> None: ...

    def settled(self, call: OpenCall, settlement: Settlement) -> None: ...

    def corrected(self, call: OpenCall, difference: Difference) -> None: ...


class Observers:
    """All observers of one bookkeeper, as one that never raises."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = tuple(observers)

    def opened(self, call: OpenCall) -> None:
        for observer in self._observers:
            self._tell(lambda told=observer: told.opened(call))  # type: ignore[misc]

    def settled(self, call: OpenCall, settlement: Settlement) -> None:
        for observer in self._observers:
            self._tell(lambda told=observer: told.settled(call, settlement))  # type: ignore[misc]

    def corrected(self, call: OpenCall, difference: Difference) -> None:
        for observer in self._observers:
            self._tell(lambda told=observer: told.corrected(call, difference))  # type: ignore[misc]

    def _tell(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:  # the border where accounting must live on
            log.error("an observer of calls failed (%s)", type(error).__name__)
