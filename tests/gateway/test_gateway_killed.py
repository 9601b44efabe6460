"""Limits and rules of a gateway that is a process: killed, reloaded, bound to an address."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
from gateway_stage import CHAT, until
from test_gateway_stopping import serving

from lastchunk.ledger.keys import KeyTable
from lastchunk.simulator import Fault, Script, Simulator, write_script

MESSAGES: Any = CHAT["messages"]


def client_of(port: int, script: Script | None = None) -> openai.OpenAI:
    headers = {"x-sim": write_script(script or Script())}
    url = f"http://127.0.0.1:{port}/v1"
    return openai.OpenAI(base_url=url, api_key="sk-test", max_retries=0, default_headers=headers)


def test_the_hold_of_a_killed_gateway_is_freed_by_the_next_one(tmp_path: Path) -> None:
    ledger, rules = tmp_path / "ledger.db", tmp_path / "rules.toml"
    rules.write_text('[[limits]]\nname = "a cap"\ntokens = 1000\nper = "ever"\n')
    stall = Script(output_tokens=30, fault=Fault("stall", "tokens:10", seconds=30))
    options = ("--config", str(rules))
    with Simulator() as sim:
        with (
            serving(ledger, sim.url, *options) as (process, port),
            client_of(port, stall) as client,
        ):
            stream = client.chat.completions.create(
                model="gpt-4o", messages=MESSAGES, stream=True, max_tokens=700
            )
            assert next(iter(stream))
            with client_of(port) as other:
                try:
                    other.chat.completions.create(model="gpt-4o", messages=MESSAGES, max_tokens=700)
                    raise AssertionError("two holds of 700 do not fit in 1,000")
                except openai.RateLimitError:
                    pass
            time.sleep(1.2)  # a checkpoint
            process.kill()
        with serving(ledger, sim.url, *options) as (_, port), client_of(port) as client:
            answer = client.chat.completions.create(
                model="gpt-4o", messages=MESSAGES, max_tokens=700
            )
            assert answer.choices


def test_sighup_reloads_in_place_and_the_gateway_goes_on(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("")
    with (
        Simulator() as sim,
        serving(tmp_path / "l.db", sim.url, "--config", str(rules)) as (process, port),
        client_of(port) as client,
    ):

        def ask() -> bool:
            try:
                client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
            except openai.RateLimitError:
                return False
            return True

        assert ask()
        rules.write_text('[[limits]]\nname = "none"\nrequests = 0\nper = "day"\n')
        process.send_signal(signal.SIGHUP)
        until(lambda: not ask(), "the new rules hold")
        rules.write_text("[[limits]]\n")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert not ask()
        rules.write_text("")
        process.send_signal(signal.SIGHUP)
        until(ask, "the limit is gone")
        assert process.poll() is None


def test_without_keys_it_listens_on_this_machine_alone_and_says_so(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    command = [sys.executable, "-m", "lastchunk", "serve", "--port", "0", "--host", "0.0.0.0"]
    command += ["--upstream", "http://127.0.0.1:9", "--ledger", str(ledger)]

    def where() -> tuple[str, str]:
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.terminate()
            _, errors = process.communicate(timeout=20)
        return line, errors

    line, errors = where()
    assert "http://127.0.0.1:" in line
    assert "lastchunk keys create ACCOUNT" in errors
    table = KeyTable(str(ledger))
    table.create("acme", "", 1)
    table.close()
    line, errors = where()
    assert "http://0.0.0.0:" in line
    assert "keys create" not in errors


def test_a_file_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    for told, line in (
        ("[[limit]]\n", 1),
        ('\n[upstreams.a]\nurl = "http://169.254.169.254"\n', 3),
    ):
        rules.write_text(told)
        command = [sys.executable, "-m", "lastchunk", "serve", "--config", str(rules)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=30)
        assert done.returncode != 0
        assert f"rules.toml, line {line}:" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
