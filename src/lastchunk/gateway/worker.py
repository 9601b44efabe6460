"""One of several gateway processes: its place beside the others, as the supervisor gave it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lastchunk.errors import SettingsError
from lastchunk.gateway import supervisor

_VARIABLE = "LASTCHUNK_WORKER"
"""Set by the supervisor, as JSON, for the processes that it starts."""


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which worker this is, of how many, and what it inherited: sockets, and two pipes."""

    number: int
    of: int
    listening: tuple[int, ...]
    lifeline: int
    ready: int

    @classmethod
    def inherited(cls) -> WorkerPlace | None:
        """This process's place; None where it is no worker. Found once: children have none."""
        if (told := os.environ.pop(_VARIABLE, None)) is None:
            return None
        try:
            place = json.loads(told)
            return cls(**place | {"listening": tuple(place["listening"])})
        except (ValueError, TypeError, KeyError):
            raise SettingsError(
                f"{_VARIABLE} is set by `lastchunk serve --workers` alone: unset it"
            ) from None

    def sockets(self) -> list[socket.socket]:
        """The sockets to accept from, listening already. The supervisor holds them too."""
        return [socket.socket(fileno=number) for number in self.listening]

    def tell_ready(self, upstream: str, url: str, ledger: str) -> None:
        """It accepts: the one before it may go."""
        told = json.dumps({"upstream": upstream, "url": url, "ledger": ledger})
        os.write(self.ready, told.encode())
        os.close(self.ready)

    def when_alone(self, act: Callable[[], object]) -> None:
        """Act once the supervisor is gone, however it ended: its end of the pipe closes then."""
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(self.lifeline)
            act()

        loop.add_reader(self.lifeline, gone)


def become_supervisor(
    workers: int, host: str, port: int, stop_seconds: float, *, logs_json: bool = False
) -> None:
    """This process goes on as the parent of so many workers, each started as this one was.

    It does not return. Raises SettingsError where there is no such thing.
    """
    if sys.platform == "win32":
        raise SettingsError("--workers needs an operating system with fork and signals: leave it 1")
    plan: dict[str, object] = {"workers": workers, "host": host, "port": port}
    plan |= {"stop_seconds": stop_seconds, "logs_json": logs_json}
    program = str(Path(supervisor.__file__))
    # Isolated and without site-packages: it needs the standard library alone, and stays small.
    arguments = [sys.executable, "-I", "-S", program, json.dumps(plan)]
    os.execv(sys.executable, [*arguments, sys.executable, *sys.orig_argv[1:]])
