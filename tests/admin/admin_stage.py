"""A running gateway with its admin API, asked over real HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvloop
from ledger_facts import make_call, make_settlement

from lastchunk.admin import AdminOptions, AdminServer, Sources
from lastchunk.admin.auth import AdminKey
from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.config import Config, read_config
from lastchunk.gateway.app import Gateway, GatewayOptions
from lastchunk.ids import new_call_id
from lastchunk.ledger import Ledger
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.facts import OpenCall
from lastchunk.simulator import Simulator

KEY = "admin-key-for-the-tests-0123456789"
AUTHORIZED = {"authorization": f"Bearer {KEY}"}
PATIENCE_SECONDS = 10.0
RULES = """
timezone = "Europe/Berlin"

[[limits]]
name = "each team, a month"
account = "acme/*"
usd = "0.5"
per = "month"

[[limits]]
name = "acme at once"
account = "acme"
streams = 5

[[limits]]
name = "requests"
requests = 1000
per = "day"
mode = "balanced"
"""


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something to hold."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_SECONDS} s"
        time.sleep(0.002)


class Admin:
    """The API of one gateway, and the ledger behind it."""

    def __init__(self, ledger_url: str) -> None:
        self.ledger_url = ledger_url
        self.clock = SystemClock()
        self.ledger = Ledger.open(ledger_url, clock=self.clock)
        self.bookkeeper = Bookkeeper(self.ledger, PriceBook.load(None), self.clock)
        self.rules: Config = read_config(RULES, "lastchunk.toml")
        self.sources = Sources(ledger_url, self.bookkeeper, rules=lambda: self.rules)
        self.url = self.public_url = ""
        self.http = httpx.Client(headers=AUTHORIZED, timeout=30, trust_env=False)

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of an answer that must be 200."""
        answer = self.http.get(self.url + path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self.http.post(self.url + path, json={} if body is None else body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def pages(self, path: str, **query: Any) -> Iterator[list[Any]]:
        """The items of every page until the last."""
        cursor: dict[str, str] = {}
        while True:
            page = self.get(path, **query, **cursor)
            yield page["items"]
            if page["next"] is None:
                return
            cursor = {"cursor": page["next"]}

    def write_call(self, *, settled: bool = True, **changes: Any) -> OpenCall:
        now_ms = changes.pop("opened_ms", self.clock.now_ms())
        cost = changes.pop("cost", 500)
        call = make_call(new_call_id(now_ms), opened_ms=now_ms, way="gateway", **changes)
        self.ledger.reserve(call).result(PATIENCE_SECONDS)
        if settled:
            settlement = make_settlement(call, cost)
            self.ledger.settle(call, settlement, now_ms).result(PATIENCE_SECONDS)
        return call

    def write_calls(self, count: int) -> None:
        """Some of acme's teams, every fourth one open, the one after it without a price."""
        for number in range(count):
            self.write_call(
                account=f"acme/team{number % 3}",
                settled=number % 4 != 0,
                cost=None if number % 4 == 1 else 1_500_000 + number,
            )

    @contextmanager
    def reloading(self, reload: Callable[[], Awaitable[None]]) -> Iterator[None]:
        self.sources.reload = reload
        try:
            yield
        finally:
            self.sources.reload = None

    async def serve(self, upstream: str, ready: threading.Event, stop: asyncio.Event) -> None:
        gateway = Gateway(GatewayOptions(upstream=upstream, port=0), self.bookkeeper)
        admin = AdminServer(AdminOptions(AdminKey(KEY), port=0), self.sources)
        async with gateway, admin:
            self.url, self.public_url = admin.url, gateway.url
            ready.set()
            await stop.wait()


@contextmanager
def admin_beside(ledger_url: str) -> Iterator[Admin]:
    """A gateway before the simulator, with its admin API, on a loop in a thread."""
    admin, ready = Admin(ledger_url), threading.Event()
    stops: list[Callable[[], object]] = []

    def run(upstream: str) -> None:
        async def serve() -> None:
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            stops.append(lambda: loop.call_soon_threadsafe(stop.set))
            await admin.serve(upstream, ready, stop)

        uvloop.run(serve())

    with Simulator() as sim:
        thread = threading.Thread(target=run, args=(sim.url,), daemon=True)
        thread.start()
        assert ready.wait(PATIENCE_SECONDS)
        try:
            yield admin
        finally:
            admin.http.close()
            stops[0]()
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
            admin.bookkeeper.close()
