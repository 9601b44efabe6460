from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from gateway_stage import Behind, RunningGateway, Stage, running

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger, Reader
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.experience import Experience
from lastchunk.simulator import Simulator


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


@pytest.fixture(scope="session")
def shared_gateway(books: Bookkeeper, shared_sim: Simulator) -> Iterator[RunningGateway]:
    with running(shared_sim.url, books, grace_seconds=0.5) as gateway:
        yield gateway
    assert gateway.tasks_left == set()


@pytest.fixture
def stage(shared_gateway: RunningGateway, reader: Reader, shared_sim: Simulator) -> Stage:
    """A gateway before the simulator."""
    return Stage(shared_gateway, reader, shared_sim)


@pytest.fixture
def behind(books: Bookkeeper, reader: Reader) -> Iterator[Behind]:
    """A gateway of one's own before any upstream."""
    with ExitStack() as stack:

        def stage_before(upstream: str, **options: Any) -> Stage:
            return Stage(stack.enter_context(running(upstream, books, **options)), reader)

        yield stage_before
