"""The ledger is away: an instrumented client goes on as before, or says so before it sends."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from in_process import CHAT, STREAMED, Corner, until

import lastchunk
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger, Reader, verify
from lastchunk.ledger import database as database_module


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A ledger of the test's own: it is taken away."""
    monkeypatch.setenv("LASTCHUNK_LEDGER_WAIT_SECONDS", "0.2")
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 1.0)
    path = str(tmp_path / "ledger.db")
    yield path
    lastchunk.close()
    assert verify(path).discrepancies == ()


@contextmanager
def held(path: str) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.rollback()


def rows(path: str, count: int) -> list[Any]:
    with Reader.open(path) as reader:
        until(
            lambda: [r.is_open for r in reader.calls()] == [False] * count,
            f"{count} settled rows",
            30,
        )
        return list(reader.calls())


def test_calls_pass_while_the_ledger_is_away(corner: Corner, ledger: str) -> None:
    client = corner.metered(openai.OpenAI(**corner.options()), ledger=ledger)
    with client, held(ledger):
        for _ in range(2):
            with client.chat.completions.create(**STREAMED) as stream:
                assert len(list(stream)) > 1
    assert [str(row.settlement.ending) for row in rows(ledger, 2)] == ["completed"] * 2


def test_a_process_that_starts_while_the_ledger_is_away_starts(corner: Corner, ledger: str) -> None:
    Ledger.open(ledger, clock=SystemClock()).close()
    with held(ledger):
        client = corner.metered(openai.OpenAI(**corner.options()), ledger=ledger)
        with client:
            client.chat.completions.create(**CHAT)
    assert [str(row.settlement.ending) for row in rows(ledger, 1)] == ["completed"]


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTCHUNK_WHEN_LEDGER_DOWN", "refuse")


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize("asked", [CHAT, STREAMED], ids=["whole", "streamed"])
def test_a_refused_call_raises_once_and_sends_nothing(
    asked: dict[str, Any], corner: Corner, ledger: str
) -> None:
    client = openai.OpenAI(**corner.options(max_retries=5))
    sent: list[httpx.Request] = []
    client._client.event_hooks = {"request": [sent.append], "response": []}
    corner.metered(client, ledger=ledger)
    with client:
        with held(ledger):
            for _ in range(2):
                with pytest.raises(lastchunk.LedgerUnavailable, match="refuse"):
                    client.chat.completions.create(**asked)
            with pytest.raises(lastchunk.LedgerUnavailable):
                client.chat.completions.with_raw_response.create(**asked)
        assert sent == []

        def works() -> bool:
            try:
                client.chat.completions.create(**CHAT)
            except lastchunk.LedgerUnavailable:
                return False
            return True

        until(works, "calls after the outage")
    assert len(sent) == 1


@pytest.mark.usefixtures("refusing")
def test_an_async_client_is_refused_the_same_way(corner: Corner, ledger: str) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(**corner.options(max_retries=5)) as client:
            corner.metered(client, ledger=ledger)
            with held(ledger):
                with pytest.raises(lastchunk.LedgerUnavailable, match="refuse"):
                    await client.chat.completions.create(**STREAMED)

    asyncio.run(run())


@pytest.mark.usefixtures("refusing")
def test_a_plain_http_client_is_refused_by_the_error(corner: Corner, ledger: str) -> None:
    with httpx.Client(base_url=corner.sim.base_url, headers=corner.headers()) as client:
        corner.metered(client, ledger=ledger)
        with held(ledger), pytest.raises(lastchunk.LedgerUnavailable, match="refuse"):
            client.post("chat/completions", json=CHAT)


@pytest.mark.usefixtures("refusing")
def test_a_process_that_refuses_does_not_start_without_its_ledger(
    corner: Corner, ledger: str
) -> None:
    Ledger.open(ledger, clock=SystemClock()).close()
    with held(ledger), pytest.raises(lastchunk.LedgerUnavailable, match="locked"):
        corner.metered(openai.OpenAI(**corner.options()), ledger=ledger)
