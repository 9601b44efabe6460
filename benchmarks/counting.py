"""How long texts take to count, ordinary ones and such as are made to take long."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

from benchmarks.results import Timed, timed
from lastchunk.simulator import Script, render
from lastchunk.tokens.encodings import encoding_of
from lastchunk.tokens.prompt import count_prompt
from lastchunk.tokens.tally import OutputTally
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.events import TextArrived, TextKind
from lastchunk.wire.prompt import read_prompt

MODEL = "gpt-4o"
MILLION = 1_000_000
PIECE = 4_096


def measure() -> list[Timed]:
    rng = random.Random(1)
    prose = _prose()
    letters = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=MILLION))
    signs = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(MILLION // 3))
    texts = {
        "prose": (prose * (MILLION // len(prose) + 1))[:MILLION],
        "one letter a million times": "a" * MILLION,
        "random letters without a break": letters,
        "blanks": " " * MILLION,
        "random Chinese": signs,
        "digits": "7" * MILLION,
    }
    count_prompt(read_prompt(Dialect.CHAT, _asking("warm")), MODEL, Dialect.CHAT)
    rows = [timed("a prompt of 100 kB of prose", _times(lambda: _prompt(prose[:100_000]), 15))]
    rows += [
        timed(f"an output of 1 MB: {name}", _times(lambda text=text: _output(text), 3))
        for name, text in texts.items()
    ]
    return rows


def _prose() -> str:
    answer = render(Script(output_tokens=30_000), {"model": MODEL, "messages": []})
    text = str(json.loads(answer.body)["choices"][0]["message"]["content"])
    assert len(text) > 100_000
    return text


def _asking(text: str) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


def _prompt(text: str) -> None:
    count_prompt(read_prompt(Dialect.CHAT, _asking(text)), MODEL, Dialect.CHAT)


def _output(text: str) -> None:
    tally = OutputTally(encoding_of(MODEL))
    for start in range(0, len(text), PIECE):
        tally.add(TextArrived(0, TextKind.CONTENT, text[start : start + PIECE]))
    tally.counts()


def _times(work: Callable[[], None], times: int) -> list[float]:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return found
