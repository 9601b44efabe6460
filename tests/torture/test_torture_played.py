"""A sample of the matrix, played for real; and what the judge says when a promise is broken."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from lastchunk.meter.ending import Ending
from lastchunk.pricing.book import PriceBook
from lastchunk.torture import runner
from lastchunk.torture.judge import Evidence, Promise, judge
from lastchunk.torture.matrix import Cell, Fault, Moment, Store
from lastchunk.torture.runner import Run, _found, groups_of
from lastchunk.torture.selection import read_filters, select

SEED = int(os.environ.get("LASTCHUNK_SEED", "20"))
SERVER = os.environ.get("LASTCHUNK_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/test")
SAMPLE = 24
WITHIN_SECONDS = 900
"""It takes about one minute on two idle cores; the machine may be busy with other tests."""


def _server() -> list[str]:
    if os.environ.get("LASTCHUNK_REQUIRE_SERVICES") == "1":
        return ["--postgres", SERVER]
    psycopg = pytest.importorskip("psycopg")
    try:
        psycopg.connect(SERVER, connect_timeout=3).close()
    except psycopg.OperationalError:
        return []
    return ["--postgres", SERVER]


def torture(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lastchunk", "torture", *options],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
        check=False,
    )


def test_a_sample_of_the_matrix_holds_every_promise(tmp_path: Path) -> None:
    print(f"LASTCHUNK_SEED={SEED}")
    options = ("--sample", str(SAMPLE), "--seed", str(SEED), "--json", "--html", "page.html")
    done = torture(tmp_path, *options, *_server())
    assert done.returncode in (0, 1), done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    broken = [cell for cell in told["cells"] if not cell["held"]]
    assert broken == []
    assert done.returncode == 0
    assert told["cells_played"] == SAMPLE
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"], "nothing else is left"


def test_the_half_without_a_server_is_said_to_be_left_out(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LASTCHUNK_")}
    listed = subprocess.run(
        [sys.executable, "-m", "lastchunk", "torture", "--only", "ledger=postgresql"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 2
    assert "No cell fits" in listed.stderr


def test_a_server_that_cannot_be_used_is_told_of_at_once(tmp_path: Path) -> None:
    done = torture(
        tmp_path,
        "--postgres",
        "postgresql://nobody@127.0.0.1:9/none",
        "--only",
        "ledger=postgresql",
    )
    assert done.returncode == 2
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_list_names_every_cell_or_why_there_is_none(tmp_path: Path) -> None:
    done = torture(tmp_path, "--list", "--only", "fault=http-5xx,door=sync,ledger=sqlite")
    lines = done.stdout.splitlines()
    assert len(lines) == 18
    assert sum("not applicable: " in line for line in lines) == 15


def test_what_the_ledger_does_not_know_in_time_breaks_a_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "KNOWN_SECONDS", 0.0)
    monkeypatch.setattr(runner, "_is_known", lambda call, row: call.number == 0)
    only = "fault=sigkill,dialect=chat,moment=mid-stream,door=sync,ledger=sqlite"
    cells = select(read_filters([only]), (Store.SQLITE,), None, SEED)
    [verdict] = runner.play(Run(cells, SEED, 2, 1, None), lambda _: None)
    assert [(one.promise, one.call) for one in verdict.broken] == [(Promise.WRITTEN, 1)]


# The judge, shown to say no.


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """One call that was played for real, and about which nothing is to be said."""
    only = "fault=upstream-fin,dialect=chat,moment=mid-stream,door=sync,ledger=sqlite"
    cells = select(read_filters([only]), (Store.SQLITE,), None, SEED)
    run = Run(cells, SEED, 1, 1, None)
    [group] = groups_of(run)
    found = _found(run, group, lambda _: None)
    assert found.failure is None
    [call] = group.calls
    report = found.reports[call.tag]
    return Evidence(call, found.rows[call.tag], found.billed[call.tag], report, report)


def _broken(evidence: Evidence) -> set[Promise]:
    return {one.promise for one in judge(evidence, PriceBook.load(None))}


def test_a_call_that_is_as_it_should_be_breaks_no_promise(evidence: Evidence) -> None:
    assert _broken(evidence) == set()


def test_a_missing_and_a_second_row_are_found(evidence: Evidence) -> None:
    assert _broken(dataclasses.replace(evidence, rows=[])) == {Promise.ONCE}
    twice = [*evidence.rows, *evidence.rows]
    assert _broken(dataclasses.replace(evidence, rows=twice)) == {Promise.ONCE}


def test_a_row_that_is_still_open_is_found(evidence: Evidence) -> None:
    [row] = evidence.rows
    left_open = dataclasses.replace(row, entries=row.entries[:1], settlement=None)
    assert _broken(dataclasses.replace(evidence, rows=[left_open])) == {Promise.ONCE}


def test_a_truth_outside_the_interval_is_found(evidence: Evidence) -> None:
    [billed] = evidence.billed
    more = dataclasses.replace(billed, output_tokens=billed.output_tokens + 10_000)
    assert _broken(dataclasses.replace(evidence, billed=[more])) == {Promise.INTERVAL}


def test_another_ending_than_the_right_one_is_found(evidence: Evidence) -> None:
    cell = dataclasses.replace(evidence.call.cell, fault=Fault.UPSTREAM_STALL)
    call = dataclasses.replace(evidence.call, cell=cell)
    assert _broken(dataclasses.replace(evidence, call=call)) == {Promise.ENDING}


def test_a_basis_that_is_too_weak_is_found(evidence: Evidence) -> None:
    [row] = evidence.rows
    assert row.settlement is not None
    completed = dataclasses.replace(row.settlement, ending=Ending.COMPLETED)
    weak = dataclasses.replace(row, settlement=completed)
    cell = Cell(**{**_axes(evidence.call.cell), "moment": Moment.USAGE})
    call = dataclasses.replace(evidence.call, cell=cell)
    told = dataclasses.replace(evidence, call=call, rows=[weak])
    assert _broken(told) == {Promise.BASIS}


def test_what_a_bare_client_would_not_have_seen_is_found(evidence: Evidence) -> None:
    assert evidence.seen is not None
    other = type(evidence.seen)(evidence.seen.call, error="AnotherError")
    assert _broken(dataclasses.replace(evidence, bare=other)) == {Promise.CALLER}
    assert _broken(dataclasses.replace(evidence, seen=None)) == {Promise.CALLER}


def _axes(cell: Cell) -> dict[str, Any]:
    return {field.name: getattr(cell, field.name) for field in dataclasses.fields(cell)}
