"""Recorded exchanges made by hand: one line of the corpus format each."""

import gzip
import json
from pathlib import Path
from typing import Any

TOOL = {
    "type": "function",
    "function": {
        "name": "find_bus",
        "description": "Find the next bus.",
        "parameters": {
            "type": "object",
            "properties": {"stop": {"type": "string", "description": "The stop's name"}},
            "required": ["stop"],
        },
    },
}


def chat_line(
    text: str = "When does the bus leave?",
    *,
    answer: str = "At nine.",
    prompt_tokens: int = 13,
    completion_tokens: int = 3,
    model: str = "gpt-4o-mini",
    stream: bool = False,
    logprobs: bool = False,
    **request: Any,
) -> dict[str, Any]:
    """A chat exchange with the provider's usage."""
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    body = (
        _stream(answer, usage, model, logprobs=logprobs)
        if stream
        else json.dumps(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1764000000,
                "model": model,
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": answer},
                        "finish_reason": "stop",
                    }
                ],
                "usage": usage,
            }
        )
    )
    return {
        "provider": "openai",
        "host": "api.openai.com",
        "endpoint": "chat/completions",
        "path": "/v1/chat/completions",
        "model": model,
        "status": 200,
        "content_type": "text/event-stream" if stream else "application/json",
        "request": {"model": model, "messages": [{"role": "user", "content": text}], **request},
        "body": body,
        "usage": usage,
    }


def _stream(answer: str, usage: dict[str, int], model: str, *, logprobs: bool) -> str:
    """One token a chunk: the words of these answers are one token each."""
    pieces = [word if place == 0 else " " + word for place, word in enumerate(answer.split())]
    chunks: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}}]
    for piece in pieces:
        chunk: dict[str, Any] = {"delta": {"content": piece}}
        if logprobs:
            chunk["logprobs"] = {"content": [{"token": piece, "logprob": -0.1}]}
        chunks.append(chunk)
    chunks.append({"delta": {}, "finish_reason": "stop"})
    lines = [
        {"id": "chatcmpl-1", "model": model, "choices": [{"index": 0, **chunk}]} for chunk in chunks
    ]
    lines.append({"id": "chatcmpl-1", "model": model, "choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"


def written(path: Path, lines: list[Any]) -> Path:
    """The lines as JSON Lines, gzipped if the name says so; a `str` stands as it is."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
