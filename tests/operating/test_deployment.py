"""The files that deploy it: they are read by what reads them, and agree with the program."""

import itertools
import re
import shlex
import shutil
import subprocess
import tomllib
from configparser import RawConfigParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from lastchunk.cli.serve import serve
from lastchunk.config import load_config
from lastchunk.gateway.supervisor import KILL_SECONDS
from lastchunk.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "lastchunk.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def options(command: str) -> dict[str, str]:
    words = shlex.split(command)
    return {a: b for a, b in itertools.pairwise(words) if a.startswith("--")}


def test_the_unit_is_one(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        RawConfigParser(strict=False).read(DEPLOY / "lastchunk.service")
        return
    text = (DEPLOY / "lastchunk.service").read_text()
    # The program is not installed where the tests run.
    copy = tmp_path / "lastchunk.service"
    copy.write_text(text.replace("/opt/lastchunk/bin/lastchunk", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "lastchunk.service" in line]
    assert ours == []


def test_the_service_manager_waits_as_long_as_the_program_may_take() -> None:
    given = options(unit()["ExecStart"][0])
    needed = float(given["--stop-timeout"]) + float(given["--notice"]) + KILL_SECONDS
    assert float(unit()["TimeoutStopSec"][0]) > needed


@pytest.mark.parametrize("source", ["unit", "container"])
def test_the_command_is_one_that_the_program_takes(source: str) -> None:
    if source == "unit":
        words = shlex.split(unit()["ExecStart"][0])[2:]
    else:
        text = (DEPLOY / "Containerfile").read_text()
        entry = re.search(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)
        assert entry is not None
        words = tomllib.loads(f"words = {entry[1]}")["words"][2:]
    # What is asked for comes after all options were read: only those can be wrong.
    done = CliRunner().invoke(serve, [*words, "--upstream", "http://x", "--help"])
    assert done.exit_code == 0, done.output
    known = {name for option in serve.params for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_example_is_read_by_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(DEPLOY / "lastchunk.toml")
    assert [limit.name for limit in config.limits] == ["everybody, a month", "a team, a day"]
    monkeypatch.chdir(DEPLOY)
    assert Settings().account == "unknown"


def test_the_container_is_not_root_and_names_no_registry() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    final = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!root|0)\d+$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final
    assert {line.split()[1] for line in text.splitlines() if line.startswith("FROM")} == {
        "python:3.13-slim"
    }
