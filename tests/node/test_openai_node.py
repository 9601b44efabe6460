"""The interop proof: the real openai-node SDK through `lastchunk serve`, beside the true bill.

Each case is one way of using or leaving a stream. Whatever the program does, each attempt has one
row, with the right ending and basis, and the truth lies in its interval.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node_driver import node_or_skip, run_driver

from lastchunk.ledger import CallFilter, CallRecord, Reader, verify
from lastchunk.meter.ending import Ending
from lastchunk.simulator import BilledCall, Fault, Script, Simulator, write_script
from lastchunk.usage import Basis

PATIENCE_SECONDS = 30.0
SHORT = Script(output_tokens=30)
SLOW = Script(output_tokens=3_000, pacing_s=0.02)
TOOLS = Script(kind="parallel_calls", output_tokens=60)
LONG_TOOLS = Script(kind="tool_call", output_tokens=3_000, pacing_s=0.02)

DONE, LEFT = Ending.COMPLETED, Ending.CALLER_LEFT


@dataclass(frozen=True)
class Case:
    """What the provider does, what the program sees, and the endings of its attempts."""

    script: Script
    endings: tuple[Ending, ...]
    sees: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def stalling(**options: Any) -> Script:
    return Script(fault=Fault("stall_before_headers", **options))


ABORTED = {"error": "APIUserAbortError"}
CASES = {
    "read_to_end": Case(SHORT, (DONE,), {"usage": None, "finish": "stop"}),
    "usage_asked_for": Case(SHORT, (DONE,), {"finish": "stop"}),
    "not_streamed": Case(SHORT, (DONE,)),
    "break_out": Case(SLOW, (LEFT,), {"chunks": 5}),
    "throw_in_loop": Case(SLOW, (LEFT,), {"error": "Error"}),
    "controller_abort": Case(SLOW, (LEFT,)),
    "signal_abort": Case(SLOW, (LEFT,)),
    "signal_before_headers": Case(stalling(), (LEFT,), ABORTED),
    "client_timeout": Case(
        stalling(),
        (LEFT, LEFT),
        {"error": "APIConnectionTimeoutError"},
        {"timeout": 2500, "maxRetries": 1},
    ),
    "helper_final_completion": Case(SHORT, (DONE,), {"finish": "stop"}),
    "helper_abort": Case(SLOW, (LEFT,), ABORTED),
    "helper_break": Case(SLOW, (LEFT,), {"chunks": 5}),
    "tool_calls": Case(TOOLS, (DONE,), {"finish": "tool_calls"}),
    "tool_calls_break": Case(LONG_TOOLS, (LEFT,), {"chunks": 5}),
    "responses_stream": Case(SHORT, (DONE,)),
    "responses_break": Case(SLOW, (LEFT,), {"chunks": 5}),
    "responses_abort": Case(SLOW, (LEFT,), ABORTED),
    "completions_break": Case(SLOW, (LEFT,), {"chunks": 5}),
    "tee": Case(SHORT, (DONE,), {"same": True}),
    "readable_cancel": Case(SLOW, (LEFT,)),
    "never_iterated": Case(SLOW, (LEFT,)),
    "retries_after_errors": Case(
        Script(output_tokens=30, fault=Fault("http_500", count=2)),
        (Ending.UPSTREAM_FAILED, Ending.UPSTREAM_FAILED, DONE),
        {"finish": "stop"},
        {"maxRetries": 2},
    ),
    "retry_after_a_reset": Case(
        Script(output_tokens=30, fault=Fault("rst_before_headers", count=1)),
        (Ending.UPSTREAM_CUT, DONE),
        {"finish": "stop"},
        {"maxRetries": 2},
    ),
    "upstream_cut": Case(
        Script(output_tokens=60, fault=Fault("rst")), (Ending.UPSTREAM_CUT,), {"error": "TypeError"}
    ),
    "error_event": Case(
        Script(output_tokens=60, fault=Fault("error_event")),
        (Ending.UPSTREAM_FAILED,),
        {"error": "APIError"},
    ),
}


@dataclass
class Stage:
    sim: Simulator
    ledger: str
    base_url: str

    def drive(self, folder: Path, cases: dict[str, Case]) -> dict[str, Any]:
        given = {
            name: {"script": write_script(case.script), "options": case.options}
            for name, case in cases.items()
        }
        return run_driver(folder, self.base_url, self.sim.url, given)

    def rows(self, name: str, count: int) -> list[CallRecord]:
        """All rows of one case, settled, the oldest first."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with Reader.open(self.ledger) as reader:
                rows = list(reader.calls(CallFilter(account=name), newest_first=False))
            settled = len(rows) >= count and not any(row.is_open for row in rows)
            if settled or time.monotonic() > deadline:
                return rows
            time.sleep(0.05)

    def billed(self, name: str) -> list[BilledCall]:
        return [call for call in self.sim.bill(wait_s=10) if call.tag == name]


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """The simulator, and a gateway before it in a process of its own."""
    ledger = str(folder / "ledger.db")
    with Simulator() as sim:
        options = ["--upstream", sim.url, "--port", "0", "--ledger", ledger]
        with (folder / "served").open("w") as said:
            gateway = subprocess.Popen(
                [sys.executable, "-m", "lastchunk", "serve", *options],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        assert gateway.stdout is not None
        try:
            url = gateway.stdout.readline().split()[-1]
            yield Stage(sim, ledger, f"{url}/v1")
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(PATIENCE_SECONDS) == 0
            assert "Traceback" not in (folder / "served").read_text()
        finally:
            gateway.kill()
            gateway.wait()
            gateway.stdout.close()


def what_is_wrong(stage: Stage, name: str, case: Case, saw: dict[str, Any]) -> list[str]:
    """Everything that does not hold of one case; nothing if all does."""
    rows, billed = stage.rows(name, len(case.endings)), stage.billed(name)
    wrong = [
        f"the program saw {key} {saw.get(key)}, not {value}"
        for key, value in case.sees.items()
        if saw.get(key) != value
    ]
    if "error" in saw and "error" not in case.sees:
        wrong.append(f"the program saw {saw['error']}")
    if not len(rows) == len(billed) == len(case.endings):
        return [*wrong, f"{len(rows)} rows for {len(billed)} billed of {len(case.endings)} calls"]
    if saw.get("usage") is not None and saw["usage"] != billed[-1].output_tokens:
        wrong.append(f"the program saw usage {saw['usage']} of {billed[-1].output_tokens}")
    for row, call, ending in zip(rows, billed, case.endings, strict=True):
        wrong += _wrong_of_row(row, call, ending)
    if any(row.call.attempt_of != rows[0].call_id for row in rows[1:]):
        wrong.append("a retry is no attempt of the first")
    return wrong


def _wrong_of_row(row: CallRecord, billed: BilledCall, ending: Ending) -> list[str]:
    assert row.settlement is not None
    wrong = []
    if row.settlement.ending is not ending:
        wrong.append(f"ended {row.settlement.ending}, not {ending}")
    usage = row.settlement.usage
    for quantity, truth in (
        (usage.output_tokens, billed.output_tokens if billed.billed else 0),
        (usage.input_tokens, billed.prompt_tokens if billed.billed else 0),
    ):
        if quantity is None or not quantity.low <= truth <= quantity.high:
            wrong.append(f"{quantity} without the truth, {truth}")
    assert usage.output_tokens is not None
    is_reported = usage.output_tokens.basis is Basis.REPORTED
    if is_reported is not (ending is DONE):
        wrong.append(f"{ending} on the basis {usage.output_tokens.basis}")
    named = row.settlement.observation.response_id
    if named is not None and named != billed.response_id:
        wrong.append(f"{named} is not the provider's {billed.response_id}")
    return wrong


def test_however_node_leaves_a_stream_it_is_accounted_for(tmp_path: Path) -> None:
    folder = node_or_skip()
    with stage(tmp_path) as place:
        saw = place.drive(folder, CASES)
        wrong = {name: what_is_wrong(place, name, case, saw[name]) for name, case in CASES.items()}
        assert {name: found for name, found in wrong.items() if found} == {}
    assert verify(place.ledger).is_clean


def test_a_node_process_that_exits_in_mid_stream_is_accounted_for(tmp_path: Path) -> None:
    folder = node_or_skip()
    case = Case(SLOW, (LEFT,))
    with stage(tmp_path) as place:
        assert place.drive(folder, {"process_exit": case}) == {}
        assert what_is_wrong(place, "process_exit", case, {}) == []
