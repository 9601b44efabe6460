"""`/readyz` is 200 only while calls are served as the settings promise."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fleet import fleet, until
from gateway_stage import RunningGateway, running
from outages import held
from scraped import told

from lastchunk.settings import Settings
from lastchunk.simulator import Script, Simulator, write_script
from lastchunk.startup import open_books


@contextmanager
def gateway(sim: Simulator, ledger: str, **given: object) -> Iterator[RunningGateway]:
    books = open_books(Settings(ledger=ledger, ledger_wait_seconds=0.2, **given))  # type: ignore[arg-type]
    try:
        with running(sim.url, books) as started:
            yield started
    finally:
        books.close()


def status(started: RunningGateway) -> int:
    return told(f"{started.url}/readyz")[0]


@pytest.mark.parametrize(("when", "expected"), [("pass", 200), ("refuse", 503)])
def test_a_ledger_that_is_away_is_ready_where_calls_pass_alone(
    sim: Simulator, tmp_path: Path, when: str, expected: int
) -> None:
    ledger = str(tmp_path / "l.db")
    with gateway(sim, ledger, when_ledger_down=when) as started:
        assert status(started) == 200
        with held(ledger):
            play_one(started)
            until(lambda: is_away(started), "the ledger is away")
            code, said = told(f"{started.url}/readyz")
            assert code == expected
            assert "path" not in str(said)
            assert str(tmp_path) not in str(said)
        until(lambda: status(started) == 200, "it is back")


def test_a_full_spool_is_not_ready(sim: Simulator, tmp_path: Path) -> None:
    ledger = str(tmp_path / "l.db")
    with gateway(sim, ledger, when_ledger_down="pass", spool_bytes=64 * 1024) as started:
        with held(ledger):
            for _ in range(60):
                play_one(started)
                if status(started) == 503:
                    break
            code, said = told(f"{started.url}/readyz")
            assert (code, said["status"]) == (503, "not ready")
            assert "spool" in str(said["why"])
            assert told(f"{started.url}/healthz")[0] == 200
        until(lambda: status(started) == 200, "it is back")


def test_a_stop_is_announced_while_calls_are_still_taken(sim: Simulator, tmp_path: Path) -> None:
    from httpx2 import get

    with fleet(sim.url, str(tmp_path / "l.db"), tmp_path, "--notice", "3", workers=2) as gateways:
        ready = f"{gateways.url}/readyz"
        code, said = told(ready)
        assert code == 200
        assert {"status", "ledger", "drains", "open_calls", "worker", "workers"} <= set(said)
        gateways.process.terminate()
        until(lambda: told(ready)[0] == 503, "the notice", 3)
        assert get(f"{gateways.url}/v1/models").status_code < 500, "still served"
        assert told(f"{gateways.url}/healthz")[0] == 200
        assert gateways.process.wait(20) == 0


def is_away(started: RunningGateway) -> bool:
    ledger = told(f"{started.url}/healthz")[1]["ledger"]
    assert isinstance(ledger, dict)
    return ledger["state"] == "away"


def play_one(started: RunningGateway) -> None:
    import httpx2

    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"x-sim": write_script(Script(output_tokens=3))}
    httpx2.post(f"{started.url}/v1/chat/completions", json=body, headers=headers, timeout=20)
