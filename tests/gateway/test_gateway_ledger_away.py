"""The ledger is away: calls through the gateway go on as before, or are refused before sending."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from gateway_stage import RunningGateway, Stage, running, until
from raw_http import exchange

from lastchunk.ledger import Reader, verify
from lastchunk.settings import Settings
from lastchunk.simulator import Simulator
from lastchunk.startup import open_books

ASKED = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}


@contextmanager
def held(path: Path) -> Iterator[None]:
    other = sqlite3.connect(path, isolation_level=None, timeout=30)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.rollback()
        other.close()


@contextmanager
def gateway(sim: Simulator, folder: Path, when: str) -> Iterator[RunningGateway]:
    settings = Settings(
        ledger=str(folder / "ledger.db"), when_ledger_down=when, ledger_wait_seconds=0.2
    )
    books = open_books(settings)
    try:
        with running(sim.url, books) as started:
            yield started
    finally:
        books.close()


def health(started: RunningGateway) -> tuple[int, dict[str, object]]:
    told = exchange(started.port, "GET", "/healthz")
    return told.status, json.loads(told.body)


def test_calls_pass_and_are_accounted_for_when_the_ledger_is_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Simulator() as sim, gateway(sim, tmp_path, "pass") as started:
        with Reader.open(str(path)) as reader:
            stage = Stage(started, reader, sim)
            with stage.client() as client, held(path):
                for _ in range(3):
                    with client.chat.completions.create(**ASKED, stream=True) as stream:
                        assert "".join(c.choices[0].delta.content or "" for c in stream)
                status, told = health(started)
                assert (status, told["status"]) == (200, "degraded")
                ledger = told["ledger"]
                assert isinstance(ledger, dict)
                assert ledger["state"] == "away"
                assert ledger["away_since"].endswith("+00:00")
                assert ledger["spooled_entries"] >= 3
                assert ledger["spool_bytes"] > 0
                assert list(reader.calls()) == []
            rows = stage.rows(3)
            billed = {call.response_id: call.output_tokens for call in stage.billed(3)}
            for row in rows:
                assert row.settlement is not None
                seen, output = row.settlement.observation, row.settlement.usage.output_tokens
                assert output is not None
                assert output.best == billed[seen.response_id or ""]
            until(lambda: health(started)[1]["status"] == "ok", "the gateway well")
    assert verify(str(path)).discrepancies == ()


def test_calls_are_refused_with_503_and_nothing_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Simulator() as sim, gateway(sim, tmp_path, "refuse") as started:
        with Reader.open(str(path)) as reader:
            stage = Stage(started, reader, sim)
            with stage.client() as client:
                with held(path):
                    for _ in range(2):
                        with pytest.raises(openai.InternalServerError) as caught:
                            client.chat.completions.create(**ASKED, stream=True)
                        assert caught.value.status_code == 503
                        assert caught.value.code == "ledger_away"
                        assert caught.value.type == "lastchunk_gateway"
                    status, told = health(started)
                    assert (status, told["status"]) == (503, "failing")
                    assert sim.bill(wait_s=0) == []
                until(lambda: health(started)[0] == 200, "the gateway well")
                client.chat.completions.create(**ASKED)
            stage.billed(1)

            def used() -> bool:
                return any(r.settlement and not r.settlement.nothing_used for r in reader.calls())

            until(used, "the call after the outage")
    assert verify(str(path)).discrepancies == ()
