"""The how-to's own lines, run as they stand; and the listener as `lastchunk serve` opens it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from admin_stage import AUTHORIZED, KEY, PATIENCE_SECONDS, Admin

ROOT = Path(__file__).parents[2]
_LINES = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_lines_of_the_how_to_work(one_admin: Admin, tmp_path: Path) -> None:
    text = (ROOT / "docs/how-to/admin-api.md").read_text(encoding="utf-8")
    script = "\n".join(["set -eu", *_LINES.findall(text)])
    script = script.replace("http://127.0.0.1:8792", one_admin.url)
    script = script.replace("curl -sS", "curl -sS --fail-with-body --noproxy '*'")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"LASTCHUNK_ADMIN_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"state":"revoked"' in done.stdout
    assert '"clean":true' in done.stdout


@contextmanager
def serving(
    folder: Path, *options: str, key: str | None = KEY
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`lastchunk serve` as a user starts it, and the file that has what it says."""
    said = folder / "said.txt"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    environment.pop("LASTCHUNK_ADMIN_KEY", None)
    environment |= {} if key is None else {"LASTCHUNK_ADMIN_KEY": key}
    command = [sys.executable, "-m", "lastchunk", "serve", "--upstream", "http://127.0.0.1:9"]
    with said.open("w") as out:
        process = subprocess.Popen(
            [*command, "--port", "0", "--ledger", str(folder / "ledger.db"), *options],
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process, said
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)


def found(said: Path, pattern: str) -> re.Match[str]:
    deadline = time.monotonic() + 4 * PATIENCE_SECONDS
    while not (match := re.search(pattern, said.read_text())):
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)
    return match


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_line_opens_one_listener(tmp_path: Path, workers: str) -> None:
    with serving(tmp_path, "--admin-port", "0", "--workers", workers) as (_, said):
        match = found(said, r"admin API: (http://127\.0\.0\.1:\d+)/admin/openapi\.json")
        found(said, r"point clients at|\d workers serve|worker 2 serves|2 workers")
        answer = httpx.get(
            match[1] + "/admin/v1/health", headers=AUTHORIZED, trust_env=False, timeout=10
        )
        assert answer.json()["status"] == "ok"
    assert said.read_text().count("admin API:") == 1
    assert KEY not in said.read_text()


def test_a_rolling_restart_hands_it_over(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(tmp_path, "--admin-port", str(port), "--workers", "2") as (process, said):
        found(said, "2 workers")
        process.send_signal(signal.SIGHUP)
        for line in ("worker 2 serves", "worker 2 .*stopping"):  # in either order
            found(said, line)
        url = f"http://127.0.0.1:{port}/admin/v1/health"
        answer = httpx.get(url, headers=AUTHORIZED, trust_env=False, timeout=10)
        assert answer.json()["status"] == "ok"
    assert said.read_text().count("admin API:") == 2


def test_without_a_key_it_is_off_and_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, "--admin-port", "0", key=None) as (_, said):
        found(said, "admin API: off, it has no key: set LASTCHUNK_ADMIN_KEY")


@pytest.mark.parametrize(
    ("options", "key", "told"),
    [
        (["--admin-port", "0"], "short", "16 or more"),
        (["--admin-port", "18790", "--port", "18790"], KEY, "a port of its own"),
        (["--admin-port", "0", "--admin-key-file", "none"], None, "cannot be read"),
    ],
)
def test_a_start_that_cannot_be_meant_is_refused(
    tmp_path: Path, options: list[str], key: str | None, told: str
) -> None:
    with serving(tmp_path, *options, key=key) as (_, said):
        found(said, told)
