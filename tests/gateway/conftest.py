from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from gateway_stage import Behind, RunningGateway, Stage, running

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.gateway.upstream import LegName
from lastchunk.ledger import Ledger, Reader
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.experience import Experience
from lastchunk.simulator import Simulator

SharedGateways = Callable[[LegName], RunningGateway]


@pytest.fixture(scope="module", autouse=True)
def nothing_is_learned() -> Iterator[None]:
    """These upstreams report what they like: it must not correct the counts of the next test."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Experience, "learn", lambda *_, **__: [])
        yield


@pytest.fixture(scope="session")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bookkeeper]:
    """One ledger for all tests here: each looks at its own account only."""
    path = tmp_path_factory.mktemp("gateway") / "ledger.db"
    clock = SystemClock()
    bookkeeper = Bookkeeper(Ledger.open(str(path), clock=clock), PriceBook.load(None), clock)
    yield bookkeeper
    bookkeeper.close()


@pytest.fixture(scope="session")
def reader(books: Bookkeeper) -> Iterator[Reader]:
    with Reader.open(books.ledger.url) as found:
        yield found


@pytest.fixture(scope="session")
def shared_sim() -> Iterator[Simulator]:
    with Simulator() as sim:
        yield sim


ON_BOTH_LEGS = {
    "test_gateway_accounts",
    "test_gateway_cuts",
    "test_gateway_forwarding",
    "test_gateway_hangups",
    "test_gateway_upstream_faults",
}
"""What the way to the upstream decides. The other files run on the leg that is the default."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "leg" in metafunc.fixturenames and metafunc.module.__name__ in ON_BOTH_LEGS:
        metafunc.parametrize("leg", ["thin", "aiohttp"])


@pytest.fixture
def leg() -> LegName:
    return "thin"


@pytest.fixture(scope="session")
def shared_gateways(books: Bookkeeper, shared_sim: Simulator) -> Iterator[SharedGateways]:
    started: dict[LegName, RunningGateway] = {}
    with ExitStack() as stack:

        def gateway_on(leg: LegName) -> RunningGateway:
            if leg not in started:
                gateway = running(shared_sim.url, books, grace_seconds=0.5, leg=leg)
                started[leg] = stack.enter_context(gateway)
            return started[leg]

        yield gateway_on
    for gateway in started.values():
        assert gateway.tasks_left == set()


@pytest.fixture
def stage(
    shared_gateways: SharedGateways, reader: Reader, shared_sim: Simulator, leg: LegName
) -> Stage:
    """A gateway before the simulator."""
    return Stage(shared_gateways(leg), reader, shared_sim)


@pytest.fixture
def behind(books: Bookkeeper, reader: Reader, leg: LegName) -> Iterator[Behind]:
    """A gateway of one's own before any upstream."""
    with ExitStack() as stack:

        def stage_before(upstream: str, **options: Any) -> Stage:
            given = {"leg": leg} | options
            return Stage(stack.enter_context(running(upstream, books, **given)), reader)

        yield stage_before
