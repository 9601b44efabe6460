"""What the calls are played on: the simulated provider and the gateway, each a process."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from lastchunk.demo.scenario import SILENCE_SECONDS
from lastchunk.errors import LastchunkError
from lastchunk.simulator import BilledCall

START_SECONDS = 30.0
STOP_SECONDS = 15.0
BILL_SECONDS = 15.0
"""How long the provider is waited for to notice that everybody left."""

_URL = re.compile(r" at (http://127\.0\.0\.1:\d+)")


class DemoFailed(LastchunkError):
    """The demo could not be played to its end."""


class _BillPage(msgspec.Struct):
    calls: list[BilledCall]
    open_calls: int


@contextmanager
def simulated_provider(seed: int) -> Iterator[str]:
    """`lastchunk simulate`, as a process; gives its root URL."""
    with _server("simulate", "--port", "0", "--seed", str(seed)) as url:
        yield url


@contextmanager
def gateway_before(provider: str, ledger: str) -> Iterator[str]:
    """`lastchunk serve`, as a process; gives its root URL. When it has stopped all is written."""
    silence = str(SILENCE_SECONDS)
    options = ("--upstream", provider, "--ledger", ledger, "--read-timeout", silence)
    with _server("serve", "--port", "0", *options) as url:
        yield url


def true_bill(provider: str) -> list[BilledCall]:
    """The provider's bill, once no call is open there any more."""
    deadline = time.monotonic() + BILL_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        with opener.open(f"{provider}/_bill", timeout=BILL_SECONDS) as answer:
            page = msgspec.json.decode(answer.read(), type=_BillPage)
        if not page.open_calls or time.monotonic() > deadline:
            return page.calls
        time.sleep(0.1)


def address_of_nobody() -> str:
    """A root URL where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def python(*arguments: str) -> subprocess.Popen[str]:
    """A Python process whose output is read as lines."""
    return subprocess.Popen(
        (sys.executable, *arguments),
        stdout=subprocess.PIPE,
        stderr=tempfile.TemporaryFile("w+"),
        text=True,
        # No proxy stands between here and here.
        env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
    )


@contextmanager
def _server(*command: str) -> Iterator[str]:
    process = python("-m", "lastchunk", *command)
    try:
        yield _started(process, command[0])
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _started(process: subprocess.Popen[str], name: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := _URL.search(line):
            return found[1]
    raise DemoFailed(f"`lastchunk {name}` did not start: exit code {process.wait()}")
