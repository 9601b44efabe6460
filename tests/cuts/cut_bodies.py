"""The bodies to cut: exact recordings of providers, and what the simulator renders."""

from __future__ import annotations

import functools
import gzip
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lastchunk.simulator import draw_script, render
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest

ALL = bool(os.environ.get("LASTCHUNK_TEST_ALL"))
FILES = ("openai_chat", "openai_responses", "azure", "compat", "no_usage")
SEED = int(os.environ.get("LASTCHUNK_TEST_SEED", "20260712"))
DIALECTS = {
    "chat/completions": Dialect.CHAT,
    "responses": Dialect.RESPONSES,
    "completions": Dialect.COMPLETIONS,
}


@dataclass(frozen=True)
class Body:
    """One streamed answer. `usage` is what its provider said, as it said it.

    Its repr is its id alone: recordings are third-party data and stay out of every log.
    """

    id: str
    dialect: Dialect
    data: bytes
    usage: object
    choices: int
    model: str

    def __repr__(self) -> str:
        return self.id

    @property
    def request(self) -> CallRequest:
        return CallRequest(
            dialect=self.dialect,
            model=self.model,
            stream=True,
            usage_requested=True,
            upstream="api.openai.com",
            body_bytes=400,
            choices=self.choices,
        )


class _Line(msgspec.Struct):
    id: str
    stream: bool
    fidelity: str
    endpoint: str = ""
    model: Any = None
    body: Any = None
    usage: Any = None
    request: Any = None


def corpus() -> Path | None:
    """The recordings' folder, if this machine has it."""
    named = os.environ.get("LASTCHUNK_CORPUS")
    return Path(named) if named and (Path(named) / "README.md").exists() else None


@functools.cache
def recorded() -> tuple[Body, ...]:
    """Every exact streamed body of the metered endpoints; none where there is no corpus."""
    folder = corpus()
    if folder is None:
        return ()
    decode = msgspec.json.Decoder(_Line).decode
    found = []
    for name in FILES:
        with gzip.open(folder / f"{name}.jsonl.gz", "rb") as lines:
            found += [body for line in lines if (body := _body(name, decode(line))) is not None]
    return tuple(found)


def _body(file: str, line: _Line) -> Body | None:
    exact = line.stream and line.fidelity in ("wire", "decoded") and isinstance(line.body, str)
    if not exact or line.endpoint not in DIALECTS:
        return None
    asked = line.request if isinstance(line.request, dict) else {}
    choices = asked.get("n")
    return Body(
        id=f"{file}:{line.id}",
        dialect=DIALECTS[line.endpoint],
        data=line.body.encode(),
        usage=line.usage,
        choices=choices if isinstance(choices, int) and choices > 0 else 1,
        model=line.model if isinstance(line.model, str) else "gpt-4o",
    )


@functools.cache
def rendered(count: int) -> tuple[Body, ...]:
    """Bodies of drawn scripts, faults and all."""
    found = []
    for number in range(count):
        endpoint = ("chat/completions", "chat/completions", "responses", "completions")[number % 4]
        request: dict[str, Any] = {"model": "gpt-4o", "stream": True, "n": 1 + number % 3}
        request["stream_options"] = {"include_usage": number % 5 != 0}
        request |= {"messages": [{"role": "user", "content": "hi"}], "input": "hi", "prompt": "hi"}
        told = render(draw_script(SEED, number), request, endpoint=endpoint)
        if not told.body:  # a fault before the first byte leaves nothing to cut
            continue
        found.append(
            Body(
                id=f"script:{SEED}:{number}",
                dialect=DIALECTS[endpoint],
                data=told.body,
                usage=None,
                choices=request["n"] if endpoint != "responses" else 1,
                model="gpt-4o",
            )
        )
    return tuple(found)


def some(bodies: tuple[Body, ...], count: int) -> list[Body]:
    """A sample; all with LASTCHUNK_TEST_ALL. The seed stands in every test's header line."""
    if ALL or len(bodies) <= count:
        return list(bodies)
    return random.Random(SEED).sample(bodies, count)


def cut_at_random(data: bytes, rng: random.Random) -> list[bytes]:
    """The same bytes in pieces of 1 to a few hundred."""
    pieces, start = [], 0
    while start < len(data):
        size = rng.choice((1, 2, 3, 17, 64, 211, 900))
        pieces.append(data[start : start + size])
        start += size
    return pieces
