"""A whole legacy completion as its chunks."""

from __future__ import annotations

from lastchunk.wire.replay_logprobs import completion_pieces
from lastchunk.wire.replay_pieces import Json, frame, in_turns, is_text, objects_in, pieces_of

_SAID_BY_ALL = ("id", "object", "created", "model", "system_fingerprint")
_OF_CHOICES = ("text", "index", "logprobs", "finish_reason")


def completions_frames(whole: Json, *, usage_chunk: bool) -> list[bytes] | None:
    """The stream of a legacy completion; None where it is none."""
    choices = objects_in(whole.get("choices"))
    if not isinstance(whole.get("choices"), list):
        return [frame({"error": whole["error"]})] if whole.get("error") else None
    head = {name: whole[name] for name in _SAID_BY_ALL if name in whole}
    said = in_turns([_speech(choice, place) for place, choice in enumerate(choices)])
    chunks: list[Json] = [{"choices": [choice]} for choice in said] or [{"choices": []}]
    once = (*_SAID_BY_ALL, "choices", "usage")
    chunks[0] |= {name: value for name, value in whole.items() if name not in once}
    if usage_chunk:
        for chunk in chunks:
            chunk["usage"] = None
        if whole.get("usage") is not None:
            chunks.append({"choices": [], "usage": whole["usage"]})
    return [*(frame({**head, **chunk}) for chunk in chunks), b"data: [DONE]\n\n"]


def _speech(choice: Json, place: int) -> list[Json]:
    """One choice: its text, then its finish with whatever else it has."""
    number = choice.get("index")
    index = number if isinstance(number, int) else place
    extras = {name: value for name, value in choice.items() if name not in _OF_CHOICES}
    text, logprobs = choice.get("text"), choice.get("logprobs")
    spoken: list[Json] = []
    if is_text(text):
        shown = (
            completion_pieces(text, logprobs)
            if isinstance(logprobs, dict)
            else [(piece, None) for piece in pieces_of(text)]
        )
        spoken = [
            {"text": piece, "index": index, "logprobs": tokens, "finish_reason": None}
            for piece, tokens in shown
        ]
    finish = choice.get("finish_reason")
    end: Json = {"text": "", "index": index, "logprobs": None, "finish_reason": finish}
    return [*spoken, {**end, **extras}]
