"""`lastchunk demo`, played small: what it claims is checked on what it found."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

CALLS = 48
WITHIN_SECONDS = 120
"""It takes about twelve; the machine may be busy with other tests."""


def run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lastchunk", "demo", *options],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One small demo, as JSON."""
    ledger = tmp_path_factory.mktemp("demo") / "made" / "lastchunk.db"
    options = ("--calls", str(CALLS), "--seed", "11", "--ledger", str(ledger), "--json")
    done = run(ledger.parent.parent, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ledger.exists()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_each_attempt_has_exactly_one_row(played: dict[str, Any]) -> None:
    assert played["rows_that_do_not_match"] == []
    assert played["total"]["attempts"] >= played["calls"] == CALLS
    assert played["discrepancies"] == 0


def test_every_truth_lies_within_its_interval(played: dict[str, Any]) -> None:
    assert played["outside"] == []
    assert played["total"]["within"] == played["total"]["attempts"]


def test_every_ending_is_the_true_one(played: dict[str, Any]) -> None:
    assert played["unexpected_endings"] == []
    assert {"completed", "caller_left", "upstream_cut", "lost"} <= set(played["endings"])


def test_almost_half_of_the_calls_are_cut_in_all_the_ways(played: dict[str, Any]) -> None:
    assert 0.4 < played["cut"] / played["calls"] < 0.5
    assert len(played["ways"]) >= 20


def test_the_usage_chunk_alone_misses_much_and_lastchunk_little(played: dict[str, Any]) -> None:
    total = played["total"]
    truth, naive = total["true_cost_usd"], total["naive_cost_usd"]
    assert naive < 0.9 * truth
    assert abs(total["lastchunk_cost_usd"] - truth) < 0.1 * truth


def test_the_killed_process_is_recovered(played: dict[str, Any]) -> None:
    assert played["recovered"] == played["endings"]["lost"]["attempts"] > 0


def test_people_read_one_table_of_eighty_columns(tmp_path: Path) -> None:
    done = run(tmp_path, "--calls", "20", "--seed", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    [ledger] = tmp_path.glob("demo-*/lastchunk.db")
    assert f"export LASTCHUNK_LEDGER={ledger.relative_to(tmp_path)}" in done.stdout
    assert "lastchunk explain call_" in done.stdout
    assert "seed 5" in done.stderr
