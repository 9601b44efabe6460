"""Ledgers that are away: held by another process, or on a server that is stopped."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lastchunk.ledger import Ledger, SpoolOptions

WAIT_SECONDS = 0.2
PATIENCE_SECONDS = 30.0


def options(folder: Path, **changes: Any) -> SpoolOptions:
    values: dict[str, Any] = {"passes": True, "max_bytes": 1 << 24, "wait_seconds": WAIT_SECONDS}
    return SpoolOptions(folder=folder, **(values | changes))


def until(holds: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.01)
    return found


def until_back(ledger: Ledger) -> None:
    until(lambda: not ledger.health().is_away, "the ledger back")


@contextmanager
def held(url: str) -> Iterator[None]:
    """Another process holds the ledger's lock."""
    if url.startswith("postgresql"):
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute("LOCK TABLE entries, processes IN ACCESS EXCLUSIVE MODE")
            yield
            connection.rollback()
        return
    other = sqlite3.connect(url, isolation_level=None, check_same_thread=False, timeout=30)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.rollback()
        other.close()


class Server:
    """A PostgreSQL server of one's own, which may be stopped."""

    def __init__(self) -> None:
        found = shutil.which("initdb") or _newest("/usr/lib/postgresql/*/bin/initdb")
        if found is None:
            message = "no PostgreSQL server programs (initdb)"
            if os.environ.get("LASTCHUNK_REQUIRE_SERVICES") == "1":
                pytest.fail(message)
            pytest.skip(message)
        self._programs = Path(found).parent
        self._folder = Path(tempfile.mkdtemp(prefix="lastchunk-server-"))
        self._data = self._folder / "data"
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to be root
            self._user = {"user": "postgres"}
            shutil.chown(self._folder, "postgres")
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        told = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        log = self._data / "log"
        self._run("pg_ctl", "-D", self._data, "-l", log, "-w", "-o", told, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **self._user
        )


def _newest(pattern: str) -> str | None:
    found = sorted(Path("/").glob(pattern.lstrip("/")))
    return str(found[-1]) if found else None
