"""What the events of one call have shown so far."""

from __future__ import annotations

from lastchunk.meter.phases import Phase, after
from lastchunk.usage import TokenCounts
from lastchunk.wire.events import (
    ChoiceFinished,
    Event,
    ProviderFailed,
    ReasoningArrived,
    ResponseNamed,
    Terminated,
    TextArrived,
    TextKind,
    ToolTextArrived,
    Unreadable,
    UsageReported,
)

OutputText = TextArrived | ReasoningArrived | ToolTextArrived

_Names = tuple[str | None, str | None, str | None]


class Evidence:
    """Events folded in the order in which they came; output only by its kind, not its text."""

    __slots__ = (
        "_choices",
        "_own_usage_frame",
        "failure_code",
        "finish_reason",
        "finished",
        "names",
        "phase",
        "reasoning_seen",
        "refused",
        "reported",
        "reported_is_final",
        "unreadable",
    )

    def __init__(self, choices: int) -> None:
        self._choices = choices
        self._own_usage_frame = False
        self.phase = Phase.SENT
        self.names: _Names = (None, None, None)
        self.finished: frozenset[int] = frozenset()
        self.refused: frozenset[int] = frozenset()
        self.finish_reason: str | None = None
        self.reasoning_seen = False
        self.reported: TokenCounts | None = None
        self.reported_is_final = False
        self.failure_code: str | None = None
        self.unreadable = 0

    @property
    def awaits_usage(self) -> bool:
        """The finish was seen and nothing but the usage is missing."""
        return self.phase is Phase.FINISHED

    @property
    def is_conclusive(self) -> bool:
        """Nothing that can still come would change the account."""
        if not self.reported_is_final:
            return False
        if self.phase is Phase.TERMINATED:
            return True
        finished = len(self.finished) >= self._choices
        return self.phase is Phase.REPORTED and self._own_usage_frame and finished

    def copy(self) -> Evidence:
        """The same evidence, to be folded on apart."""
        other = Evidence(self._choices)
        for name in Evidence.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def fold(self, event: Event) -> None:
        """Take in the next event."""
        match event:
            case TextArrived() | ReasoningArrived() | ToolTextArrived():
                self.note(event)
                return
            case ResponseNamed():
                fresh = (event.response_id, event.model, event.service_tier)
                self.names = _latest(self.names, fresh)
            case ChoiceFinished():
                self.finished |= {event.choice}
                self.finish_reason = event.reason[:100]
                if len(self.finished) < self._choices:
                    return
            case UsageReported():
                self.reported = event.counts
                self._own_usage_frame = event.final
                self.reported_is_final = event.final or self.phase >= Phase.FINISHED
                if not self.reported_is_final:
                    return
            case Terminated():
                self.reported_is_final = self.reported is not None
            case ProviderFailed():
                self.failure_code = event.code
            case Unreadable():
                self.unreadable += 1
        self.phase = after(self.phase, event)

    def note(self, event: OutputText) -> None:
        """Output arrived. After a report, and before the finish, it shows that more is to come."""
        if self.phase is Phase.REPORTED and len(self.finished) < self._choices:
            self.phase, self.reported_is_final = Phase.STREAMING, False
        if isinstance(event, ReasoningArrived):
            self.reasoning_seen = True
        elif isinstance(event, TextArrived) and event.kind is TextKind.REFUSAL:
            self.refused |= {event.choice}
        if self.phase < Phase.STREAMING:
            self.phase = after(self.phase, event)


def _latest(known: _Names, fresh: _Names) -> _Names:
    """Each name as last given; an id as first given: a usage chunk's may be empty or another."""
    return (known[0] or fresh[0], fresh[1] or known[1], fresh[2] or known[2])
