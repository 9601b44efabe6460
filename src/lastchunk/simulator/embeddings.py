"""The two endpoints that no stream comes from: embeddings, and the list of models."""

from __future__ import annotations

import base64
import random
import struct
from typing import Any

from lastchunk.simulator.answer import Visit
from lastchunk.simulator.bill import BilledCall
from lastchunk.simulator.provider_counts import Counts, Json, prompt_tokens, usage_json
from lastchunk.simulator.script import Script
from lastchunk.simulator.text import vocabulary_of

DIMENSIONS = 8
MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-5", "o4-mini", "gpt-3.5-turbo")


def models_answer() -> Json:
    models = [
        {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "simulator"}
        for name in MODELS
    ]
    return {"object": "list", "data": models}


def embeddings_answer(
    number: int, body: Json, script: Script, visit: Visit
) -> tuple[Json, BilledCall]:
    """Vectors for every input, and what they cost."""
    model = str(body["model"])
    prompt = prompt_tokens(vocabulary_of(model), model, "embeddings", body)
    usage = usage_json(Counts(prompt, 0, 0, 0), "embeddings", model)
    inputs = _inputs(body.get("input", ""))
    encoded = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": i, "embedding": _vector(repr(item), encoded)}
        for i, item in enumerate(inputs)
    ]
    billed = BilledCall(
        call=number,
        at=visit.at,
        endpoint="embeddings",
        model_asked=model,
        model_served=model,
        service_tier=script.service_tier,
        streamed=False,
        status=200,
        billed=True,
        prompt_tokens=prompt,
        cached_tokens=0,
        output_tokens=0,
        reasoning_tokens=0,
        end_of_turn=0,
        output_ids=(),
        delivered_tokens=0,
        ended="completed",
        finish_reason=None,
        usage=usage,
        usage_sent=True,
        include_usage=False,
        retry_count=visit.retry_count,
        tag=visit.tag,
        response_id=None,
        script=script,
    )
    return {"object": "list", "data": data, "model": model, "usage": usage}, billed


def _inputs(given: Any) -> list[Any]:
    if isinstance(given, list) and not all(isinstance(item, int) for item in given):
        return given
    return [given]


def _vector(text: str, encoded: bool) -> str | list[float]:
    rng = random.Random(f"vector:{text}")
    numbers = [rng.uniform(-1, 1) for _ in range(DIMENSIONS)]
    if encoded:
        return base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *numbers)).decode()
    return numbers
