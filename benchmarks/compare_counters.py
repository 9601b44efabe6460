"""Counters side by side on the same recordings: the cookbook rule, LiteLLM, lastchunk.

    python benchmarks/compare_counters.py PATH… [--venv DIR]

LiteLLM is no dependency of lastchunk: pip installs it into a virtual environment of its own (by
default in the system's directory for temporary files), where it is asked through a pipe, by its
public `token_counter`. It is kept offline, as lastchunk is: an image by URL gets its default count,
a vocabulary that it would download is replaced by its own fallback. The recordings are read,
deduplicated and classed as `lastchunk accuracy` does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from lastchunk.meter.meter import Meter
from lastchunk.reports.accuracy_exchange import (
    Endpoint,
    Exchange,
    Requests,
    read_exchange,
    read_lines,
)
from lastchunk.reports.accuracy_judge import Judge, Judged, request_of
from lastchunk.reports.accuracy_scores import Score
from lastchunk.settlement.residuals import Side
from lastchunk.tokens.encodings import countable_model
from lastchunk.tokens.families import family_of
from lastchunk.usage import Basis, Quantity
from lastchunk.wire.events import ReasoningArrived, TextArrived

LITELLM = "litellm==1.106.2"
"""The release compared with; raise it now and then."""

WORKER = r"""
import json, logging, os, sys, time
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["HF_HUB_OFFLINE"] = "1"
import litellm
logging.disable(logging.CRITICAL)
answers = os.fdopen(os.dup(1), "w")
sys.stdout = sys.stderr
for line in sys.stdin:
    asked = json.loads(line)
    started = time.perf_counter()
    try:
        number = litellm.token_counter(**asked)
    except Exception as error:
        number = None
    answers.write(json.dumps([number, time.perf_counter() - started]) + "\n")
    answers.flush()
