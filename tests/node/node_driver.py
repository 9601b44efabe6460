"""Installs the pinned openai-node once, and runs the driver with it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / "build" / "node"
INSTALL_SECONDS = 300
RUN_SECONDS = 120


def node_or_skip() -> Path:
    """A folder with the driver and its packages. Skips where there is no node, npm or registry."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            _without(f"no {program} on PATH: install Node.js 18 or later, with npm")
    lock = (HERE / "package-lock.json").read_bytes()
    folder = INSTALLED / hashlib.blake2b(lock, digest_size=8).hexdigest()
    if not folder.exists():
        _install(folder)
    shutil.copy(HERE / "driver.mjs", folder)
    return folder


def run_driver(folder: Path, base_url: str, provider: str, cases: dict[str, Any]) -> dict[str, Any]:
    """What the program saw, by case; nothing where it left without a word."""
    told = {"base_url": base_url, "provider": provider, "cases": cases}
    done = subprocess.run(
        ["node", "driver.mjs", json.dumps(told)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, Any] = json.loads(done.stdout or "{}")
    return outcomes


def _install(folder: Path) -> None:
    """Beside, then renamed: two test processes may do this at once."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=INSTALLED) as beside:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, beside)
        command = ["npm", "ci", "--ignore-scripts", "--no-progress"]
        npm = subprocess.run(
            command, cwd=beside, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
        if npm.returncode != 0:
            _without(f"npm ci failed: {npm.stderr.strip()[-500:]}")
        try:
            os.rename(beside, folder)
        except OSError:
            assert folder.exists()  # another was quicker
        else:
            os.mkdir(beside)


def _without(message: str) -> None:
    if os.environ.get("LASTCHUNK_REQUIRE_SERVICES") == "1":
        pytest.fail(message)
    pytest.skip(message)
