"""The processes that calls are played on: the simulated provider and the gateway before it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lastchunk.errors import LastchunkError
from lastchunk.simulator import BilledCall

START_SECONDS = 30.0
STOP_SECONDS = 15.0
BILL_SECONDS = 15.0
"""How long the provider is waited for to notice that everybody left."""

_URL = re.compile(r" at (http://127\.0\.0\.1:\d+)")


class StageFailed(LastchunkError):
    """A process that calls are to be played on did not start, or ended by itself."""


class BillPage(msgspec.Struct):
    """The provider's bill as it stands."""

    calls: list[BilledCall]
    open_calls: int


class UnderWay(msgspec.Struct):
    """Tags of calls at the provider: all that are open, and those that a fault holds still."""

    open: list[str]
    held: list[str]


class Server:
    """`lastchunk serve` or `lastchunk simulate` as a process that has told its root URL."""

    def __init__(self, *command: str, place: Place | None = None) -> None:
        self._name = command[0]
        self._process = python("-m", "lastchunk", *command, place=place)
        self.url = self._started()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def _close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _started(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := _URL.search(line):
                return found[1]
        code = self._process.wait()
        self._close()
        raise StageFailed(f"`lastchunk {self._name}` did not start: exit code {code}")


@contextmanager
def simulated_provider(seed: int) -> Iterator[str]:
    """`lastchunk simulate`, as a process; gives its root URL."""
    server = Server("simulate", "--port", "0", "--seed", str(seed))
    try:
        yield server.url
    finally:
        server.stop()


def gateway_before(
    provider: str, ledger: str, *options: str, silence_seconds: float, place: Place | None = None
) -> Server:
    """`lastchunk serve`, as a process. When it has been stopped all is written."""
    where = ("--upstream", provider, "--ledger", ledger, "--read-timeout", str(silence_seconds))
    return Server("serve", "--port", "0", *where, *options, place=place)


def bill_now(provider: str) -> BillPage:
    """The provider's bill as it stands."""
    return msgspec.json.decode(_page(f"{provider}/_bill"), type=BillPage)


def under_way(provider: str) -> UnderWay:
    """The tags of the calls that are open at the provider."""
    return msgspec.json.decode(_page(f"{provider}/_open"), type=UnderWay)


def true_bill(provider: str) -> list[BilledCall]:
    """The provider's bill, once no call is open there any more."""
    deadline = time.monotonic() + BILL_SECONDS
    while True:
        page = bill_now(provider)
        if not page.open_calls or time.monotonic() > deadline:
            return page.calls
        time.sleep(0.1)


def _page(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=BILL_SECONDS) as answer:
        told: bytes = answer.read()
    return told


def address_of_nobody() -> str:
    """A root URL where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs, out of reach of anybody's own settings: these hold, and no others."""

    folder: Path
    settings: Mapping[str, str]

    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("LASTCHUNK_")}
        return inherited | {f"LASTCHUNK_{k.upper()}": v for k, v in self.settings.items()}


def python(
    *arguments: str, place: Place | None = None, takes_input: bool = False
) -> subprocess.Popen[str]:
    """A Python process whose output is read as lines."""
    environment = dict(os.environ) if place is None else place.environment()
    return subprocess.Popen(
        (sys.executable, *arguments),
        stdin=subprocess.PIPE if takes_input else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # trouble is what is played here
        text=True,
        cwd=None if place is None else place.folder,
        # No proxy stands between here and here.
        env=environment | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
    )
