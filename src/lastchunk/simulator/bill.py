"""The true bill: what each call cost its provider, whether or not anybody was told."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lastchunk.simulator.provider_counts import Json
from lastchunk.simulator.script import Script


@dataclass(frozen=True, slots=True)
class BilledCall:
    """One attempt as the provider saw it.

    `output_tokens` = len(output_ids) + end_of_turn, and `output_ids` include hidden reasoning,
    a call's opening and what was generated after the cut. `delivered_tokens` were written to the
    socket in whole frames. `usage` is what was reported, or would have been. A refused request
    (`billed` False) costs nothing. `ended` is "completed", "client_gone", "refused", "shutdown"
    or "fault:<kind>".
    """

    call: int
    at: float
    endpoint: str
    model_asked: str
    model_served: str
    service_tier: str
    streamed: bool
    status: int
    billed: bool
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    end_of_turn: int
    output_ids: tuple[int, ...]
    delivered_tokens: int
    ended: str
    finish_reason: str | None
    usage: Json
    usage_sent: bool
    include_usage: bool
    retry_count: int
    tag: str | None
    response_id: str | None
    script: Script | None


class Bill:
    """All billed calls; written by the server's thread, read from any."""

    def __init__(self) -> None:
        self._calls: list[BilledCall] = []
        self._open = 0
        self._open_tags: list[str] = []
        self._held_tags: set[str] = set()
        self._changed = threading.Condition()

    @contextmanager
    def open_call(self, tag: str | None = None) -> Iterator[None]:
        """While a call is being answered, so that readers can wait for it."""
        told = tag or ""
        with self._changed:
            self._open += 1
            self._open_tags.append(told)
        try:
            yield
        finally:
            with self._changed:
                self._open -= 1
                self._open_tags.remove(told)
                self._held_tags.discard(told)
                self._changed.notify_all()

    def held(self, tag: str | None) -> None:
        """A call has come to its fault's moment and is held still there."""
        with self._changed:
            self._held_tags.add(tag or "")

    def under_way(self) -> Json:
        """Tags of the open calls, and of those among them that are held still."""
        with self._changed:
            return {"open": list(self._open_tags), "held": sorted(self._held_tags)}

    def add(self, call: BilledCall) -> None:
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()

    @property
    def open_calls(self) -> int:
        return self._open

    def calls(self) -> list[BilledCall]:
        """What is billed so far, in the order in which the calls came in."""
        with self._changed:
            return sorted(self._calls, key=lambda call: call.call)

    def wait_until_settled(self, seconds: float) -> bool:
        """Wait until no call is open; False if some still are."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._open and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self._open

    def clear(self) -> None:
        with self._changed:
            self._calls.clear()

    def as_json(self) -> Json:
        calls = self.calls()
        billed = [call for call in calls if call.billed]
        return {
            "calls": [billed_json(call) for call in calls],
            "open_calls": self._open,
            "totals": {
                "calls": len(calls),
                "billed_calls": len(billed),
                "prompt_tokens": sum(call.prompt_tokens for call in billed),
                "output_tokens": sum(call.output_tokens for call in billed),
                "delivered_tokens": sum(call.delivered_tokens for call in billed),
            },
        }


def billed_json(call: BilledCall) -> Json:
    return dataclasses.asdict(call)
