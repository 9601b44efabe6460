"""Routes, scripts, refusals, the bill over HTTP, and running it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from sim_http import CHAT, RESPONSES, ask, connect

from lastchunk import simulator
from lastchunk.simulator import Fault, Script, Simulator


def fetch(url: str, method: str = "GET") -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as answer:
        return json.loads(answer.read() or b"null")


@pytest.mark.parametrize(
    ("path", "body", "endpoint"),
    [
        ("/v1/chat/completions", CHAT, "chat/completions"),
        ("/chat/completions", CHAT, "chat/completions"),
        ("/openai/deployments/gpt-4o/chat/completions?api-version=1", CHAT, "chat/completions"),
        ("/v1/responses", RESPONSES, "responses"),
        ("/any/prefix/responses", RESPONSES, "responses"),
        ("/v1/completions", {"model": "gpt-4o", "stream": True, "prompt": "a"}, "completions"),
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a"}, "embeddings"),
    ],
)
def test_an_endpoint_answers_under_any_prefix(
    sim: Simulator, path: str, body: dict[str, Any], endpoint: str
) -> None:
    assert ask(sim, body, path=path).status == 200
    [billed] = sim.bill()
    assert (billed.endpoint, billed.ended) == (endpoint, "completed")


def test_an_azure_path_names_the_model(sim: Simulator) -> None:
    body = {key: value for key, value in CHAT.items() if key != "model"}
    ask(sim, body, path="/openai/deployments/gpt-4/chat/completions")
    assert sim.bill()[0].model_served == "gpt-4-0613"


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "named"),
    [
        ("/v1/chat/completions", b"{", {}, 400, "parse the JSON"),
        ("/v1/chat/completions", b"[]", {}, 400, "parse the JSON"),
        ("/v1/chat/completions", {}, {}, 400, "model"),
        ("/v1/chat/completions", {"model": "missing-model"}, {}, 404, "missing-model"),
        ("/v1/chat/completions", {**CHAT, "messages": "hello"}, {}, 400, "Invalid request"),
        ("/v1/chat/completions", CHAT, {"x-sim": '{"colour":1}'}, 400, "colour"),
        ("/v1/nothing", {}, {}, 404, "/v1/nothing"),
    ],
)
def test_a_refusal_has_the_shape_of_openais_errors(
    sim: Simulator, path: str, body: Any, headers: dict[str, str], status: int, named: str
) -> None:
    answer = ask(sim, body, path=path, headers=headers)
    assert answer.status == status
    error = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert named in error["message"]
    assert not any(billed.billed for billed in sim.bill())


def test_stream_options_can_be_refused(sim: Simulator) -> None:
    sim.next(*[Script(fault=Fault("reject_stream_options"))] * 2)
    refused = ask(sim, CHAT)
    assert refused.status == 400
    message = json.loads(refused.body)["error"]["message"]
    assert message == "Unrecognized request argument supplied: stream_options"
    assert ask(sim, {key: CHAT[key] for key in ("model", "stream", "messages")}).status == 200
    assert [billed.billed for billed in sim.bill()] == [False, True]


@pytest.mark.parametrize(("fault", "status"), [("http_500", 500), ("http_429", 429)])
def test_the_first_attempts_fail_and_the_next_one_passes(
    sim: Simulator, fault: Any, status: int
) -> None:
    script = Script(fault=Fault(fault, count=2))
    told = [ask(sim, CHAT, script=script, headers={"x-sim-tag": "a"}).status for _ in range(3)]
    assert told == [status, status, 200]
    retry = {"x-stainless-retry-count": "2"}
    assert ask(sim, CHAT, script=script, headers=retry).status == 200
    assert [(b.billed, b.retry_count) for b in sim.bill()][-1] == (True, 2)


def test_queued_scripts_are_followed_in_order_and_a_header_goes_before_them(
    sim: Simulator,
) -> None:
    sim.next(Script(output_tokens=3), Script(output_tokens=5))
    ask(sim, CHAT, script=Script(output_tokens=9))
    for _ in range(3):
        ask(sim, CHAT)
    assert [billed.output_tokens for billed in sim.bill()] == [9, 3, 5, 40]


def test_without_a_script_calls_are_drawn_from_the_seed() -> None:
    def scripts() -> list[Script | None]:
        with Simulator(None, seed=11) as sim:
            for _ in range(6):
                ask(sim, CHAT, timeout=3)
            return [billed.script for billed in sim.bill()]

    first = scripts()
    assert len(set(first)) > 3
    assert scripts() == first


def test_the_same_request_is_answered_the_same_whatever_came_before(sim: Simulator) -> None:
    def text() -> list[Any]:
        events = ask(sim, CHAT, script=Script(obfuscation=False)).events
        return [event["choices"] for event in events]

    first = text()
    ask(sim, RESPONSES, path="/v1/responses")
    assert text() == first


def test_the_bill_is_read_and_reset_over_http(sim: Simulator) -> None:
    answer = ask(sim, CHAT, script=Script(fault=Fault("eof")), headers={"x-sim-tag": "t1"})
    [billed] = sim.billed("t1")
    told = fetch(f"{sim.url}/_bill")
    [call] = told["calls"]
    assert call["output_ids"] == list(billed.output_ids)
    assert call["usage"] == billed.usage
    assert (call["tag"], call["include_usage"], call["ended"]) == ("t1", True, "fault:eof")
    assert told["totals"]["output_tokens"] == billed.output_tokens
    assert fetch(f"{sim.url}/_bill/{answer.headers['x-sim-call']}") == call
    assert fetch(f"{sim.url}/_bill/{billed.response_id}") == call
    fetch(f"{sim.url}/_bill", "DELETE")
    assert fetch(f"{sim.url}/_bill")["calls"] == []


def test_the_bill_over_http_can_wait_for_open_calls(sim: Simulator) -> None:
    with connect(sim, CHAT, script=Script(fault=Fault("stall", seconds=0.2))) as connection:
        connection.recv(10)
        assert fetch(f"{sim.url}/_bill")["open_calls"] == 1
        assert len(fetch(f"{sim.url}/_bill?wait_s=5")["calls"]) == 1


def test_the_bill_waits_for_open_calls_and_can_be_read_without_waiting(sim: Simulator) -> None:
    with connect(sim, CHAT, script=Script(fault=Fault("stall", seconds=60))) as connection:
        connection.recv(10)
        assert sim.bill(wait_s=0.05) == []
        assert sim.open_calls == 1
    assert [billed.ended for billed in sim.bill()] == ["fault:stall"]


def test_models_are_listed(sim: Simulator) -> None:
    assert "gpt-4o" in [model["id"] for model in fetch(f"{sim.url}/v1/models")["data"]]


def test_a_stalled_call_does_not_hold_up_the_end() -> None:
    with Simulator() as sim:
        connection = connect(sim, CHAT, script=Script(fault=Fault("stall", seconds=60)))
        connection.recv(10)
        began = time.monotonic()
    connection.close()
    assert time.monotonic() - began < 2
    assert [billed.ended for billed in sim.bill()] == ["fault:stall"]


def test_a_call_that_the_end_interrupts_is_billed_as_shutdown() -> None:
    with Simulator() as sim:
        connection = connect(sim, CHAT, script=Script(output_tokens=900, pacing_s=0.01))
        connection.recv(10)
    connection.close()
    assert [billed.ended for billed in sim.bill()] == ["shutdown"]


def test_the_simulator_imports_nothing_of_the_rest() -> None:
    folder = Path(simulator.__file__).parent
    lines = [line for path in folder.glob("*.py") for line in path.read_text().splitlines()]
    imports = [line for line in lines if re.match(r"\s*(from|import) lastchunk", line)]
    assert len(imports) > 20
    assert all(re.match(r"from lastchunk\.simulator\b", line) for line in imports)


def test_two_simulators_keep_two_bills() -> None:
    others = set(threading.enumerate())
    with Simulator() as one, Simulator(Script(output_tokens=2)) as two:
        ask(one, CHAT)
        ask(two, CHAT)
        assert [b.output_tokens for b in one.bill()] == [40]
        assert [b.output_tokens for b in two.bill()] == [2]
    left = set(threading.enumerate()) - others
    assert not [thread for thread in left if thread.name == "simulator"]


def test_a_taken_port_is_reported_to_who_starts_it(sim: Simulator) -> None:
    with pytest.raises(OSError, match="address already in use"):
        Simulator(port=sim.port).start()


def test_many_calls_at_once_are_all_billed(sim: Simulator) -> None:
    def client(number: int) -> None:
        script = Script(fault=Fault("rst", at="tokens:4") if number % 2 else None)
        ask(sim, CHAT, script=script, headers={"x-sim-tag": str(number)})

    threads = [threading.Thread(target=client, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bill = sim.bill()
    assert {billed.tag for billed in bill} == {str(number) for number in range(40)}
    assert sum(billed.ended == "completed" for billed in bill) == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serving_in_the_foreground_ends_with_a_signal(number: signal.Signals) -> None:
    code = (
        "from lastchunk.simulator import Script, serve_forever\n"
        "bill = serve_forever(port=0, script=Script(),"
        " on_start=lambda url: print(url, flush=True))\n"
        "print(len(bill))\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert fetch(f"{url}/models")["object"] == "list"
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stdout.read() == "0\n"
