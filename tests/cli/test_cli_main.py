"""The command line itself: what it knows, what it says when something is wrong."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from cli_running import Cli

from lastchunk.cli import COMMANDS, SUMMARIES, main
from lastchunk.ledger import Ledger

BUILT = [name for name, module in COMMANDS.items() if find_spec(module) is not None]
READING = (("calls",), ("report",), ("verify",), ("explain", "call_1"))


def test_every_command_has_a_help_line() -> None:
    assert list(COMMANDS) == list(SUMMARIES)


@pytest.mark.parametrize("name", BUILT)
def test_the_table_names_a_command_of_that_name(cli: Cli, name: str) -> None:
    import_module(COMMANDS[name])
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert cli(name, "--help").exit_code == 0


def test_help_lists_all_commands_and_imports_none(cli: Cli) -> None:
    assert all(name in cli.text("--help") for name in COMMANDS)
    imported = (
        "import sys; from lastchunk.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        f"print([m for m in {list(COMMANDS.values())} if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", imported], capture_output=True, text=True, check=True, env=_env()
    )
    assert ran.stdout.splitlines()[-1] == "[]"


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_command_that_is_not_there_is_an_error_only_when_called(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "demo", "lastchunk.cli.is_not_there")
    result = cli("demo")
    assert result.exit_code == 2
    assert result.stderr == "Error: `lastchunk demo` is not in this version.\n"
    assert cli("--help").exit_code == 0


def test_a_command_whose_package_is_missing_names_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(COMMANDS, "demo", "needs_more")
    result = cli("demo")
    assert result.exit_code == 2
    assert "needs the package not_installed_anywhere" in result.stderr


def test_the_version_is_said(cli: Cli) -> None:
    assert cli.text("--version").startswith("lastchunk 0.")


@pytest.mark.parametrize("command", READING)
def test_without_a_ledger_it_says_what_to_do_and_makes_none(
    cli: Cli, elsewhere: Path, command: tuple[str, ...]
) -> None:
    result = cli(*command)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"There is no ledger at {elsewhere / 'lastchunk.db'}" in result.stderr
    assert "lastchunk demo" in result.stderr
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("command", READING[:3])
def test_an_empty_ledger_is_no_error(cli: Cli, ledger: Ledger, command: tuple[str, ...]) -> None:
    assert cli(*command).exit_code == 0


@pytest.mark.parametrize("command", READING[:2])
def test_an_empty_ledger_says_where_calls_come_from(
    cli: Cli, ledger: Ledger, command: tuple[str, ...]
) -> None:
    assert "There are no calls in this ledger yet." in cli.text(*command)


@pytest.mark.parametrize("command", READING[:3])
def test_both_formats_at_once_are_refused(
    cli: Cli, ledger: Ledger, command: tuple[str, ...]
) -> None:
    result = cli(*command, "--json", "--csv")
    assert result.exit_code == 2
    assert "one of --json and --csv" in result.stderr


@pytest.mark.parametrize("command", READING)
def test_a_file_that_is_no_ledger_is_one_line(
    cli: Cli, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "other.db").write_text("something else " * 100)
    result = cli(*command, "--ledger", "other.db")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: the ledger at ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("way", ["option", "environment", "file", "sqlite url"])
def test_the_ledger_is_named_by_option_environment_or_settings_file(
    cli: Cli, a_day: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    elsewhere = a_day.parent / "moved.db"
    a_day.rename(elsewhere)
    arguments: tuple[str, ...] = ()
    if way == "option":
        arguments = ("--ledger", "moved.db")
    elif way == "sqlite url":
        arguments = ("--ledger", f"sqlite:///{elsewhere}")
    elif way == "environment":
        monkeypatch.setenv("LASTCHUNK_LEDGER", "moved.db")
    else:
        Path("lastchunk.toml").write_text('ledger = "moved.db"\n')
    assert "search/bob" in cli.text("calls", *arguments)


def test_reading_changes_no_byte_of_the_ledger(cli: Cli, a_day: Path) -> None:
    before = a_day.read_bytes()
    for command in ("calls", "report", "verify"):
        cli.text(command)
    assert a_day.read_bytes() == before
