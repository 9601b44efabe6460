"""The end of a stream that we stop: what its caller reads in the place of the rest.

Each dialect gets what it would have ended with (a finish, the usage if it was asked for, its
terminator) and before the terminator an error object, so that nobody takes half an answer for a
whole one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, assert_never

import msgspec

from lastchunk.wire.dialect import Dialect

STOPPED = "length"
"""The finish reason of a choice that was stopped at a limit."""

_EDGES = (b"\n\n", b"\r\n\r\n", b"\r\r")


@dataclass(frozen=True, slots=True)
class Stopped:
    """What is known of a stream when it is stopped.

    `created_s` is in Unix seconds; `open_choices` are the numbers of those without a finish;
    `events` is how many came, which in responses is the next sequence number. Tokens are best
    guesses.
    """

    dialect: Dialect
    response_id: str | None
    model: str
    created_s: int
    open_choices: tuple[int, ...]
    events: int
    input_tokens: int
    output_tokens: int
    usage_requested: bool


def after_last_edge(piece: bytes) -> int:
    """The offset behind the last whole frame that ends in this piece; 0 where none does."""
    ends = (at + len(edge) for edge in _EDGES if (at := piece.rfind(edge)) >= 0)
    return max(ends, default=0)


def closing(stopped: Stopped, *, code: str, message: str) -> bytes:
    """The frames to end with, to be sent behind a whole frame."""
    error = {"message": message, "type": "lastchunk_gateway", "param": None, "code": code}
    match stopped.dialect:
        case Dialect.CHAT:
            return _chat(stopped, error)
        case Dialect.COMPLETIONS:
            return _completions(stopped, error)
        case Dialect.RESPONSES:
            return _responses(stopped, error)
        case _:
            assert_never(stopped.dialect)


def _chat(stopped: Stopped, error: dict[str, Any]) -> bytes:
    choices: Iterable[dict[str, Any]] = (
        {"index": n, "delta": {}, "logprobs": None, "finish_reason": STOPPED}
        for n in stopped.open_choices
    )
    return _chunks(stopped, "chat.completion.chunk", choices, error)


def _completions(stopped: Stopped, error: dict[str, Any]) -> bytes:
    choices: Iterable[dict[str, Any]] = (
        {"index": n, "text": "", "logprobs": None, "finish_reason": STOPPED}
        for n in stopped.open_choices
    )
    return _chunks(stopped, "text_completion", choices, error)


def _chunks(
    stopped: Stopped, kind: str, choices: Iterable[dict[str, Any]], error: dict[str, Any]
) -> bytes:
    base = {
        "id": stopped.response_id or "",
        "object": kind,
        "created": stopped.created_s,
        "model": stopped.model,
    }
    usage = {
        "prompt_tokens": stopped.input_tokens,
        "completion_tokens": stopped.output_tokens,
        "total_tokens": stopped.input_tokens + stopped.output_tokens,
    }
    frames = [base | {"choices": [choice]} for choice in choices]
    if stopped.usage_requested:
        frames.append(base | {"choices": [], "usage": usage})
    frames.append({"error": error | {"usage": usage}})
    return b"".join(_frame(frame) for frame in frames) + b"data: [DONE]\n\n"


def _responses(stopped: Stopped, error: dict[str, Any]) -> bytes:
    usage = {
        "input_tokens": stopped.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": stopped.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": stopped.input_tokens + stopped.output_tokens,
    }
    # The documented fields, and `error` as the provider's own servers send it: only that makes
    # the SDKs raise. Without it most of their users take half an answer for a whole one.
    told = {
        "type": "error",
        "code": error["code"],
        "message": error["message"],
        "param": None,
        "sequence_number": stopped.events,
        "error": error | {"usage": usage},
    }
    response = {
        "id": stopped.response_id or "",
        "object": "response",
        "created_at": stopped.created_s,
        "model": stopped.model,
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "error": {"code": error["code"], "message": error["message"]},
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }
    ended = {
        "type": "response.incomplete",
        "response": response,
        "sequence_number": stopped.events + 1,
    }
    return _frame(told, "error") + _frame(ended, "response.incomplete")


def _frame(payload: dict[str, Any], event: str | None = None) -> bytes:
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + msgspec.json.encode(payload) + b"\n\n"
