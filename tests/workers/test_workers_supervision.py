"""The supervisor: signals, crashes, its own death, and what cannot be started."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fleet import Fleet, fleet, until

from lastchunk import Ending
from lastchunk.gateway.supervisor import LONGEST_PAUSE_SECONDS, pause_after
from lastchunk.simulator import Simulator

STREAMS = 40


def health(running: Fleet) -> dict[str, int]:
    with urllib.request.urlopen(f"{running.url}/healthz", timeout=10) as answer:
        told: dict[str, int] = json.load(answer)
        return told


def is_gone(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_connections_are_spread_over_all_workers(sim: Simulator, tmp_path: Path) -> None:
    with fleet(sim.url, str(tmp_path / "l.db"), tmp_path) as running:
        told = [health(running) for _ in range(90)]
        assert running.end(signal.SIGINT) == 0
        assert running.process.stdout is not None
        assert "every row is written" in running.process.stdout.read()
    numbers = [one["worker"] for one in told]
    assert {one["workers"] for one in told} == {3}
    assert min(numbers.count(number) for number in (1, 2, 3)) >= 10


@pytest.mark.parametrize("how", ["deadline", "second signal", "supervisor killed"])
def test_many_streams_that_do_not_end_are_cut_and_settled(tmp_path: Path, how: str) -> None:
    from raw_http import raw_upstream
    from test_gateway_stopping import Holding, open_streams

    deadline = "60" if how == "second signal" else "0.5"
    ledger = str(tmp_path / "l.db")
    with ExitStack() as stack:
        upstream = stack.enter_context(raw_upstream(Holding()))
        options = ("--stop-timeout", deadline)
        running = stack.enter_context(fleet(upstream.url, ledger, tmp_path, *options, workers=2))
        streams = stack.enter_context(open_streams(running.port, STREAMS))
        workers = running.pids()
        first = signal.SIGKILL if how == "supervisor killed" else signal.SIGTERM
        running.process.send_signal(first)
        if how == "second signal":
            until(lambda: running.said().count("stopping: ") == 2, "the first signal is seen")
            running.process.send_signal(signal.SIGTERM)
        assert not any(reading.message(is_answer=True).whole for reading in streams)  # type: ignore[union-attr]
        status = running.process.wait(20)
        until(lambda: all(is_gone(pid) for pid in workers), "the workers are gone")
        assert status == (-signal.SIGKILL if how == "supervisor killed" else 0), running.said()
        rows = running.assert_sound()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.port))
    assert "Traceback" not in running.said()
    endings = [row.settlement.ending for row in rows.values() if row.settlement]
    assert endings == [Ending.LIMIT_REACHED] * STREAMS


def test_whoever_stops_all_processes_at_once_hurries_nobody(tmp_path: Path) -> None:
    """As systemd does: the workers hear SIGTERM from it, and again from their supervisor."""
    from raw_http import raw_upstream
    from test_gateway_stopping import Holding, open_streams

    holding = Holding()
    with ExitStack() as stack:
        upstream = stack.enter_context(raw_upstream(holding))
        ledger = str(tmp_path / "l.db")
        running = stack.enter_context(fleet(upstream.url, ledger, tmp_path, workers=2))
        streams = stack.enter_context(open_streams(running.port, 10))
        for pid in (running.process.pid, *running.pids()):
            os.kill(pid, signal.SIGTERM)
        until(lambda: running.said().count("stopping: ") == 2, "both stop")
        holding.go.set()
        assert all(reading.message(is_answer=True).whole for reading in streams)  # type: ignore[union-attr]
        assert running.process.wait(20) == 0
        rows = running.assert_sound()
    assert {row.settlement.ending for row in rows.values() if row.settlement} == {Ending.COMPLETED}


def test_a_worker_that_crashes_again_and_again_waits_and_the_others_serve(
    sim: Simulator, tmp_path: Path
) -> None:
    with fleet(sim.url, str(tmp_path / "l.db"), tmp_path, workers=2) as running:
        steady = running.pids()[0]
        for number in range(3):
            pid = until(lambda: [p for p in running.pids() if p != steady], "it runs")[0]
            os.kill(pid, signal.SIGKILL)
            until(lambda: running.said().count("killed by signal 9") > number, "noticed")  # noqa: B023
        assert "3 times in a row" in running.said()
        assert {health(running)["worker"] for _ in range(20)} == {1}
        until(lambda: "worker 2 serves" in running.said(), "it was started again")
        assert {health(running)["worker"] for _ in range(40)} == {1, 2}
        assert running.end() == 0, running.said()


def test_pauses_grow_to_a_limit() -> None:
    pauses = [pause_after(crashes) for crashes in range(1, 40)]
    assert pauses[:4] == [0.0, 0.5, 1.0, 2.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_successors_that_cannot_start_leave_the_old_ones_in_place(
    sim: Simulator, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('[models."m"]\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 1\n')
    options = ("--prices", str(prices))
    with fleet(sim.url, str(tmp_path / "l.db"), tmp_path, *options, workers=2) as running:
        before = running.pids()
        prices.write_text("this is no price\n")
        running.process.send_signal(signal.SIGHUP)
        until(lambda: "the one before it goes on" in running.said(), "it is said")
        assert running.pids() == before
        assert {health(running)["worker"] for _ in range(40)} == {1, 2}
        assert running.end() == 0


def test_rules_that_cannot_be_used_are_refused_with_their_line_and_nothing_is_rolled(
    sim: Simulator, tmp_path: Path
) -> None:
    config = tmp_path / "lastchunk.toml"
    good = '[[limits]]\nname = "few"\nrequests = 3\nper = "ever"\n'
    config.write_text(good)
    options = ("--config", str(config))
    with fleet(sim.url, str(tmp_path / "l.db"), tmp_path, *options, workers=2) as running:
        before = running.pids()
        config.write_text(good.replace("requests = 3", 'requests = "many"'))
        running.process.send_signal(signal.SIGHUP)
        until(lambda: "no worker is replaced" in running.said(), "it is refused")
        assert f"{config}, line 3: limits[0].requests" in running.said()
        assert "one by one" not in running.said(), "nothing was started"
        assert running.pids() == before
        assert {health(running)["worker"] for _ in range(40)} == {1, 2}
        config.write_text(good)
        for _ in range(3):  # each is heard while the one before it may still be looked at
            running.process.send_signal(signal.SIGHUP)
        until(lambda: "worker 2 serves" in running.said(), "good rules are rolled")
        assert running.end() == 0, running.said()  # while the last one before it is leaving
    assert "Traceback" not in running.said()


def test_settings_and_rules_can_be_checked_without_a_start(sim: Simulator, tmp_path: Path) -> None:
    config, ledger = tmp_path / "rules.toml", tmp_path / "l.db"
    options = ("--upstream", sim.url, "--config", str(config), "--ledger", str(ledger), "--check")
    config.write_text('timezone = "Europe/Berlin"\n')
    fine = serve(*options, cwd=tmp_path)
    config.write_text('\ntimezone = "Mars"\n')
    wrong = serve(*options, cwd=tmp_path)
    assert (fine.returncode, fine.stdout) == (0, f"in order: lastchunk serves {sim.url}\n")
    assert wrong.returncode == 2
    assert f"{config}, line 2: timezone" in wrong.stderr
    assert not ledger.exists()


def serve(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lastchunk", "serve", "--workers", "3", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd)


def test_what_cannot_be_served_is_said_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        used = serve("--upstream", "http://127.0.0.1:9", "--port", port, cwd=tmp_path)
    wrong = serve("--upstream", "no-url", "--port", "0", cwd=tmp_path)
    nowhere = serve("--upstream", "http://127.0.0.1:9", "--ledger", "/proc/l.db", cwd=tmp_path)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in used.stderr
    assert "no base URL" in wrong.stderr
    assert "/proc/l.db" in nowhere.stderr
    for told in (used, wrong, nowhere):
        assert told.returncode == 2
        assert told.stderr.count("Error: ") == 1
        assert "Traceback" not in told.stderr


def test_a_second_fleet_on_the_same_port_is_refused(sim: Simulator, tmp_path: Path) -> None:
    """The kernel alone would let it take half of the first one's connections."""
    with fleet(sim.url, str(tmp_path / "l.db"), tmp_path, workers=2) as running:
        told = serve("--upstream", sim.url, "--port", str(running.port), cwd=tmp_path)
    assert told.returncode == 2
    assert "Address already in use" in told.stderr
