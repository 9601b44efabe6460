"""kill -9 of the gateway under load: every call that a client saw a byte of has its row."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx2
from killing import ALL, ENVIRONMENT, PATIENCE_SECONDS, Place, lost, until

from lastchunk.simulator import Script, write_script

SEED = int(os.environ.get("LASTCHUNK_SEED", "20"))
KILLS = 25 if ALL else 3
CLIENTS = 6
STREAMED = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "hello"}],
    "stream": True,
}
SERVE = "from lastchunk.cli import main; main()"


class Gateways:
    """One gateway after the other on one ledger, at an address that changes."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.url = ""
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        options = ["--upstream", self.place.sim.url, "--port", "0", "--ledger", self.place.ledger]
        with (self.place.folder / "served").open("a") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE, "serve", *options],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env=ENVIRONMENT,
            )
        assert process.stdout is not None
        self.url = process.stdout.readline().split()[-1]
        return process

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@contextmanager
def clients(gateways: Gateways, delivered: list[str]) -> Iterator[None]:
    """Clients that stream without end, some leaving early, whatever the gateway does."""
    over = threading.Event()

    def stream(number: int) -> None:
        rng = random.Random(f"{SEED}:{number}")
        while not over.is_set():
            script = Script(output_tokens=rng.choice((5, 40, 400)), pacing_s=0.02)
            with suppress(httpx2.HTTPError):  # the gateway was killed
                _one_call(http, gateways.url, script, rng.choice((10, 1_000_000)), delivered)
            time.sleep(0.02)

    http = httpx2.Client(verify=False, timeout=20)
    threads = [threading.Thread(target=stream, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
        http.close()


def _one_call(
    http: httpx2.Client, url: str, script: Script, limit: int, delivered: list[str]
) -> None:
    headers = {"x-sim": write_script(script)}
    with http.stream(
        "POST", f"{url}/v1/chat/completions", json=STREAMED, headers=headers
    ) as response:
        for seen, _ in enumerate(response.iter_lines()):
            if seen == 0:
                delivered.append(response.headers["x-lastchunk-call-id"])
            if seen == limit:
                return


def test_a_killed_gateway_leaves_each_served_call_with_one_row(place: Place) -> None:
    print(f"LASTCHUNK_SEED={SEED}")
    rng = random.Random(SEED)
    delivered: list[str] = []
    gateways = Gateways(place)
    with clients(gateways, delivered):
        for _ in range(KILLS):
            before = len(delivered)
            until(lambda: len(delivered) > before + 4, "calls are served")  # noqa: B023
            time.sleep(rng.uniform(0, 1.2))
            assert gateways.end(signal.SIGKILL) == -signal.SIGKILL
            gateways.process = gateways.start()
        before = len(delivered)
        until(lambda: len(delivered) > before + 4, "calls are served again")
    assert gateways.end(signal.SIGTERM) == 0
    assert place.recover() == [], "the last gateway recovered what the others left"
    rows = place.assert_sound(delivered)
    assert len({row.process_id for row in lost(rows)}) >= KILLS - 1
    assert any(row.settlement and row.settlement.observation.bytes for row in lost(rows))
    assert place.assert_truthful(rows) >= KILLS
    assert "Traceback" not in (place.folder / "served").read_text()
