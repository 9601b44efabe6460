"""One simulator, one ledger a way in, and one client a stage, for all stories of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from story import Story
from story_judge import Play
from story_pure import play_pure
from story_stages import AsyncStage, Clients, GatewayStage, Scenery, Stage, running_gateway
from story_tape import running_tape

import lastchunk
from lastchunk.simulator import Simulator

KEY = "sk-none"


@pytest.fixture(scope="session")
def scenery() -> Iterator[Scenery]:
    with Simulator() as sim, running_tape() as tape:
        yield Scenery(sim, tape)


@pytest.fixture(scope="session")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledgers")


@pytest.fixture(scope="session")
def in_process(ledgers: Path) -> Iterator[Path]:
    """The ledger of the instrumented clients; what stays open at the end is settled by `close`."""
    yield ledgers / "in-process.db"
    lastchunk.close()


@pytest.fixture(scope="session")
def sync_stage(scenery: Scenery, in_process: Path) -> Iterator[Stage]:
    with openai.OpenAI(api_key=KEY, base_url=scenery.sim.base_url) as client:
        lastchunk.instrument(client, ledger=str(in_process))
        stage = Stage("sync", scenery, in_process, _both(client, scenery))
        yield stage
        stage.close()


@pytest.fixture(scope="session")
def async_stage(scenery: Scenery, in_process: Path) -> Iterator[Stage]:
    with asyncio.Runner() as runner:
        client = openai.AsyncOpenAI(api_key=KEY, base_url=scenery.sim.base_url)
        lastchunk.instrument(client, ledger=str(in_process))
        stage = AsyncStage(scenery, in_process, _both(client, scenery), runner)
        yield stage
        runner.run(client.close())
        stage.close()


@pytest.fixture(scope="session")
def gateway_stage(scenery: Scenery, ledgers: Path) -> Iterator[Stage]:
    ledger = ledgers / "gateway.db"
    upstreams = scenery.sim.url, scenery.tape.url
    with (
        running_gateway(upstreams[0], ledger) as sim,
        running_gateway(upstreams[1], ledger) as tape,
    ):
        client = openai.OpenAI(api_key=KEY, base_url=sim)
        stage = GatewayStage(
            "gateway", scenery, ledger, Clients(client, client.with_options(base_url=tape))
        )
        yield stage
        client.close()
        stage.close()


def _both(client: openai.OpenAI | openai.AsyncOpenAI, scenery: Scenery) -> Clients:
    """Copies of a client share its HTTP client, and so are metered like it."""
    return Clients(client, client.with_options(base_url=f"{scenery.tape.url}/v1"))


@pytest.fixture
def play(request: pytest.FixtureRequest) -> Callable[[Story, str], Play]:
    """Plays a story on a stage, which is built when it is first needed."""

    def played(story: Story, stage: str) -> Play:
        if stage == "pure":
            return play_pure(story)
        return request.getfixturevalue(f"{stage}_stage").play(story)

    return played
