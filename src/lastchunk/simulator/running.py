"""Runs the provider: in a thread for tests, or in the foreground for the command line."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import TracebackType

from aiohttp import web

from lastchunk.simulator.bill import BilledCall
from lastchunk.simulator.script import PLAIN, Script
from lastchunk.simulator.server import Provider

LOOPBACK = "127.0.0.1"
# Stalled calls are cancelled at the end, not waited for.
SHUTDOWN_S = 0.05
START_S = 10.0


class Simulator:
    """A provider on 127.0.0.1 while the `with` block lasts.

    `script` is what calls do that bring no `x-sim` header and find no queued script; None draws
    a script for each from `seed`.
    """

    def __init__(self, script: Script | None = PLAIN, *, seed: int = 0, port: int = 0) -> None:
        self._provider = Provider(script, seed)
        self._wanted_port = port
        self._port = 0
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)

    @property
    def url(self) -> str:
        """The server's root: `http://127.0.0.1:port`."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client wants as base_url."""
        return f"{self.url}/v1"

    @property
    def port(self) -> int:
        return self._port

    def next(self, *scripts: Script) -> None:
        """The next calls without an `x-sim` header follow these scripts, one each, in order."""
        self._provider.queue(*scripts)

    def bill(self, *, wait_s: float = 5.0) -> list[BilledCall]:
        """The true bill, in the order of arrival; waits up to `wait_s` for calls still open."""
        self._provider.bill.wait_until_settled(wait_s)
        return self._provider.bill.calls()

    def billed(self, tag: str, *, wait_s: float = 5.0) -> list[BilledCall]:
        """The attempts that carried `x-sim-tag: tag`."""
        return [call for call in self.bill(wait_s=wait_s) if call.tag == tag]

    def reset(self) -> None:
        """Forget the bill."""
        self._provider.bill.clear()

    @property
    def open_calls(self) -> int:
        return self._provider.bill.open_calls

    def start(self) -> Simulator:
        self._thread.start()
        if not self._started.wait(START_S):
            raise TimeoutError(f"the simulator did not start within {START_S:g} s")
        if self._failure is not None:
            raise self._failure
        return self

    def stop(self) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # told to the thread that waits in start()
            self._failure = error
            self._started.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()

        def started(port: int) -> None:
            self._port = port
            self._started.set()

        await _serve(self._provider, LOOPBACK, self._wanted_port, self._stop, started)


def serve_forever(
    host: str = LOOPBACK,
    port: int = 8000,
    *,
    script: Script | None = None,
    seed: int = 0,
    on_start: Callable[[str], None] | None = None,
) -> list[BilledCall]:
    """Serve until SIGINT or SIGTERM, then return the bill. `on_start` gets the base_url."""
    provider = Provider(script, seed)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)

        def started(bound: int) -> None:
            if on_start is not None:
                on_start(f"http://{host}:{bound}/v1")

        await _serve(provider, host, port, stop, started)

    asyncio.run(main())
    return provider.bill.calls()


async def _serve(
    provider: Provider,
    host: str,
    port: int,
    stop: asyncio.Event,
    started: Callable[[int], None],
) -> None:
    runner = web.AppRunner(
        provider.app(), handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=4096)
        await site.start()
        started(runner.addresses[0][1])
        await stop.wait()
    finally:
        provider.stopping = True
        await runner.cleanup()
