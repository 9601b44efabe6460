"""A whole chat completion as its chunks."""

from __future__ import annotations

from typing import Any

from lastchunk.wire.replay_logprobs import chat_pieces
from lastchunk.wire.replay_pieces import (
    AUDIO_CHARS,
    Json,
    frame,
    in_turns,
    is_text,
    objects_in,
    pieces_of,
)

_HEAD = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
"""What each chunk says again. All else that an answer has beside its choices is said once."""

_REASONING = ("reasoning_content", "reasoning", "reasoning_text")
_TEXTS = (*_REASONING, "content", "refusal")
_KNOWN = (*_TEXTS, "role", "audio", "function_call", "tool_calls", "annotations")
_OF_CHOICES = ("index", "message", "logprobs", "finish_reason")

_FILTERED_PROMPT = "prompt_filter_results"
"""Azure's word on the prompt, which comes in a chunk of its own before all others."""

_FILTERED = "content_filter_results"
"""Azure's word on the answer, which stands on each chunk, and says something where text is."""


def chat_frames(whole: Json, *, usage_chunk: bool) -> list[bytes] | None:
    """The stream of a chat completion; None where it is none."""
    choices = objects_in(whole.get("choices"))
    if not isinstance(whole.get("choices"), list):
        return [frame({"error": whole["error"]})] if whole.get("error") else None
    head = {name: whole[name] for name in _HEAD if name in whole}
    head["object"] = "chat.completion.chunk"
    said = [
        {"choices": [choice]}
        for choice in in_turns([_speech(c, place) for place, c in enumerate(choices)])
    ]
    chunks: list[Json] = said or [{"choices": []}]
    chunks[0] |= _said_once(whole)
    if usage_chunk:
        for chunk in chunks:
            chunk["usage"] = None
        if whole.get("usage") is not None:
            chunks.append({"choices": [], "usage": whole["usage"]})
    frames = [frame({**head, **chunk}) for chunk in chunks]
    return [*_filter_frame(whole), *frames, b"data: [DONE]\n\n"]


def _said_once(whole: Json) -> Json:
    known = (*_HEAD, "choices", "usage", _FILTERED_PROMPT)
    return {name: value for name, value in whole.items() if name not in known}


def _filter_frame(whole: Json) -> list[bytes]:
    if not whole.get(_FILTERED_PROMPT):
        return []
    nobody = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
    return [frame({**nobody, _FILTERED_PROMPT: whole[_FILTERED_PROMPT]})]


def _speech(choice: Json, place: int) -> list[Json]:
    """One choice as the choices of its chunks: opening, deltas, finish."""
    number = choice.get("index")
    index = number if isinstance(number, int) else place
    extras = {name: value for name, value in choice.items() if name not in _OF_CHOICES}
    message = choice["message"] if isinstance(choice.get("message"), dict) else {}
    logprobs = choice.get("logprobs")
    deltas: list[tuple[Json, Any]] = [(_opening(message), None)]
    for name in _TEXTS:
        if is_text(text := message.get(name)):
            if name in ("content", "refusal") and isinstance(logprobs, dict):
                pieces, logprobs = chat_pieces(name, text, logprobs)
                deltas += [({name: piece}, shown) for piece, shown in pieces]
            else:
                deltas += [({name: piece}, None) for piece in pieces_of(text)]
    deltas += [(delta, None) for delta in _other_deltas(message)]
    filtered = extras.pop(_FILTERED, None)
    deltas.append(({}, logprobs))
    said: list[Json] = []
    for delta, shown in deltas:
        said.append({"index": index, "delta": delta, "logprobs": shown, "finish_reason": None})
        if filtered is not None:
            said[-1][_FILTERED] = filtered if delta.get("content") else {}
    said[-1]["finish_reason"] = choice.get("finish_reason")
    said[-1] |= extras
    return said


def _opening(message: Json) -> Json:
    """The role, empty texts that will be filled, and what no piece can be made of."""
    opening: Json = {"role": message.get("role", "assistant")}
    content = message.get("content")
    if isinstance(content, str):
        opening["content"] = ""
    elif content is None:
        speaks = is_text(message.get("refusal")) or any(is_text(message.get(r)) for r in _REASONING)
        calls = message.get("tool_calls") or message.get("function_call") or message.get("audio")
        opening["content"] = None if speaks or calls else ""
    else:
        opening["content"] = content  # parts, as Mistral has them
    if "refusal" in message:
        opening["refusal"] = "" if is_text(message["refusal"]) else None
    for name, value in message.items():
        if name not in _KNOWN or (name in _REASONING and not isinstance(value, str | None)):
            opening[name] = value
    return opening


def _other_deltas(message: Json) -> list[Json]:
    deltas: list[Json] = []
    if isinstance(audio := message.get("audio"), dict):
        deltas += [{"audio": delta} for delta in _audio(audio)]
    if isinstance(call := message.get("function_call"), dict):
        deltas += [{"function_call": delta} for delta in _told(call, "arguments")]
    for place, call in enumerate(objects_in(message.get("tool_calls"))):
        deltas += [{"tool_calls": [{"index": place, **delta}]} for delta in _call(call)]
    if message.get("annotations"):
        deltas.append({"annotations": message["annotations"]})
    return deltas


def _call(call: Json) -> list[Json]:
    """A tool call: all of it but its text, then its text."""
    rest = {name: value for name, value in call.items() if name != "index"}
    for kind, text in (("function", "arguments"), ("custom", "input")):
        if isinstance(rest.get(kind), dict):
            first, *deltas = _told(rest[kind], text)
            return [{**rest, kind: first}, *({kind: delta} for delta in deltas)]
    return [rest]


def _told(call: Json, name: str) -> list[Json]:
    """A call with an empty text, then the text; a text that is none is left where it is."""
    text = call.get(name)
    if not isinstance(text, str):
        return [call]
    return [{**call, name: ""}, *({name: piece} for piece in pieces_of(text))]


def _audio(audio: Json) -> list[Json]:
    """Sound: its id, what is said, the sound, and how long it is kept."""
    known = ("data", "transcript", "expires_at")
    deltas: list[Json] = [{name: value for name, value in audio.items() if name not in known}]
    if is_text(transcript := audio.get("transcript")):
        deltas += [{"transcript": piece} for piece in pieces_of(transcript)]
    if is_text(data := audio.get("data")):
        starts = range(0, len(data), AUDIO_CHARS)
        deltas += [{"data": data[start : start + AUDIO_CHARS]} for start in starts]
    if "expires_at" in audio:
        deltas.append({"expires_at": audio["expires_at"]})
    return deltas
