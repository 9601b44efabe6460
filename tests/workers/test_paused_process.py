"""A process that is only paused is taken for dead on another host, and comes back."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from fleet import until

import lastchunk
from lastchunk import Basis, Ending, bookkeeper, recovery
from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.ledger import CallRecord, Ledger, Reader, verify
from lastchunk.pricing.book import PriceBook

LOOK_SECONDS = 0.7
"""Eight looks take longer than the paused process's own beat, of some two seconds, before that."""


def serve(stack: ExitStack, upstream: str, ledger: str) -> tuple["subprocess.Popen[str]", int]:
    command = [sys.executable, "-m", "lastchunk", "serve", "--port", "0", "--upstream", upstream]
    here = {"PYTHONPATH": str(Path(lastchunk.__file__).parents[1]), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "--ledger", ledger],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | here,
    )
    stack.callback(process.communicate)
    stack.callback(process.kill)
    assert process.stdout is not None
    return process, int(process.stdout.readline().rpartition(":")[2])


@pytest.fixture
def sibling(url: str, monkeypatch: pytest.MonkeyPatch) -> "Bookkeeper":
    """A living process on the same ledger, which looks more often than usual."""
    monkeypatch.setattr(recovery, "LOOK_SECONDS", LOOK_SECONDS)
    monkeypatch.setattr(bookkeeper, "CHECKPOINT_SECONDS", 0.1)
    clock = SystemClock()
    return Bookkeeper(Ledger.open(url, clock=clock), PriceBook.load(None), clock)


def test_its_call_is_settled_once_and_corrected_by_what_it_knows_better(
    url: str, sibling: Bookkeeper
) -> None:
    from ledger_facts import ask, execute
    from raw_http import raw_upstream
    from test_gateway_stopping import DONE, FINISH, TEXT, USAGE, Holding, open_streams

    holding = Holding()
    holding.go.wait = lambda _: type(holding.go).wait(holding.go, 60)  # type: ignore[method-assign]
    with ExitStack() as stack:
        stack.callback(sibling.close)
        reader = stack.enter_context(Reader.open(url))
        upstream = stack.enter_context(raw_upstream(holding))
        process, port = serve(stack, upstream.url, url)
        execute(url, f"UPDATE processes SET host = 'far' WHERE pid = {process.pid}")
        streams = stack.enter_context(open_streams(port, 1))

        def row() -> CallRecord:
            return next(iter(reader.calls()))

        until(lambda: ask(url, "SELECT 1 FROM in_flight WHERE seen IS NOT NULL"), "it is seen")
        process.send_signal(signal.SIGSTOP)
        until(lambda: not row().is_open, "it is taken for dead")
        settlement = row().settlement
        assert settlement is not None
        assert settlement.ending is Ending.LOST
        assert settlement.usage.basis is not None
        assert settlement.usage.basis < Basis.REPORTED
        holding.go.set()
        process.send_signal(signal.SIGCONT)
        answer = streams[0].message(is_answer=True)
        assert answer is not None
        assert answer.body == TEXT + FINISH + USAGE + DONE, "its caller notices nothing"
        until(lambda: len(row().entries) == 3, "the correction")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert "was settled as lost while this process was paused" in process.stderr.read()
        entries = row().entries
    assert [entry.kind.value for entry in entries] == ["reserved", "settled", "corrected"]
    assert entries[2].reason == "its process came back: completed"
    assert row_total(entries) == (9, 3, Basis.REPORTED)
    assert verify(url).is_clean


def row_total(entries: object) -> tuple[int, int, Basis | None]:
    from lastchunk.ledger.entries import standing_of

    standing = standing_of(entries)  # type: ignore[arg-type]
    assert standing.tokens.input is not None
    assert standing.tokens.output is not None
    assert standing.tokens.output.low == standing.tokens.output.high
    return standing.tokens.input.best, standing.tokens.output.best, standing.basis
