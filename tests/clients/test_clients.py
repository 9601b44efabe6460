"""Real client libraries through the gateway: what each call leaves in the books, beside the true
bill, and that the page says what each library shows its user."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from client_cases import (
    CASES,
    DIALECTS,
    FIRST_OF_THE_MONTH,
    HOLDER,
    LIMITS,
    account_of,
    calls_of,
    what_is_wrong,
)
from client_environment import DRIVERS, clients_or_skip, run_driver
from gateway_stage import CHAT, STREAMED, RunningGateway, Stage
from node_driver import node_or_skip
from shown import rows_of, rows_on_the_page

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.config import read_config
from lastchunk.ledger import Ledger, Reader, verify
from lastchunk.pricing.book import PriceBook
from lastchunk.simulator import Fault, Script, Simulator

MODEL = "gpt-4o-mini"
LIBRARIES = ("openai", "openai-3", "node", "langchain", "llamaindex", "agents", "pydantic-ai")


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_real_client_is_accounted_for_and_shows_what_the_page_says(
    library: str, tmp_path: Path
) -> None:
    command, folder = driver_of(library)
    with stage(tmp_path, library) as place:
        told = run_driver(command, folder, f"{place.gateway.url}/v1", calls_of(library))
        saw = {one.name: one for one in told}
        wrong = {
            account: found
            for dialect in DIALECTS
            for name in CASES
            if (account := account_of(library, dialect, name))
            if (found := what_is_wrong(_at(place, account), name, saw[account]))
        }
        assert wrong == {}
    assert verify(str(tmp_path / "ledger.db")).is_clean
    by_case = {
        dialect: {name: saw[account_of(library, dialect, name)] for name in CASES}
        for dialect in DIALECTS
    }
    assert rows_on_the_page(library) == rows_of(library, by_case)


def driver_of(library: str) -> tuple[list[str], Path]:
    """The command that takes the calls, and where to run it."""
    if library == "node":
        folder = node_or_skip()
        shutil.copy(DRIVERS / "of_node.mjs", folder)
        return ["node", "of_node.mjs"], folder
    if library == "openai-3":  # the newest, which is in the tests' own environment
        return [sys.executable, "driver.py", "openai"], DRIVERS
    return [str(clients_or_skip()), "driver.py", library.replace("-", "_")], DRIVERS


@contextmanager
def stage(folder: Path, library: str) -> Iterator[Stage]:
    """A gateway with limits before the simulator; two of them are used up."""
    clock, url = SystemClock(), str(folder / "ledger.db")
    with Simulator() as sim:
        books = Bookkeeper(Ledger.open(url, clock=clock), PriceBook.load(None), clock)
        rules = f'[upstreams.sim]\nurl = "{sim.url}"\n{LIMITS}'
        gateway = RunningGateway(None, books, config=read_config(rules, "lastchunk.toml"))
        gateway.start()
        try:
            for _ in range(20):  # such calls are short as a rule: a long one is let in, and stopped
                books.accustom("", MODEL, 30)
            with Reader.open(url) as reader:
                place = Stage(gateway, reader, sim)
                with _used_up(place):
                    yield place
        finally:
            gateway.stop()
            books.close()


@contextmanager
def _used_up(place: Stage) -> Iterator[None]:
    """One call this month, and one stream open."""
    with _at(place, FIRST_OF_THE_MONTH).client() as client:
        client.chat.completions.create(**CHAT)
    held = Script(fault=Fault("stall", "first_chunk", seconds=300))
    with _at(place, HOLDER).client(script=held) as client:
        with client.chat.completions.create(**STREAMED):
            yield


def _at(place: Stage, account: str) -> Stage:
    return Stage(place.gateway, place.reader, place.sim, account)
