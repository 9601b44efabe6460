"""The responses API: its events and whole answers."""

from __future__ import annotations

from typing import Any

import msgspec

from lastchunk.wire.chat import error_code, text_or_none
from lastchunk.wire.counts import read_counts
from lastchunk.wire.decode import decode_leniently
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


class _Part(msgspec.Struct):
    type: Any = None
    text: Any = None
    refusal: Any = None
    transcript: Any = None


class _Item(msgspec.Struct):
    type: Any = None
    name: Any = None
    arguments: Any = None
    input: Any = None
    code: Any = None
    content: list[_Part] | None = None
    summary: list[_Part] | None = None


class _Response(msgspec.Struct):
    id: Any = None
    model: Any = None
    service_tier: Any = None
    status: Any = None
    incomplete_details: Any = None
    usage: Any = None
    error: Any = None
    output: list[_Item] | None = None


class _ResponseEvent(msgspec.Struct):
    type: Any = None
    delta: Any = None
    output_index: Any = 0
    logprobs: Any = None
    item: _Item | None = None
    response: _Response | None = None
    code: Any = None
    error: Any = None


_decode_event = msgspec.json.Decoder(_ResponseEvent).decode
_decode_response = msgspec.json.Decoder(_Response).decode

_TEXT_DELTAS = {
    "response.output_text.delta": TextKind.CONTENT,
    "response.refusal.delta": TextKind.REFUSAL,
    "response.audio.transcript.delta": TextKind.TRANSCRIPT,
}
_REASONING_DELTAS = {
    "response.reasoning_text.delta": False,
    "response.reasoning_summary_text.delta": True,
}
_NOT_OUTPUT = {
    "response.audio.delta",
    "response.shell_call_output_content.delta",
}
"""Deltas that are not text of the model: sound in base64, and what a tool answered."""

_TERMINAL = {"response.completed", "response.incomplete", "response.failed"}


class ResponsesReader:
    """Reads the events of one call to the responses API."""

    __slots__ = ("_named_items", "_read_items")

    def __init__(self) -> None:
        self._named_items: set[int] = set()
        self._read_items: set[int] = set()

    def read(self, name: bytes, data: bytes) -> list[Event]:
        """The events of one frame."""
        if data.startswith(b"[DONE]"):
            return [Terminated()]
        event = decode_leniently(data, _decode_event, _ResponseEvent)
        if event is None:
            return [Unreadable(len(data))]
        kind = event.type if isinstance(event.type, str) else name.decode("ascii", "replace")
        if kind.endswith(".delta"):
            return self._read_delta(kind, event)
        if kind in _TERMINAL or kind == "response.cancelled":
            return self._read_response(event.response or _Response(), kind)
        if event.item is not None and kind.startswith("response.output_item."):
            return self._read_item(event.item, _index(event), done=kind.endswith(".done"))
        if kind == "error" or event.error:
            code = text_or_none(event.code) or error_code(event.error)
            return [ProviderFailed(code)]
        if event.response is not None:
            return [_named(event.response)]
        return []

    def read_body(self, body: bytes) -> list[Event]:
        """The events of a whole, not streamed answer."""
        response = decode_leniently(body, _decode_response, _Response)
        if response is None:
            return [Unreadable(len(body))]
        if response.error and response.output is None:
            return [ProviderFailed(error_code(response.error))]
        events: list[Event] = []
        for place, item in enumerate(response.output or ()):
            events += self._read_item(item, place, done=True)
        status = response.status if isinstance(response.status, str) else "completed"
        if status in ("queued", "in_progress"):
            return [_named(response), *events]  # it goes on in the background
        return [*events, *self._read_response(response, f"response.{status}")]

    def _read_delta(self, kind: str, event: _ResponseEvent) -> list[Event]:
        text = event.delta
        if not isinstance(text, str) or not text or kind in _NOT_OUTPUT:
            return []
        self._read_items.add(_index(event))
        if kind in _TEXT_DELTAS:
            logprobs = event.logprobs
            counted = len(logprobs) if isinstance(logprobs, list) and logprobs else None
            return [TextArrived(0, _TEXT_DELTAS[kind], text, counted)]
        if kind in _REASONING_DELTAS:
            return [ReasoningArrived(0, text, summary=_REASONING_DELTAS[kind])]
        return [ToolTextArrived(0, _index(event), "", text)]

    def _read_item(self, item: _Item, place: int, *, done: bool) -> list[Event]:
        """A call's name comes with its item; its text only where no delta brought it."""
        events: list[Event] = []
        if isinstance(item.name, str) and item.name and place not in self._named_items:
            self._named_items.add(place)
            events.append(ToolTextArrived(0, place, item.name, ""))
        if not done or place in self._read_items:
            return events
        self._read_items.add(place)
        for text in (item.arguments, item.input, item.code):
            if isinstance(text, str) and text:
                events.append(ToolTextArrived(0, place, "", text))
        for part in item.summary or ():
            if isinstance(part.text, str) and part.text:
                events.append(ReasoningArrived(0, part.text, summary=True))
        for part in item.content or ():
            events += _read_part(part, reasoning=item.type == "reasoning")
        return events

    def _read_response(self, response: _Response, kind: str) -> list[Event]:
        events: list[Event] = [_named(response)]
        counts = read_counts(response.usage)
        if kind == "response.failed":
            if counts is not None:
                events.append(UsageReported(counts, final=True))
            return [*events, ProviderFailed(error_code(response.error))]
        reason = kind.removeprefix("response.")
        if isinstance(response.incomplete_details, dict):
            reason = str(response.incomplete_details.get("reason", reason))[:100]
        events.append(ChoiceFinished(0, reason))
        if counts is not None:
            events.append(UsageReported(counts, final=True))
        return [*events, Terminated()]


def _read_part(part: _Part, *, reasoning: bool) -> list[Event]:
    if isinstance(part.text, str) and part.text:
        if reasoning:
            return [ReasoningArrived(0, part.text)]
        return [TextArrived(0, TextKind.CONTENT, part.text)]
    if isinstance(part.refusal, str) and part.refusal:
        return [TextArrived(0, TextKind.REFUSAL, part.refusal)]
    if isinstance(part.transcript, str) and part.transcript:
        return [TextArrived(0, TextKind.TRANSCRIPT, part.transcript)]
    return []


def _named(response: _Response) -> ResponseNamed:
    names = (response.id, response.model, response.service_tier)
    response_id, model, tier = (text_or_none(name) for name in names)
    return ResponseNamed(response_id, model, tier)


def _index(event: _ResponseEvent) -> int:
    return event.output_index if isinstance(event.output_index, int) else 0
