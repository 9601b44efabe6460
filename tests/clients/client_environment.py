"""Makes the environment of the client libraries once, and runs drivers in it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
DRIVERS = HERE / "drivers"
INSTALLED = HERE.parents[1] / "build" / "clients"
INSTALL_SECONDS = 420
RUN_SECONDS = 240

_QUIET = {
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "LOGFIRE_SEND_TO_LOGFIRE": "false",
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    "PYTHONWARNINGS": "ignore",
}
"""No telemetry, no tracing, no proxy between here and here."""

_OTHERS = ("OPENAI_", "LANGCHAIN_", "LANGSMITH_", "PYTHON", "LASTCHUNK_")
"""Prefixes of settings that are not ours to hand on."""


@dataclass(frozen=True, slots=True)
class Saw:
    """What the user of a library saw of one call; the drivers' line (drivers/saw.py)."""

    name: str
    pieces: int
    text: str
    tool: str
    finish: str | None
    usage: tuple[int, int] | None
    error: str | None
    message: str
    status: int | None
    code: str | None
    error_usage: bool
    seconds: float
    attempts: int
    notes: list[str]


def clients_or_skip() -> Path:
    """An interpreter with the pinned libraries; skips where they cannot be installed."""
    pinned = (HERE / "constraints.txt").read_bytes()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = hashlib.blake2b(pinned + version.encode(), digest_size=8).hexdigest()
    folder = INSTALLED / name
    if not folder.exists():
        _install(folder)
    return folder / "bin" / "python"


def run_driver(command: list[str], folder: Path, base_url: str, cases: list[Any]) -> list[Saw]:
    """What the library's user saw, call by call."""
    inherited = {k: v for k, v in os.environ.items() if not k.upper().startswith(_OTHERS)}
    done = subprocess.run(
        [*command, json.dumps({"base_url": base_url, "cases": cases})],
        cwd=folder,
        env=inherited | _QUIET,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return [Saw(**one | {"usage": one["usage"] and tuple(one["usage"])}) for one in told]


def _install(folder: Path) -> None:
    """Beside, then renamed: two test processes may do this at once."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=INSTALLED) as beside:
        made = Path(beside) / "made"
        _run([sys.executable, "-m", "venv", "--without-pip", str(made)])
        # The set is closed: nothing is resolved, and nothing is built.
        pip = [sys.executable, "-m", "pip", "--python", str(made / "bin" / "python")]
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
        _run([*pip, "install", *options, "--requirement", str(HERE / "constraints.txt")])
        try:
            os.rename(made, folder)
        except OSError:
            assert folder.exists()  # another was quicker


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        _without(f"the client libraries were not installed within {INSTALL_SECONDS} s")
    else:
        if done.returncode != 0:
            _without(f"the client libraries cannot be installed: {done.stderr.strip()[-500:]}")


def _without(message: str) -> None:
    if os.environ.get("LASTCHUNK_REQUIRE_SERVICES") == "1":
        pytest.fail(message)
    pytest.skip(message)
