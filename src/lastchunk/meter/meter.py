"""Watches one call: wire bytes in, an observation out. No I/O, no clock, no threads of its own."""

from __future__ import annotations

from operator import methodcaller

from lastchunk.meter.evidence import Evidence, OutputText
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.wire.chat import ChatReader
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.encoding import Decoder, UndecodableError, decoder_for
from lastchunk.wire.events import (
    Event,
    ReasoningArrived,
    TextArrived,
    ToolTextArrived,
    Unreadable,
)
from lastchunk.wire.quiet import END_BYTES, Lane
from lastchunk.wire.request import CallRequest
from lastchunk.wire.responses import ResponsesReader
from lastchunk.wire.sse import Oversized, SseReader

UNREAD_BYTES_LIMIT = 128 * 1024
"""Bytes that may wait unread. A call whose usage arrives is hardly ever read more than its end."""

_FINISH_KEY, _A_STRING = b'h_reason":', (b'"', b' "')
_USAGE_KEY, _AN_OBJECT = b'usage":', (b"{", b" {")

_FRAMES_IN = methodcaller("count", b"\n\n")

_LONGEST_MARK = len(b'finish_reason": "')
"""A mark may be cut by the edge of a piece: so much of the piece before is looked at again."""

BODY_BYTES_LIMIT = 32 * 1024 * 1024
"""The largest answer that is kept to be read whole, when it is not streamed."""

KEPT_CHARS_LIMIT = 4 * 1024 * 1024
"""Output characters kept for counting; the counter takes them away about once a second."""


