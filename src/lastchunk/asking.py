"""Which upstreams may be asked for the usage chunk, learned from their refusals."""

from __future__ import annotations

import threading

from lastchunk.wire.request import Body, CallRequest, ask_for_usage

REMEMBERED_UPSTREAMS = 1024
"""Upstreams times models that are remembered to have refused; the oldest is forgotten first."""


class UsageAsking:
    """Asks for usage where the caller did not, and never twice where it was refused."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, str], None] = {}
        self._lock = threading.Lock()

    def ask(self, request: CallRequest, raw: bytes, body: Body) -> bytes | None:
        """The body that asks for usage; None where it needs no asking or must not be asked."""
        if request.usage_requested or (request.upstream, request.model) in self._refused:
            return None
        return ask_for_usage(raw, body)

    def refused(self, request: CallRequest) -> None:
        """This upstream answers 400 when asked, for this model."""
        with self._lock:
            self._refused[(request.upstream, request.model)] = None
            while len(self._refused) > REMEMBERED_UPSTREAMS:
                del self._refused[next(iter(self._refused))]


def is_refusal_to_tell(status: int, answer: bytes) -> bool:
    """Whether an error answer says that the upstream does not know `stream_options`."""
    return status in (400, 422) and (b"stream_options" in answer or b"include_usage" in answer)
