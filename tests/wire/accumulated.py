"""What a client makes of a stream: the accumulation that the SDKs do, written down once more."""

import json
from typing import Any

from openai.lib.streaming._deltas import accumulate_delta

Json = dict[str, Any]


def events_of(body: bytes) -> list[tuple[str, Json]]:
    """(event name, payload) of each frame but `[DONE]`."""
    events = []
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        name, data = "", b""
        for line in block.split(b"\n"):
            if line.startswith(b"data:"):
                data = line[5:].strip()
            elif line.startswith(b"event:"):
                name = line[6:].strip().decode()
        if data and data != b"[DONE]":
            events.append((name, json.loads(data)))
    return events


def chat_of(body: bytes) -> Json:
    """Head, messages by choice, logprobs, finish reasons, and the usage chunks."""
    choices: dict[int, Json] = {}
    heads: list[Json] = []
    usages: list[Any] = []
    filters: list[Any] = []
    for _, chunk in events_of(body):
        if "prompt_filter_results" in chunk:
            filters.append(chunk)
            continue
        heads.append({k: v for k, v in chunk.items() if k in HEAD})
        usages.append(chunk.get("usage", "absent"))
        for choice in chunk["choices"]:
            made = choices.setdefault(
                choice["index"], {"message": {}, "logprobs": {}, "finish": None}
            )
            made["message"] = accumulate_delta(made["message"], choice["delta"])
            for name, entries in (choice.get("logprobs") or {}).items():
                made["logprobs"].setdefault(name, []).extend(entries or [])
            made["finish"] = choice["finish_reason"] or made["finish"]
            if filtered := choice.get("content_filter_results"):
                made["filtered"] = filtered
    assert all(head == heads[0] for head in heads)
    return {
        "head": heads[0],
        "choices": [_without_nothing(choices[index]) for index in sorted(choices)],
        "usage_before": {json.dumps(usage) for usage in usages[:-1]},
        "usage": usages[-1],
        "filters": filters,
    }


HEAD = ("id", "object", "created", "model", "service_tier", "system_fingerprint")


def completion_of(body: bytes) -> Json:
    texts: dict[int, Json] = {}
    usages = []
    for _, chunk in events_of(body):
        usages.append(chunk.get("usage", "absent"))
        head = {k: v for k, v in chunk.items() if k in HEAD}
        for choice in chunk["choices"]:
            made = texts.setdefault(choice["index"], {"text": "", "tokens": [], "finish": None})
            made["text"] += choice["text"]
            made["tokens"] += (choice.get("logprobs") or {}).get("tokens") or []
            made["finish"] = choice["finish_reason"] or made["finish"]
    return {"head": head, "choices": texts, "usage": usages[-1], "usage_before": usages[0]}


def response_of(body: bytes) -> list[Json]:
    """The events, runs of deltas joined; numbers are checked, and padding left out."""
    joined: list[Json] = []
    for number, (name, event) in enumerate(events_of(body)):
        assert event.pop("sequence_number") == number
        assert event["type"] == name
        event.pop("obfuscation", None)
        if name.endswith(".delta") and joined and joined[-1]["type"] == name:
            joined[-1]["delta"] += event["delta"]
        else:
            joined.append(event)
    return joined


def _without_nothing(value: Any) -> Any:
    """Nulls, empty texts and empty lists say the same as a key that is not there."""
    if isinstance(value, dict):
        kept = {k: _without_nothing(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in (None, [], {}, "")}
    return value
