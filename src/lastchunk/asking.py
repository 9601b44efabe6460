"""What an upstream is asked for beside what its caller asked: learned from its answers.

Usage once, at the end, costs nothing anywhere and is asked of everybody. Running usage, in each
chunk, is an extension of vLLM and its kin: a server that is not known to lack it is asked once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from lastchunk.wire.hide import UsageFrameHider
from lastchunk.wire.hide_running import RunningUsageHider
from lastchunk.wire.request import Body, CallRequest, ask_for_running_usage, ask_for_usage

REMEMBERED_UPSTREAMS = 1024
"""Upstreams times models whose answers are remembered; the oldest is forgotten first."""

_WITHOUT_RUNNING = ("openai.com", "openrouter.ai", "anthropic.com", "googleapis.com")
"""Hosts that refuse or ignore `continuous_usage_stats`; Azure's have names of their own."""


_RUNNING = b"continuous_usage_stats"


class Wish(IntEnum):
    """How much an upstream may be asked for."""

    NOTHING = 0
    """It refuses `stream_options`."""
    FINAL_USAGE = 1
    """The usage chunk."""
    RUNNING_USAGE = 2
    """The usage so far in each chunk, and the usage chunk."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request with what we ask for in it, and what is to be hidden from its caller then."""

    body: bytes
    running: bool
    caller_asked: bool
    noticed: Callable[[bool], None]

    def hider(self) -> UsageFrameHider:
        """A new one, for one answer."""
        if self.running:
            return RunningUsageHider(caller_asked=self.caller_asked, noticed=self.noticed)
        return UsageFrameHider()

    def is_refused(self, status: int, answer: bytes) -> bool:
        """Whether an error answer says that the upstream does not know what we asked for."""
        if status not in (400, 422):
            return False
        if self.caller_asked:  # all else in the options is the caller's own
            return _RUNNING in answer
        return any(name in answer for name in (b"stream_options", b"include_usage", _RUNNING))


class UsageAsking:
    """Asks for usage where the caller did not, and never again where it was refused."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Wish] = {}
        self._lock = threading.Lock()

    def ask(
        self, request: CallRequest, raw: bytes, body: Body, *, running: bool = True
    ) -> Question | None:
        """The body that asks; None where it needs no asking or must not be asked.

        `running` false: never for running usage.
        """
        if not request.stream:
            return None
        wish = self._wish(request)
        if running and wish is Wish.RUNNING_USAGE:
            asked = ask_for_running_usage(raw, body)
            if asked is not None:
                return Question(
                    asked, True, request.usage_requested, lambda told: self.noticed(request, told)
                )
        if request.usage_requested or wish is Wish.NOTHING:
            return None
        asked = ask_for_usage(raw, body)
        return None if asked is None else Question(asked, False, False, lambda _: None)

    def refused(self, request: CallRequest, question: Question, answer: bytes) -> None:
        """This upstream answers 400 when asked so, for this model: ask for less the next time."""
        knows_options = question.running and _RUNNING in answer
        self._lower(request, Wish.FINAL_USAGE if knows_options else Wish.NOTHING)

    def noticed(self, request: CallRequest, told: bool) -> None:
        """Whether running usage came where it was asked for: who ignores it is not asked again."""
        if not told:
            self._lower(request, Wish.FINAL_USAGE)

    def _wish(self, request: CallRequest) -> Wish:
        known = self._known.get((request.upstream, request.model))
        if known is not None:
            return known
        # With several choices vLLM's running usage is the one choice's: it is no sum.
        host = request.upstream.partition(":")[0]
        lacks = request.azure or request.choices > 1 or host.endswith(_WITHOUT_RUNNING)
        return Wish.FINAL_USAGE if lacks else Wish.RUNNING_USAGE

    def _lower(self, request: CallRequest, wish: Wish) -> None:
        with self._lock:
            key = (request.upstream, request.model)
            self._known[key] = min(wish, self._known.get(key, Wish.RUNNING_USAGE))
            while len(self._known) > REMEMBERED_UPSTREAMS:
                del self._known[next(iter(self._known))]
