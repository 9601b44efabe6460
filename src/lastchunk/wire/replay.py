"""A whole answer as the stream that its caller asked for: JSON in, frames out."""

from __future__ import annotations

from lastchunk.wire.dialect import Dialect
from lastchunk.wire.replay_chat import chat_frames
from lastchunk.wire.replay_completions import completions_frames
from lastchunk.wire.replay_pieces import read_object
from lastchunk.wire.replay_responses import responses_frames

EVENT_STREAM = "text/event-stream; charset=utf-8"


def replay(dialect: Dialect, answer: bytes, *, usage_chunk: bool) -> list[bytes] | None:
    """The frames of a stream that says what `answer` says, each a whole server-sent event.

    `answer` is the decoded body of a 200; `usage_chunk` is whether the caller asked for one. An
    error in the place of an answer is told as a stream tells it. None where the body is neither
    one: it can only be passed on as it is. Never raises on account of the body.
    """
    whole = read_object(answer)
    if whole is None:
        return None
    match dialect:
        case Dialect.CHAT:
            return chat_frames(whole, usage_chunk=usage_chunk)
        case Dialect.COMPLETIONS:
            return completions_frames(whole, usage_chunk=usage_chunk)
        case Dialect.RESPONSES:
            return responses_frames(whole)
