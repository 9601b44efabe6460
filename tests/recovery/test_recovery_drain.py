"""A process that dies in mid-drain: the call is lost, and what its caller was given is known."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger, Reader
from lastchunk.meter.departure import Cut, Done
from lastchunk.meter.ending import Ending
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover
from lastchunk.simulator import Script, Simulator, write_script
from lastchunk.usage import Basis

WORKER = """
import sys, time
import lastchunk, openai
url, ledger, script = sys.argv[1:]
made = openai.OpenAI(base_url=url, api_key="x", default_headers={"x-sim": script})
client = lastchunk.instrument(made, ledger=ledger)
stream = client.chat.completions.create(
    model="gpt-4o", messages=[{"role": "user", "content": "hello"}], stream=True
)
for _ in range(10):
    next(stream)
stream.close()
print("left", flush=True)
time.sleep(60)
"""
PATIENCE_SECONDS = 15.0
SETTINGS = '[[when_client_leaves]]\ndo = "drain"\nupstream = "127.0.0.1"\nbills = "{bills}"\n'


@pytest.mark.parametrize("bills", ["stops", "whole"])
def test_a_process_killed_in_mid_drain_leaves_a_lost_row_that_knows_what_was_delivered(
    tmp_path: Path, bills: str
) -> None:
    (tmp_path / "lastchunk.toml").write_text(SETTINGS.format(bills=bills))
    reaction = 10**6 if bills == "whole" else 0
    script = Script(output_tokens=400, pacing_s=0.05, reaction_tokens=reaction)
    ledger = str(tmp_path / "ledger.db")
    with Simulator() as sim:
        command = [sys.executable, "-c", WORKER, sim.base_url, ledger, write_script(script)]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "left\n"
            with Reader.open(ledger) as reader:
                _wait_for_drain(reader)
            worker.kill()
        billed = sim.bill()[0]
    with Ledger.open(ledger, clock=SystemClock()) as opened:
        (settlement,) = recover(opened, PriceBook.load(None), SystemClock())
    departure, told = settlement.observation.departure, settlement.usage.output_tokens
    assert settlement.ending is Ending.LOST
    assert departure is not None
    assert told is not None
    assert (departure.done, departure.cut_by) == (Done.CUT, Cut.PROCESS_DIED)
    assert departure.delivered is not None
    assert 8 <= departure.delivered.total < told.best
    assert told.basis is Basis.BOUNDED
    assert told.low <= billed.output_tokens <= told.high
    assert ("billed_after_cancel" in settlement.reasons) is (bills == "whole")
    with Reader.open(ledger) as reader:
        assert [row.settlement for row in reader.calls()] == [settlement]


def _wait_for_drain(reader: Reader) -> None:
    """Until a checkpoint of the drain is written down; there is one each second."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        (row,) = reader.calls()
        seen = row.seen
        if seen is not None and seen.departure is not None and seen.output is not None:
            assert seen.departure.done is Done.DRAINING
            if seen.departure.delivered != seen.output:
                return
        assert time.monotonic() < until
        time.sleep(0.02)
