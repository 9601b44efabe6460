"""Chat completions and legacy completions: chunks and whole answers to events."""

from __future__ import annotations

from typing import Any

import msgspec

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

# Leaves are `Any`: providers put lists and objects where OpenAI has strings, and one odd leaf must
# not cost the chunk. Keys that are not named here are skipped by the decoder, obfuscation first.


class _Function(msgspec.Struct):
    name: Any = None
    arguments: Any = None


class _Custom(msgspec.Struct):
    name: Any = None
    input: Any = None


class _ToolCall(msgspec.Struct):
    index: Any = None
    function: _Function | None = None
    custom: _Custom | None = None


class _Audio(msgspec.Struct):
    transcript: Any = None


class _Delta(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    audio: _Audio | None = None


class _Logprobs(msgspec.Struct):
    content: list[msgspec.Raw] | None = None
    refusal: list[msgspec.Raw] | None = None
    tokens: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    index: Any = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    text: Any = None
    finish_reason: Any = None
    logprobs: _Logprobs | None = None
    usage: Any = None


class _Groq(msgspec.Struct):
    usage: Any = None
    error: Any = None


class _Chunk(msgspec.Struct):
    id: Any = None
    model: Any = None
    service_tier: Any = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: _Groq | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_NO_TEXT: tuple[object, ...] = (None, "", [])


class ChatReader:
    """Reads the frames of one chat or legacy completions call."""

    __slots__ = ("_named",)

    def __init__(self) -> None:
        self._named: tuple[object, object, object] | None = None

    def read(self, name: bytes, data: bytes) -> list[Event]:
        """The events of one frame."""
        if data.startswith(b"[DONE]"):
            return [Terminated()]
        chunk = decode_leniently(data, _decode_chunk, _Chunk)
        if chunk is None:
            return [ProviderFailed(None)] if name == b"error" else [Unreadable(len(data))]
        return self._events(chunk, failed=name == b"error")

    def read_body(self, body: bytes) -> list[Event]:
        """The events of a whole, not streamed answer."""
        chunk = decode_leniently(body, _decode_chunk, _Chunk)
        if chunk is None:
            return [Unreadable(len(body))]
        return [*self._events(chunk, failed=False), *_end_of_body(chunk)]

    def _events(self, chunk: _Chunk, *, failed: bool) -> list[Event]:
        events: list[Event] = []
        names = (chunk.id, chunk.model, chunk.service_tier)
        if names != self._named:
            self._named = names
            response_id, model, tier = (text_or_none(n) for n in names)
            events.append(ResponseNamed(response_id, model, tier))
        usage = chunk.usage
        for choice in chunk.choices or ():
            _read_choice(choice, events)
            usage = usage or choice.usage
        if chunk.x_groq is not None:
            usage = usage or chunk.x_groq.usage
            failed = failed or bool(chunk.x_groq.error)
        counts = read_counts(usage)
        if counts is not None:
            events.append(UsageReported(counts, final=not chunk.choices))
        if chunk.error or failed:
            events.append(ProviderFailed(error_code(chunk.error)))
        return events


def _end_of_body(chunk: _Chunk) -> list[Event]:
    """A whole answer is its own terminator, unless it holds neither choices nor usage."""
    return [Terminated()] if chunk.choices is not None or chunk.usage else []


def _read_choice(choice: _Choice, events: list[Event]) -> None:
    index = choice.index if isinstance(choice.index, int) else 0
    delta = choice.delta or choice.message
    if delta is not None:
        _read_delta(index, delta, choice.logprobs, events)
    if isinstance(choice.text, str) and choice.text:
        tokens = choice.logprobs.tokens if choice.logprobs else None
        counted = len(tokens) if tokens is not None else None
        events.append(TextArrived(index, TextKind.CONTENT, choice.text, counted))
    if choice.finish_reason:
        events.append(ChoiceFinished(index, str(choice.finish_reason)))


def _read_delta(index: int, delta: _Delta, logprobs: _Logprobs | None, events: list[Event]) -> None:
    for reasoning in (delta.reasoning_content, delta.reasoning, delta.reasoning_text):
        if isinstance(reasoning, str) and reasoning:
            events.append(ReasoningArrived(index, reasoning))
            break  # some servers send the same text under two names
    if delta.content not in _NO_TEXT:
        _read_content(index, delta.content, logprobs, events)
    if isinstance(delta.refusal, str) and delta.refusal:
        tokens = logprobs.refusal if logprobs else None
        counted = len(tokens) if tokens is not None else None
        events.append(TextArrived(index, TextKind.REFUSAL, delta.refusal, counted))
    if delta.audio is not None and isinstance(delta.audio.transcript, str):
        events.append(TextArrived(index, TextKind.TRANSCRIPT, delta.audio.transcript))
    if delta.function_call is not None:
        _read_call(index, 0, delta.function_call.name, delta.function_call.arguments, events)
    for place, call in enumerate(delta.tool_calls or ()):
        number = call.index if isinstance(call.index, int) else place
        if call.function is not None:
            _read_call(index, number, call.function.name, call.function.arguments, events)
        if call.custom is not None:
            _read_call(index, number, call.custom.name, call.custom.input, events)


def _read_content(
    index: int, content: object, logprobs: _Logprobs | None, events: list[Event]
) -> None:
    """A string with OpenAI; a list of parts, thinking among them, with Mistral."""
    if isinstance(content, str):
        tokens = logprobs.content if logprobs else None
        counted = len(tokens) if tokens is not None else None
        events.append(TextArrived(index, TextKind.CONTENT, content, counted))
        return
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        for thought in part.get("thinking") or ():
            if isinstance(thought, dict) and isinstance(thought.get("text"), str):
                events.append(ReasoningArrived(index, thought["text"]))
        if isinstance(part.get("text"), str):
            events.append(TextArrived(index, TextKind.CONTENT, part["text"]))


def _read_call(
    choice: int, number: int, name: object, arguments: object, events: list[Event]
) -> None:
    if arguments is not None and not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()  # Ollama sends an object
    name = name if isinstance(name, str) else ""
    if name or arguments:
        events.append(ToolTextArrived(choice, number, name, arguments or ""))


def text_or_none(value: object) -> str | None:
    """A non-empty string, cut to what an id or a name may have; else None."""
    return value[:200] if isinstance(value, str) and value else None


def error_code(error: object) -> str | None:
    """The code or type of a provider's error; never its message, which may quote content."""
    if isinstance(error, dict):
        for key in ("code", "type"):
            if isinstance(error.get(key), str | int) and error.get(key):
                return str(error[key])[:100]
    return None
