"""The operator's table of charges reaches every call: live, recovered, and after a reload."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from opened import TEXT, open_call

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.config import read_config
from lastchunk.errors import SettingsError
from lastchunk.ledger import Ledger, Reader
from lastchunk.meter.ending import Ending, Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.pricing.book import PriceBook
from lastchunk.settings import load_settings
from lastchunk.settlement.facts import Settlement
from lastchunk.startup import charges_of, open_books

TABLE = """
[[charges]]
name = "our fault"
caused_by = "gateway"
charge = "nothing"

[[charges]]
endings = ["caller_left"]
charge = "actual"
markup = "2.5"
"""


def under_way(books: Bookkeeper) -> MeteredCall:
    call = open_call(books)
    call.headed(200, "text/event-stream", None)
    call.receive(TEXT)
    return call


def ended(books: Bookkeeper, stop: Stop) -> Settlement:
    call = under_way(books)
    call.end(stop)
    return call.settled.result(10)


def charge_of(settlement: Settlement) -> tuple[float | None, str]:
    """The charge as a factor on the cost, and why."""
    assert settlement.cost is not None
    amount = settlement.charge.amount
    return None if amount is None else amount / settlement.cost.best, settlement.charge.reason


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an operator's file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lastchunk.toml").write_text(TABLE)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_a_live_call_is_charged_by_the_file_and_a_reload_replaces_the_table() -> None:
    books = open_books(load_settings(ledger="ledger.db"))
    assert charge_of(ended(books, Stop.CALLER_LEFT)) == (2.5, 'cost x 2.5, by "row 2"')
    assert charge_of(ended(books, Stop.SHUT_DOWN)) == (0, 'nothing, by "our fault"')
    assert charge_of(ended(books, Stop.LIMIT_REACHED)) == (1, "cost")
    books.charges = charges_of(read_config('[[charges]]\ncharge = "nothing"', "new"))
    assert charge_of(ended(books, Stop.CALLER_LEFT)) == (0, 'nothing, by "row 1"')
    books.close()


@pytest.mark.usefixtures("here")
def test_a_table_that_is_given_wins_over_the_file() -> None:
    config = read_config('[[charges]]\ncharge = "nothing"', "given")
    books = open_books(load_settings(ledger="ledger.db"), config=config)
    assert charge_of(ended(books, Stop.CALLER_LEFT)) == (0, 'nothing, by "row 1"')
    books.close()


def test_a_table_that_cannot_be_read_is_named_at_the_start(here: Path) -> None:
    (here / "lastchunk.toml").write_text('[[charges]]\ncharge = "half"')
    with pytest.raises(SettingsError, match=r"lastchunk\.toml, line 2: charges\[0\]\.charge"):
        open_books(load_settings(ledger="ledger.db"))


def test_a_name_that_nobody_reads_is_refused_in_process_too(here: Path) -> None:
    (here / "lastchunk.toml").write_text("grace_secnds = 3\n")
    with pytest.raises(SettingsError, match=r"line 1: grace_secnds: unknown; did you mean grace_s"):
        open_books(load_settings(ledger="ledger.db"))


@pytest.mark.parametrize("how", ["command", "next start", "sibling"])
def test_a_lost_call_is_charged_by_the_table_too(here: Path, how: str) -> None:
    clock = SystemClock()
    sibling = open_books(load_settings(ledger="ledger.db")) if how == "sibling" else None
    dead = Bookkeeper(Ledger.open("ledger.db", clock=clock), PriceBook.load(None), clock)
    call_id = under_way(dead).call_id
    dead.abandon()
    dead.ledger.close()
    if how == "command":
        ran = subprocess.run(
            [sys.executable, "-m", "lastchunk", "recover", "--ledger", "ledger.db"],
            cwd=here,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "1 call recovered" in ran.stdout, ran.stderr
    elif how == "next start":
        open_books(load_settings(ledger="ledger.db")).close()
    with Reader.open("ledger.db") as reader:
        until = time.monotonic() + 20
        while reader.call(call_id).is_open and time.monotonic() < until:
            time.sleep(0.1)
        settlement = reader.call(call_id).settlement
    if sibling is not None:
        sibling.close()
    assert settlement is not None
    assert settlement.ending is Ending.LOST
    assert charge_of(settlement) == (0, 'nothing, by "our fault"')
