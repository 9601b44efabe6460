"""`python -m benchmarks.peers [--quick] [--only NAME …] [--write FILE]`: all side by side."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.figures import Figures, Measured, write
from benchmarks.peers.install import NotInstalledError
from benchmarks.peers.subjects import SUBJECTS, Running, Subject, running
from benchmarks.provider import process

CACHE = Path(os.environ.get("LASTCHUNK_BENCH_CACHE", "~/.cache/lastchunk-bench")).expanduser()
REST_SECONDS = 0.5
"""After a run: what a gateway does behind its streams (writing them down) belongs to it."""

OPEN_FILES = 16_384


@dataclass(frozen=True)
class Load:
    """So many streams at once; `rate` 0 is a burst. What is not over in time is left."""

    streams: int
    tokens: int
    rate: int
    most_seconds: float

    @property
    def name(self) -> str:
        return f"{self.streams} at {self.rate}/s" if self.rate else f"burst of {self.streams}"


LOADS = (
    Load(200, 300, 50, 12),
    Load(500, 300, 50, 12),
    Load(1000, 300, 50, 12),
    Load(50, 400, 0, 10),
)
QUICK_LOADS = (Load(50, 100, 50, 6), Load(200, 100, 50, 6), Load(50, 200, 0, 5))
ROUNDS, SLOW_ROUNDS, QUICK_ROUNDS = 3, 1, 1
PROXY_CORE, OTHER_CORE = 0, 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--quick", action="store_true", help="small loads, one round")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these gateways beside nginx")
    parser.add_argument("--write", type=Path, metavar="FILE", help="into this page, with a plot")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = OPEN_FILES if limit == resource.RLIM_INFINITY else min(OPEN_FILES, limit)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, limit))
    figures = measure(asked.only, quick=asked.quick)
    print(json.dumps(figures.as_data(), indent=2) if asked.json else figures.as_text())
    if asked.write is not None:
        write(asked.write, figures)


def measure(only: Sequence[str] | None, *, quick: bool) -> Figures:
    wanted = [s for s in SUBJECTS if not only or s.name in only or s.name == "nginx"]
    loads, rounds = (QUICK_LOADS, QUICK_ROUNDS) if quick else (LOADS, ROUNDS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _, provider = stack.enter_context(process("benchmarks.peers.provider", OTHER_CORE))
        subjects: list[Running] = [Running(Subject("direct", lambda *_: []), provider, provider)]
        missing: dict[str, str] = {}
        for subject in wanted:
            say(f"{subject.name} ...")
            try:
                place = folder / subject.name.replace(" ", "-")
                up = running(subject, CACHE, place, provider, PROXY_CORE)
                subjects.append(stack.enter_context(up))
            except NotInstalledError as error:
                missing[subject.name] = str(error)
        measured: list[Measured] = []
        for subject_up in subjects:  # the first requests load what is loaded only once
            play(subject_up, Load(4, 20, 0, 20))
        for load in loads:
            for turn in range(rounds):
                for one in subjects:
                    if not one.subject.is_slow or turn < SLOW_ROUNDS:
                        measured.append(play(one, load))
                        say(f"{load.name}: {measured[-1].in_short()}")
        return Figures(measured, missing, [load.name for load in loads])


def play(up: Running, load: Load) -> Measured:
    """One load through one gateway."""
    told = {
        "port": up.port,
        "request": up.request(load.tokens, load.rate),
        "streams": load.streams,
        "ramp": 1.0 if load.rate else 0.0,
        "most_seconds": load.most_seconds,
    }
    began = up.cpu_seconds()
    command = [sys.executable, "-m", "benchmarks.peers.load", json.dumps(told)]
    done = subprocess.run(
        ["taskset", "-c", str(OTHER_CORE), *command], capture_output=True, text=True, check=True
    )
    resident = up.resident_mb()
    time.sleep(REST_SECONDS)
    came = json.loads(done.stdout)
    spent = up.cpu_seconds() - began
    events = came["events"]
    return Measured(
        name=up.subject.name,
        load=load.name,
        share=events / (load.streams * load.tokens),
        cpu_us=spent / events * 1e6 if events and up.pid is not None else None,
        events_per_second=events / came["seconds"],
        lag_ms=[us / 1000 for us in came["lag_us"]] if came["lag_us"] else None,
        first_ms=[us / 1000 for us in came["first_us"]] if came["first_us"] else None,
        resident_mb=resident if up.pid is not None else None,
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