"""


class LiteLLM:
    """LiteLLM's `token_counter` in a process and an environment of its own."""

    def __init__(self, folder: Path) -> None:
        python = folder / "bin" / "python"
        if not python.exists():
            venv.create(folder, with_pip=True)
            install = [str(python), "-m", "pip", "install", "--quiet", LITELLM]
            subprocess.run(install, check=True)
        self._process = subprocess.Popen(
            [str(python), "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.seconds = 0.0
        self.asked = self.failed = 0

    def count(self, **asked: object) -> int | None:
        """Its number; None where it raised."""
        sending, answers = self._process.stdin, self._process.stdout
        assert sending is not None
        assert answers is not None
        sending.write(json.dumps(asked) + "\n")
        sending.flush()
        number, seconds = json.loads(_line(answers))
        self.seconds += seconds
        self.asked += 1
        self.failed += number is None
        return number if isinstance(number, int) else None

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def _line(answers: IO[str]) -> str:
    line = answers.readline()
    if not line:
        raise SystemExit("LiteLLM's process died: run it by hand to see why")
    return line


def prompt_question(exchange: Exchange, model: str) -> dict[str, object]:
    """A request as `token_counter` takes it; responses items as the messages they stand for."""
    request = exchange.request
    if exchange.endpoint in (Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS):
        return {"model": model, "text": request.get("prompt", request.get("input"))}
    messages = list(_messages(request))
    by_url = '"url": "http' in json.dumps(messages)
    asked: dict[str, object] = {
        "model": model,
        "messages": messages,
        "use_default_image_token_count": by_url,
    }
    tools = [_nested(tool) for tool in _list(request.get("tools"))]
    if tools:
        asked["tools"] = tools
        choice = request.get("tool_choice")
        if isinstance(choice, str | dict):
            asked["tool_choice"] = choice
    return asked


def _messages(request: Mapping[str, object]) -> Iterator[object]:
    if "messages" in request:
        yield from _list(request["messages"])
        return
    if isinstance(request.get("instructions"), str):
        yield {"role": "system", "content": request["instructions"]}
    given = request.get("input")
    for item in [given] if isinstance(given, str) else _list(given):
        if isinstance(item, str):
            yield {"role": "user", "content": item}
        elif isinstance(item, dict) and item.get("type") == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            yield {"role": "assistant", "content": None, "tool_calls": [call]}
        elif isinstance(item, dict) and item.get("type") == "function_call_output":
            told = {"tool_call_id": item.get("call_id"), "content": item.get("output")}
            yield {"role": "tool", **told}
        elif isinstance(item, dict):
            yield {"role": item.get("role", "user"), "content": _content(item.get("content"))}


def _content(content: object) -> object:
    """Parts of a responses item as the chat parts that they stand for."""
    if not isinstance(content, list):
        return content
    return [_part(part) for part in content if isinstance(part, dict)]


def _part(part: Mapping[str, object]) -> Mapping[str, object]:
    match part.get("type"):
        case "input_text" | "output_text":
            return {"type": "text", "text": part.get("text")}
        case "input_image":
            detail = part.get("detail") or "auto"
            return {
                "type": "image_url",
                "image_url": {"url": part.get("image_url"), "detail": detail},
            }
        case _:
            return part


def _nested(tool: object) -> object:
    if isinstance(tool, dict) and "function" not in tool and tool.get("type") == "function":
        return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}
    return tool


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def answer_text(exchange: Exchange, model: str) -> str:
    """All visible text of the answer with names and arguments of calls, as LiteLLM joins it."""
    meter = Meter(request_of(exchange))
    meter.headed(exchange.status, exchange.content_type, None)
    meter.receive(exchange.answer, 0)
    meter.finish()
    texts = []
    summed_up = family_of(model).reasons  # such a text is not what is billed, for no counter
    for piece in meter.take_texts():
        if isinstance(piece, ReasoningArrived) and summed_up:
            continue
        if isinstance(piece, TextArrived | ReasoningArrived):
            texts.append(piece.text)
        else:
            texts.append(piece.name + piece.arguments)
    return "".join(texts)


class Comparison:
    """Scores of each counter, by side and class."""

    def __init__(self) -> None:
        self.scores: dict[tuple[Side, str, str], Score] = {}

    def add(self, one: Judged, litellm: int | None) -> None:
        """One number judged by all; one that LiteLLM refused counts as 0 for it."""
        numbers = {"cold": one.cold, "warm": one.warm, "LiteLLM": _exactly(litellm or 0)}
        if one.cookbook is not None:
            numbers["cookbook"] = _exactly(one.cookbook)
        for kind in (one.kind, "derivable") if one.derivable else (one.kind,):
            for counter, number in numbers.items():
                self.scores.setdefault((one.side, kind, counter), Score()).add(number, one.truth)

    def print(self) -> None:
        """One table a side: exact % and mean error % of each counter."""
        for side, counters in (
            (Side.PROMPT, ("cookbook", "LiteLLM", "cold", "warm")),
            (Side.OUTPUT, ("LiteLLM", "cold", "warm")),
        ):
            kinds = dict.fromkeys(kind for of, kind, _ in self.scores if of is side)
            heads = "".join(f"{name:>17}" for name in counters)
            print(f"{side:16}{'n':>6}{heads}")
            for kind in sorted(kinds, key=lambda kind: kind == "derivable"):
                found = [self.scores[side, kind, counter] for counter in counters]
                cells = "".join(
                    f"{100 * one.exact / one.n:9.1f}{one.errors.mean:8.1f}" for one in found
                )
                print(f"{kind:16}{found[0].n:6,}{cells}")
            print()


def _exactly(tokens: int) -> Quantity:
    return Quantity(tokens, tokens, tokens, Basis.COUNTED)


def exchanges(paths: list[Path]) -> Iterator[Exchange]:
    """The exchanges of these files, each request once."""
    requests = Requests()
    for path in paths:
        files = sorted(path.glob("*.jsonl*")) if path.is_dir() else [path]
        for file in files:
            for _, line in read_lines(file):
                exchange = None if line is None else read_exchange(line)
                if isinstance(exchange, Exchange) and requests.is_new(exchange):
                    yield exchange


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument(
        "--venv", type=Path, default=Path(tempfile.gettempdir()) / "lastchunk-compare-venv"
    )
    options = parser.parse_args()
    litellm, judge, comparison = LiteLLM(options.venv), Judge(), Comparison()
    for exchange in exchanges(options.paths):
        judged = judge.judge(exchange)
        model = countable_model(exchange.served, request_of(exchange).model)
        for one in judged if isinstance(judged, list) else ():
            if one.side is Side.PROMPT:
                theirs = litellm.count(**prompt_question(exchange, model))
            else:
                text = answer_text(exchange, model)
                theirs = litellm.count(model=model, text=text, count_response_tokens=True)
            comparison.add(one, theirs)
    litellm.close()
    print("Each counter: exact in % of the exchanges, then the mean error in % of the truth.\n")
    comparison.print()
    print(f"{LITELLM}: {litellm.asked:,} counts, {litellm.failed:,} raised", file=sys.stderr)


if __name__ == "__main__":
    main()
