"""Watches one call: wire bytes in, an observation out. No I/O, no clock, no threads."""

from __future__ import annotations

from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase, after
from lastchunk.usage import TokenCounts
from lastchunk.wire.chat import ChatReader
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.encoding import Decoder, UndecodableError, decoder_for
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
from lastchunk.wire.request import CallRequest
from lastchunk.wire.responses import ResponsesReader
from lastchunk.wire.sse import Oversized, SseReader

UNREAD_BYTES_LIMIT = 64 * 1024
"""Bytes that may wait unread. A call whose usage arrives is hardly ever read more than its end."""

BODY_BYTES_LIMIT = 32 * 1024 * 1024
"""The largest answer that is kept to be read whole, when it is not streamed."""

KEPT_CHARS_LIMIT = 4 * 1024 * 1024
"""Output characters kept for counting; the counter takes them away about once a second."""

OutputText = TextArrived | ReasoningArrived | ToolTextArrived


class Meter:
    """Collects the evidence about one call.

    `receive` is cheap: bytes are kept and read only when they may hold something that matters at
    once (usage, a finish, the end), when too many wait, or when somebody asks. Any cut of the same
    bytes into pieces leads to the same observation.
    """

    def __init__(self, request: CallRequest) -> None:
        self._choices = request.choices
        self._stream = request.stream
        responses = request.dialect is Dialect.RESPONSES
        self._reader: ChatReader | ResponsesReader = (
            ResponsesReader() if responses else ChatReader()
        )
        self._sse: SseReader | None = None
        self._decoder: Decoder | None = None
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._texts: list[OutputText] = []
        self._kept_chars = 0
        self._finished: set[int] = set()
        self._refused: set[int] = set()
        self._whole = False
        self._ended = False
        self.phase = Phase.SENT
        self.reported: TokenCounts | None = None
        self._reported_is_final = False
        self._own_usage_frame = False
        self._status: int | None = None
        self._names: tuple[str | None, str | None, str | None] = (None, None, None)
        self._frames = 0
        self._bytes = 0
        self._unreadable = 0
        self._uncounted_chars = 0
        self._finish_reason: str | None = None
        self._failure_code: str | None = None
        self._reasoning_seen = False
        self._first_byte_ms: int | None = None
        self._first_token_ms: int | None = None
        self._last_byte_ms: int | None = None
        self._faults: list[str] = []

    # What the way in tells.

    def headed(self, status: int, content_type: str | None, content_encoding: str | None) -> None:
        """The response's head came in."""
        self._status = status
        self._decoder = decoder_for(content_encoding)
        kind = (content_type or "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            self._sse = SseReader()
        elif kind == "application/json" or not self._stream or status >= 300:
            self._whole = True

    def receive(self, piece: bytes, at_ms: int) -> None:
        """The next bytes of the body as they came over the wire."""
        if self._first_byte_ms is None:
            self._first_byte_ms = at_ms
        self._last_byte_ms = at_ms
        self._bytes += len(piece)
        if self._decoder is not None:
            piece = self._decoded(piece)
        self._unread.append(piece)
        self._unread_bytes += len(piece)
        if self._whole:
            self._bound_body()
        elif (
            b'finish_reason":"' in piece
            or b'usage":{' in piece
            or b"[DONE]" in piece
            or b'usage": {' in piece
            or b'finish_reason": "' in piece
            or self.phase < Phase.STREAMING
            or self._unread_bytes > UNREAD_BYTES_LIMIT
        ):
            self.read()

    def read(self) -> None:
        """Read what waits. A whole, not streamed answer is read at its end only."""
        if self._whole or not self._unread:
            return
        data = b"".join(self._unread)
        self._unread.clear()
        self._unread_bytes = 0
        if self._sse is None:
            if data.lstrip()[:1] in (b"{", b"["):  # an answer without a content type
                self._whole = True
                self._unread.append(data)
                self._unread_bytes = len(data)
                return
            self._sse = SseReader()
        for frame in self._sse.feed(data):
            if isinstance(frame, Oversized):
                self._fold(Unreadable(frame.size))
                continue
            self._frames += 1
            for event in self._reader.read(frame.name, frame.data):
                self._fold(event)

    def finish(self) -> None:
        """No more bytes will come: read all that is left."""
        if self._ended:
            return
        self.read()
        self._ended = True
        if self._whole:
            self._read_body()
        elif self._sse is not None and (frame := self._sse.rest()) is not None:
            for event in self._reader.read(frame.name, frame.data):
                if not isinstance(event, Unreadable):  # a frame cut short is no fault of anybody
                    self._fold(event)

    # What is known.

    @property
    def awaits_usage(self) -> bool:
        """The finish was seen and nothing but the usage is missing."""
        return self.phase is Phase.FINISHED

    @property
    def is_conclusive(self) -> bool:
        """Nothing that can still come would change the account."""
        reported = self._reported_is_final and self.phase in (Phase.REPORTED, Phase.TERMINATED)
        return reported and (self._own_usage_frame or self.phase is Phase.TERMINATED)

    def take_texts(self) -> list[OutputText]:
        """The output that arrived since this was last asked, for counting; it is kept no longer."""
        texts, self._texts, self._kept_chars = self._texts, [], 0
        return texts

    def note_fault(self, name: str) -> None:
        """A trouble of our own with this call, by name."""
        if name not in self._faults:
            self._faults.append(name)

    def observe(self, at_ms: int) -> Observation:
        """All that was read so far; nothing in it is counted yet."""
        response_id, model, tier = self._names
        return Observation(
            phase=self.phase,
            status=self._status,
            response_id=response_id,
            model_served=model,
            tier_served=tier,
            frames=self._frames,
            bytes=self._bytes,
            unreadable=self._unreadable,
            finished_choices=len(self._finished),
            refused_choices=len(self._refused),
            finish_reason=self._finish_reason,
            reasoning_seen=self._reasoning_seen,
            reported=self.reported,
            reported_is_final=self._reported_is_final,
            failure_code=self._failure_code,
            uncounted_chars=self._uncounted_chars,
            first_byte_ms=self._first_byte_ms,
            first_token_ms=self._first_token_ms,
            last_byte_ms=self._last_byte_ms,
            observed_ms=at_ms,
            faults=tuple(self._faults),
        )

    # How it becomes known.

    def _fold(self, event: Event) -> None:
        match event:
            case TextArrived() | ReasoningArrived() | ToolTextArrived():
                self._keep(event)
            case ResponseNamed():
                fresh = (event.response_id, event.model, event.service_tier)
                self._names = _latest(self._names, fresh)
            case ChoiceFinished():
                self._finished.add(event.choice)
                self._finish_reason = event.reason[:100]
                if len(self._finished) < self._choices:
                    return
            case UsageReported():
                self.reported = event.counts
                self._own_usage_frame = event.final
                self._reported_is_final = event.final or self.phase >= Phase.FINISHED
                if not self._reported_is_final:
                    return
            case Terminated():
                self._reported_is_final = self.reported is not None
            case ProviderFailed():
                self._failure_code = event.code
            case Unreadable():
                self._unreadable += 1
        self.phase = after(self.phase, event)

    def _keep(self, event: OutputText) -> None:
        if self._first_token_ms is None:
            self._first_token_ms = self._last_byte_ms
        if self.phase is Phase.REPORTED and len(self._finished) < self._choices:
            self.phase, self._reported_is_final = Phase.STREAMING, False
        if isinstance(event, ReasoningArrived):
            self._reasoning_seen = True
        elif isinstance(event, TextArrived) and event.kind is TextKind.REFUSAL:
            self._refused.add(event.choice)
        size = (
            len(event.name) + len(event.arguments)
            if isinstance(event, ToolTextArrived)
            else len(event.text)
        )
        if self._kept_chars + size > KEPT_CHARS_LIMIT:
            self._uncounted_chars += size
            return
        self._kept_chars += size
        self._texts.append(event)

    def _decoded(self, piece: bytes) -> bytes:
        assert self._decoder is not None
        try:
            return self._decoder.decode(piece)
        except UndecodableError:
            self._decoder = _Nothing()
            self.note_fault("undecodable_encoding")
            return b""

    def _bound_body(self) -> None:
        """Beyond the limit only the end is kept: usage stands at the end of an answer."""
        if self._unread_bytes > BODY_BYTES_LIMIT:
            tail = b"".join(self._unread)[-UNREAD_BYTES_LIMIT:]
            self._unread, self._unread_bytes = [tail], len(tail)
            self.note_fault("body_over_limit")

    def _read_body(self) -> None:
        body = b"".join(self._unread)
        self._unread.clear()
        if not body:
            return
        if body.lstrip()[:5] in (b"data:", b"event"):  # a stream under another content type
            self._whole, self._sse = False, SseReader()
            self._unread, self._ended = [body], False
            self.finish()
            return
        self._frames += 1
        for event in self._reader.read_body(body):
            self._fold(event)


class _Nothing:
    """Decodes to nothing, once the encoding could not be followed."""

    def decode(self, piece: bytes) -> bytes:
        return b""


def _latest(
    known: tuple[str | None, str | None, str | None],
    fresh: tuple[str | None, str | None, str | None],
) -> tuple[str | None, str | None, str | None]:
    """Each name as last given; an id as first given: a usage chunk's may be empty or another."""
    return (known[0] or fresh[0], fresh[1] or known[1], fresh[2] or known[2])
