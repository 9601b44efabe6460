"""`python -m benchmarks [in_process relaying hiding booking counting] [--json] [--write FILE]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from pathlib import Path

from benchmarks import booking, counting, hiding, in_process, relaying
from benchmarks.results import Report

PARTS = ("in_process", "relaying", "hiding", "booking", "counting")
BEGIN, END = "<!-- figures: python -m benchmarks --write -->", "<!-- /figures -->"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file")
    asked = parser.parse_args()
    parts = asked.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    report = measure(parts)
    told = json.dumps(report.as_data(), indent=2) if asked.json else report.as_text()
    print(told)
    if asked.write is not None:
        write(asked.write, report)


def measure(parts: list[str] | tuple[str, ...]) -> Report:
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    compared, timed = [], []
    for part in parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        match part:
            case "in_process":
                compared += in_process.measure()
            case "relaying":
                compared += relaying.measure()
            case "hiding":
                compared += hiding.measure()
            case "booking":
                timed += booking.measure()
            case "counting":
                timed += counting.measure()
        if cores is not None:  # each part pins itself
            os.sched_setaffinity(0, cores)
    return Report(compared, timed)


def write(path: Path, report: Report) -> None:
    """The table between the marks of a document; all else in it stays."""
    where = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    figures = f"{BEGIN}\n\nMeasured on {time.strftime('%Y-%m-%d')}: {where}.\n\n"
    figures += f"```text\n{report.as_text()}\n```\n\n{END}"
    text = path.read_text()
    if BEGIN not in text:
        raise SystemExit(f"{path} has no place for figures: {BEGIN}")
    path.write_text(
        re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: figures, text, flags=re.S)
    )


if __name__ == "__main__":
    main()
