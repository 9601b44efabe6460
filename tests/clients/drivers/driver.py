"""Streams calls through one client library, and prints what its user sees: a JSON line a call.

    python driver.py langchain '{"base_url": …, "cases": [{"name": …, "dialect": …}, …]}'

Runs in the environment of the libraries, which does not have lastchunk. Each library is a module
beside this one with a function `stream(call, saw)`; it may be a coroutine.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import json
import logging
import sys
import time
from typing import Any

from saw import Call, Saw


def only_this_machine(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: nothing here may look up or connect to another machine."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in ("127.0.0.1", "::1", "localhost", None, b"127.0.0.1"):
        raise PermissionError(f"{host} is not on this machine")


class Attempts(logging.Handler):
    """Counts the requests that httpx and httpx2 tell of."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0
        for name in ("httpx", "httpx2"):
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.propagate = False
            logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith("HTTP Request: POST")


def seen(stream: Any, call: Call, attempts: Attempts) -> Saw:
    """One call, to its end or to its error."""
    saw = Saw(call.name)
    begun, before = time.monotonic(), attempts.count
    try:
        if inspect.iscoroutinefunction(stream):
            asyncio.run(stream(call, saw))
        else:
            stream(call, saw)
    except Exception as error:
        saw.failed(error)
    saw.seconds = time.monotonic() - begun
    saw.attempts = attempts.count - before
    return saw


def main(library: str, given: str) -> None:
    sys.addaudithook(only_this_machine)
    attempts = Attempts()
    stream = importlib.import_module(f"of_{library}").stream
    asked = json.loads(given)
    for case in asked["cases"]:
        saw = seen(stream, Call(base_url=asked["base_url"], **case), attempts)
        print(json.dumps(dataclasses.asdict(saw)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
