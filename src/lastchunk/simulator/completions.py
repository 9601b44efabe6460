"""Legacy completions: the chunks of a stream, and the whole answer in one piece."""

from __future__ import annotations

from itertools import zip_longest

from lastchunk.simulator.chat import fingerprint, zeroed
from lastchunk.simulator.frames import FrameWriter, Plan
from lastchunk.simulator.provider_counts import Json, usage_json
from lastchunk.simulator.text import Step, vocabulary_of
from lastchunk.simulator.turn import Call


def completions_plan(call: Call) -> Plan:
    """All frames of a streamed legacy completion."""
    writer = FrameWriter(call)
    style = call.script.usage_style
    for steps in zip_longest(*(choice.parts[0].steps for choice in call.choices)):
        for index, step in enumerate(steps):
            if step is not None:
                writer.spend(step.ids)
                writer.send(_chunk(writer, [_choice(call, index, step)]), "output")
    for index, choice in enumerate(call.choices):
        last = index == len(call.choices) - 1
        writer.end(choice.end_of_turn)
        payload = _chunk(writer, [_choice(call, index, None, choice.finish_reason)])
        told = last and style in ("on_finish_chunk", "twice")
        if told:
            payload["usage"] = _usage(writer)
        writer.send(payload, "finish", usage=told)
    asked = call.include_usage and style in ("standard", "zero", "x_groq", "choice_usage")
    if asked or style in ("twice", "running"):
        writer.send({**_chunk(writer, []), "usage": _usage(writer)}, "usage", usage=True)
    writer.send_raw(b"[DONE]", "done")
    return writer.plan()


def completions_answer(call: Call) -> Json:
    """The same answer, not streamed."""
    choices: list[Json] = []
    for index, choice in enumerate(call.choices):
        ids = tuple(token for step in choice.parts[0].steps for token in step.ids)
        whole = Step(choice.parts[0].text, ids)
        choices.append(_choice(call, index, whole, choice.finish_reason))
    return _head(call) | {"choices": choices}


def _head(call: Call) -> Json:
    return {
        "id": call.response_id,
        "object": "text_completion",
        "created": call.created,
        "model": call.served_model,
        "system_fingerprint": fingerprint(call),
    }


def _chunk(writer: FrameWriter, choices: list[Json]) -> Json:
    call = writer.call
    payload = _head(call) | {"choices": choices}
    if call.running_usage:
        payload["usage"] = usage_json(writer.counts(), "completions", call.model)
    elif call.include_usage:
        payload["usage"] = None
    return payload


def _choice(call: Call, index: int, step: Step | None, finish: str | None = None) -> Json:
    text = step.text if step else ""
    logprobs: Json | None = None
    if call.logprobs and step:
        vocabulary = vocabulary_of(call.model)
        tokens = [vocabulary.bytes_of(t).decode(errors="backslashreplace") for t in step.ids]
        logprobs = {
            "tokens": tokens,
            "token_logprobs": [-0.25] * len(tokens),
            "top_logprobs": None,
            "text_offset": [0] * len(tokens),
        }
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}


def _usage(writer: FrameWriter) -> Json:
    usage = usage_json(writer.full_counts(), "completions", writer.call.model)
    return zeroed(usage) if writer.call.script.usage_style == "zero" else usage
