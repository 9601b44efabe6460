"""`lastchunk serve --workers N` in real processes, and clients that stream from it."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

import lastchunk
from lastchunk.ledger import CallFilter, CallRecord, Reader, verify
from lastchunk.simulator import Script, write_script

PATIENCE_SECONDS = 40.0
STREAMED = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "hello"}],
    "stream": True,
}


def until(holds: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return found


class Fleet:
    """A supervisor and its workers on one ledger."""

    def __init__(self, upstream: str, ledger: str, said: Path, workers: int, *options: str) -> None:
        self.ledger, self._said, self.workers = ledger, said, workers
        here = os.environ | {
            "PYTHONPATH": str(Path(lastchunk.__file__).parents[1]),
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "lastchunk", "serve", "--port", "0", "--workers"]
        options = (str(workers), "--upstream", upstream, "--ledger", ledger, *options)
        with said.open("w") as file:
            self.process = subprocess.Popen(
                [*command, *options], stdout=subprocess.PIPE, stderr=file, text=True, env=here
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " at http://" in line, self.said()
        self.url = line.split()[-1]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def said(self) -> str:
        return self._said.read_text()

    def pids(self) -> list[int]:
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        children = [] if self.process.poll() is not None else self.pids()
        for pid in (self.process.pid, *children):
            if self.process.returncode is None:
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def rows(self) -> list[CallRecord]:
        with Reader.open(self.ledger) as reader:
            return list(reader.calls(CallFilter(), newest_first=False))

    def assert_sound(self) -> dict[str, CallRecord]:
        """Each row resolved exactly once; by call id."""
        rows = self.rows()
        for row in rows:
            kinds = [entry.kind.value for entry in row.entries]
            assert kinds in (["reserved", "settled"], ["reserved", "released"]), row
        assert verify(self.ledger).is_clean
        return {row.call_id: row for row in rows}


@contextmanager
def fleet(
    upstream: str, ledger: str, folder: Path, *options: str, workers: int = 3
) -> Iterator[Fleet]:
    running = Fleet(upstream, ledger, folder / "said", workers, *options)
    try:
        yield running
    finally:
        running.close()


@dataclass
class Load:
    """Clients that stream one call after the other, each over connections that it keeps."""

    url: str
    tokens: tuple[int, ...] = (5, 40)
    whole: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Calls whose stream broke after it had begun."""
    refused: list[str] = field(default_factory=list)
    """What kept a call from beginning."""
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, clients: int) -> Iterator["Load"]:
        threads = [threading.Thread(target=self._client, args=(n,)) for n in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _client(self, number: int) -> None:
        rng = random.Random(f"20:{number}")
        with httpx2.Client(verify=False, timeout=30) as http:
            while not self._over.is_set():
                self._call(http, Script(output_tokens=rng.choice(self.tokens), pacing_s=0.02))
                time.sleep(rng.choice((0, 0.05)))

    def _call(self, http: httpx2.Client, script: Script) -> None:
        call_id, told = "", ""
        try:
            with http.stream(
                "POST",
                f"{self.url}/v1/chat/completions",
                json=STREAMED,
                headers={"x-sim": write_script(script)},
            ) as response:
                call_id = response.headers.get("x-lastchunk-call-id", "")
                for line in response.iter_lines():
                    told = line or told
        except httpx2.HTTPError as error:
            self.broken.append(call_id) if call_id else self.refused.append(repr(error))
            return
        if response.status_code == 200 and told == "data: [DONE]":
            self.whole.append(call_id)
        else:
            self.refused.append(f"{response.status_code} {told}")