class Meter:
    """Collects the evidence about one call.

    `receive` is cheap: bytes wait unread until too many wait or somebody asks. A piece that may
    hold what matters at once (usage, a finish, the end) is read ahead of those before it, for that
    alone; if it settles the account, what waits is never read. Any cut of the same bytes into
    pieces leads to the same observation, but for the number of frames that wait: those are told
    by their ends.
    """

    def __init__(self, request: CallRequest, lane: Lane | None = None) -> None:
        """`lane`: what keeps the bytes that wait, shared with whoever brings them."""
        self._lane = lane or Lane(lambda: 0.0)
        self._lane.most_bytes = UNREAD_BYTES_LIMIT
        self._stream = request.stream
        self._dialect = request.dialect
        self._evidence = Evidence(request.choices)
        self._ahead: Evidence | None = None
        self._reader = self._new_reader()
        self._sse: SseReader | None = None
        self._decoder: Decoder | None = None
        self._waiting_pieces = 0
        self._waiting_frames = 0
        self._last_read = b""
        self._edge = b""
        self._in_marked_frame = False
        self._texts: list[OutputText] = []
        self._kept_chars = 0
        self._whole = False
        self._ended = False
        self._status: int | None = None
        self._frames = 0
        self._uncounted_chars = 0
        self.output_bytes = 0
        """Of the output that was read so far, as text in UTF-8."""
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

    def receive(self, piece: bytes, at_ms: int) -> bool:
        """The next bytes of the body as they came over the wire. False: they only wait."""
        try:
            return self._receive(piece, at_ms)
        finally:
            self._lane.is_calm = piece.endswith(b"\n\n") and self._can_wait()

    def _receive(self, piece: bytes, at_ms: int) -> bool:
        if self._first_byte_ms is None:
            self._first_byte_ms = at_ms
        self._last_byte_ms = at_ms
        self._lane.total_bytes += len(piece)
        if self._decoder is not None:
            piece = self._decoded(piece)
        self._lane.put(piece)
        phase = self._evidence.phase
        if self._whole:
            self._bound_body()
        elif (
            phase < Phase.STREAMING
            or phase is Phase.REPORTED
            or self._lane.waiting_bytes() > UNREAD_BYTES_LIMIT
        ):
            self.read()
        elif self._is_marked(piece):
            self._read_ahead(piece)
        else:
            return False
        return True

    def _can_wait(self) -> bool:
        between = not (self._edge or self._in_marked_frame or self._whole or self._decoder)
        return between and Phase.STREAMING <= self._evidence.phase < Phase.REPORTED

    def _is_marked(self, piece: bytes) -> bool:
        """Whether a frame that may matter at once is in this piece, or goes on in it."""
        text = self._edge + piece if self._edge else piece
        if not (
            self._in_marked_frame
            or _holds(text, _FINISH_KEY, _A_STRING)
            or (_holds(text, _USAGE_KEY, _AN_OBJECT) and self._usage_matters(text))
            or text.rfind(b"[DONE]", -END_BYTES) >= 0
        ):
            self._edge = b"" if piece.endswith(b"\n") else text[-_LONGEST_MARK:]
            return False
        self._edge = b""
        self._in_marked_frame = not piece.endswith((b"\n\n", b"\r\n\r\n"))
        return True

    def _usage_matters(self, text: bytes) -> bool:
        """Whether usage in this piece may settle the account: running usage can wait."""
        if (self._ahead or self._evidence).phase >= Phase.FINISHED:
            return True
        running = b'"choices":[{' in text or b'"choices": [{' in text
        return not running or b'"choices":[]' in text or b'"choices": []' in text

    def read(self) -> None:
        """Read what waits, in order. A whole, not streamed answer is read at its end only."""
        self._ahead = None
        if self._whole or not self._lane.pieces:
            return
        data = b"".join(self._lane.take())
        self._waiting_pieces = self._waiting_frames = 0
        self._last_read = data[-4:]
        if self._sse is None:
            if data.lstrip()[:1] in (b"{", b"["):  # an answer without a content type
                self._whole = True
                self._lane.put(data)
                return
            self._sse = SseReader()
        for frame in self._sse.feed(data):
            if isinstance(frame, Oversized):
                self._evidence.fold(Unreadable(frame.size))
                continue
            self._frames += 1
            for event in self._reader.read(frame.name, frame.data):
                self._fold(event)
        self._lane.is_calm = self._lane.is_calm and self._can_wait()

    def _read_ahead(self, piece: bytes) -> None:
        """Read one piece for what it shows besides output; it waits all the same.

        Only where it begins and ends with a frame: else everything is read, in order.
        """
        waiting = self._lane.pieces
        before = waiting[-2] if len(waiting) > 1 else self._last_read
        if not (piece.endswith(b"\n\n") and before.endswith(b"\n\n")):
            self.read()
            return
        ahead = self._ahead or self._evidence.copy()
        reader = self._new_reader()
        for frame in SseReader().feed(piece):
            if isinstance(frame, Oversized):
                continue
            for event in reader.read(frame.name, frame.data):
                if not isinstance(event, (TextArrived, ReasoningArrived, ToolTextArrived)):
                    ahead.fold(event)
        self._ahead = ahead
        if ahead.phase is Phase.REPORTED and not ahead.is_conclusive:
            self.read()  # whether it was the usage so far is told by the output around it

    def _new_reader(self) -> ChatReader | ResponsesReader:
        return ResponsesReader() if self._dialect is Dialect.RESPONSES else ChatReader()

    def finish(self) -> None:
        """No more bytes will come: read all that is left, unless the account is settled."""
        if self._ended or self.is_conclusive:
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
    def finished(self) -> frozenset[int]:
        """The choices whose finish was seen, by number."""
        return (self._ahead or self._evidence).finished

    @property
    def awaits_usage(self) -> bool:
        """The finish was seen and nothing but the usage is missing."""
        return (self._ahead or self._evidence).awaits_usage

    @property
    def is_conclusive(self) -> bool:
        """Nothing that can still come would change the account."""
        return (self._ahead or self._evidence).is_conclusive

    @property
    def backlog(self) -> int:
        """What is kept until somebody reads and counts it, in bytes and characters."""
        return self._lane.waiting_bytes() + self._kept_chars

    @property
    def frames_read(self) -> int:
        """Frames that wait no longer: the output in them is in the texts."""
        return self._frames

    def _count_waiting_frames(self) -> int:
        """Frames among the bytes that wait unread, as their ends are found in each piece."""
        if self._whole:
            return 0
        new = self._lane.pieces[self._waiting_pieces :]
        self._waiting_frames += sum(map(_FRAMES_IN, new))
        self._waiting_pieces += len(new)
        return self._waiting_frames

    def take_texts(self) -> list[OutputText]:
        """The output that arrived since this was last asked, for counting; it is kept no longer."""
        texts, self._texts, self._kept_chars = self._texts, [], 0
        return texts

    def drop_content(self) -> None:
        """Keep no output and no bytes any longer."""
        self._texts, self._ahead = [], None
        self._lane.take()
        self._kept_chars = self._waiting_pieces = self._waiting_frames = 0

    def note_fault(self, name: str) -> None:
        """A trouble of our own with this call, by name."""
        if name not in self._faults:
            self._faults.append(name)

    def observe(self, at_ms: int) -> Observation:
        """All that was read so far, ahead included; nothing in it is counted yet."""
        known = self._ahead or self._evidence
        response_id, model, tier = known.names
        return Observation(
            phase=known.phase,
            status=self._status,
            response_id=response_id,
            model_served=model,
            tier_served=tier,
            frames=self._frames + self._count_waiting_frames(),
            bytes=self._lane.total_bytes,
            unreadable=known.unreadable,
            finished_choices=len(known.finished),
            refused_choices=len(known.refused),
            finish_reason=known.finish_reason,
            reasoning_seen=known.reasoning_seen,
            reported=known.reported,
            reported_is_final=known.reported_is_final,
            failure_code=known.failure_code,
            uncounted_chars=self._uncounted_chars,
            first_byte_ms=self._first_byte_ms,
            first_token_ms=self._first_token_ms,
            last_byte_ms=self._heard_ms(),
            observed_ms=at_ms,
            faults=tuple(self._faults),
        )

    def _heard_ms(self) -> int | None:
        """When the last piece came, by whichever way."""
        last = self._last_byte_ms
        return None if last is None else max(last, self._lane.heard_ms())

    # How it becomes known.

    def _fold(self, event: Event) -> None:
        if isinstance(event, (TextArrived, ToolTextArrived, ReasoningArrived)):
            self._keep(event)
        else:
            self._evidence.fold(event)

    def _keep(self, event: OutputText) -> None:
        if self._first_token_ms is None:
            self._first_token_ms = self._heard_ms()
        self._evidence.note(event)
        text = event.name + event.arguments if isinstance(event, ToolTextArrived) else event.text
        size = len(text)
        self.output_bytes += size if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
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
        if self._lane.waiting_bytes() > BODY_BYTES_LIMIT:
            self._lane.put(b"".join(self._lane.take())[-UNREAD_BYTES_LIMIT:])
            self.note_fault("body_over_limit")

    def _read_body(self) -> None:
        body = b"".join(self._lane.take())
        if not body:
            return
        if body.lstrip()[:5] in (b"data:", b"event"):  # a stream under another content type
            self._whole, self._sse = False, SseReader()
            self._lane.put(body)
            self._ended = False
            self.finish()
            return
        self._frames += 1
        for event in self._reader.read_body(body):
            self._fold(event)


def _holds(text: bytes, key: bytes, values: tuple[bytes, ...]) -> bool:
    """Whether this key stands in the text with one of these beginnings of a value."""
    at = text.rfind(key)  # these keys stand near the end of a frame
    while at >= 0:
        if text.startswith(values, at + len(key)):
            return True
        at = text.rfind(key, 0, at)
    return False


class _Nothing:
    """Decodes to nothing, once the encoding could not be followed."""

    def decode(self, piece: bytes) -> bytes:
        return b""
