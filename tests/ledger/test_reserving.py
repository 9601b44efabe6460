"""A cap that several processes spend from is never exceeded, however their reservations meet."""

import subprocess
import sys
import time
from pathlib import Path

import sqlalchemy as sa
from ledger_facts import HOLD, Stopwatch

from lastchunk.ledger import Ledger, Reader, verify
from lastchunk.ledger.balances import Balance
from lastchunk.ledger.database import parse_url, reading_engine
from lastchunk.ledger.tables import entries, processes

SCRIPT = str(Path(__file__).parent / "reserving_process.py")
PROCESSES = 4
CALLS = 100
CAP = 40 * HOLD


def spent(balance: Balance) -> int:
    return balance.held + balance.spent_best


def test_processes_that_spend_from_one_budget_never_exceed_it(url: str, clock: Stopwatch) -> None:
    Ledger.open(url, clock=clock).close()
    arguments = [str(CALLS), str(CAP)]
    children = [
        subprocess.Popen(
            [sys.executable, SCRIPT, url, f"p{number}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    seen = []
    with Reader.open(url) as reader:
        while len(_signed_in(url)) < PROCESSES + 1:
            time.sleep(0.05)
        for child in children:
            print(file=child.stdin, flush=True)
        while any(child.poll() is None for child in children):
            seen.append(sum(spent(balance) for _, balance in reader.accounts()))
    admitted = [int(child.communicate()[0]) for child in children]
    assert [child.returncode for child in children] == [0] * PROCESSES
    assert max(seen) <= CAP
    assert _highest(url) <= CAP
    assert _highest(url) > CAP - HOLD, "the cap was never near: nothing was shown"
    assert 40 < sum(admitted) < PROCESSES * CALLS
    assert sum(count > 0 for count in admitted) > 1, "only one of them spent"
    assert verify(url).is_clean


def _signed_in(url: str) -> list[str]:
    engine = reading_engine(parse_url(url))
    with engine.connect() as connection:
        found = list(connection.scalars(sa.select(processes.c.process_id)))
    engine.dispose()
    return found


def _highest(url: str) -> int:
    """The most that was held and spent after any entry, in the order of writing."""
    engine = reading_engine(parse_url(url))
    query = sa.select(entries.c.kind, entries.c.held_nano, entries.c.cost_best_nano)
    highest = standing = 0
    with engine.connect() as connection:
        for kind, held, cost in connection.execute(query.order_by(entries.c.seq)):
            standing += held if kind == "reserved" else cost - held
            highest = max(highest, standing)
    engine.dispose()
    return highest
