"""`lastchunk accuracy`, as a shell would run it."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from recordings import TOOL, chat_line, written

from lastchunk.cli import accuracy as command
from lastchunk.cli import main

SECRET = "xylophone"


def run(*arguments: str | Path) -> Result:
    words = ["accuracy", *map(str, arguments)]
    return CliRunner().invoke(main, words, prog_name="lastchunk")


def what_was_read(result: Result) -> dict[str, int]:
    return {row["what"]: row["lines"] for row in json.loads(result.stdout)["read"]["rows"]}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Seven judged exchanges, one of them repeated, and three lines that cannot be judged."""
    lines: list[Any] = [
        chat_line(f"When does the {SECRET} leave?", prompt_tokens=15),
        chat_line("Again?", tools=[TOOL], prompt_tokens=55),
        "{ not json",
        chat_line("And now?", tools=[TOOL], prompt_tokens=56),
        chat_line("When?", stream=True, logprobs=True, prompt_tokens=9),
        chat_line("When?", stream=True, logprobs=True, prompt_tokens=9),
        chat_line("Which?", answer=SECRET, prompt_tokens=9),
        {**chat_line("Nope"), "status": 401},
        [],
    ]
    return written(tmp_path / "some.jsonl.gz", lines)


def test_it_prints_tables_that_fit_80_columns_and_no_content(recorded: Path) -> None:
    result = run("--prefixes", recorded)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    for title in ("Prompts", "Outputs", "cookbook rule", "cut short at a chunk", "What was read"):
        assert title in result.stdout
    assert SECRET not in result.output
    assert TOOL["function"]["name"] not in result.output


def test_malformed_lines_are_named_and_skipped(recorded: Path) -> None:
    result = run(recorded)
    assert f"{recorded}:3: malformed, skipped" in result.stderr
    assert f"{recorded}:9: malformed, skipped" in result.stderr
    read = {
        row["what"]: row["lines"]
        for row in json.loads(run("--json", recorded).stdout)["read"]["rows"]
    }
    assert read == {
        "lines read": 9,
        "judged": 5,
        "skipped: malformed": 2,
        "skipped: repeated request": 1,
        "skipped: refused or failed": 1,
    }


def test_many_malformed_lines_are_summed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "TOLD_LINES", 2)
    result = run(written(tmp_path / "a.jsonl", [*["{"] * 5, chat_line()]))
    assert result.stderr.splitlines()[2:] == ["and 3 more malformed lines, skipped"]


def test_all_counts_repeated_requests_too(recorded: Path) -> None:
    def prompts(*options: str) -> int:
        rows = json.loads(run("--json", *options, recorded).stdout)["prompts"]["rows"]
        return next(row["exchanges"] for row in rows if row["class"] == "all")

    assert prompts() + 1 == prompts("--all") == 6


def test_warm_is_better_where_shapes_repeat(recorded: Path) -> None:
    rows = json.loads(run("--json", recorded).stdout)["prompts"]["rows"]
    exact = {(row["class"], row["counted"]): row["exact_percent"] for row in rows}
    assert exact["plain", "cold"] == 100.0
    assert exact["tools", "cold"] == 0.0
    assert exact["tools", "warm"] == 50.0


def test_csv_holds_every_side_group_and_counter(recorded: Path) -> None:
    result = run("--csv", "--by", "endpoint,family,class,provider", recorded)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["side"] for row in rows} == {"prompt", "output"}
    assert {row["counted"] for row in rows} == {"cold", "warm", "cookbook"}
    tools = [row for row in rows if row["class"] == "tools" and row["counted"] == "cold"]
    assert [
        (row["endpoint"], row["family"], row["provider"], row["exchanges"]) for row in tools
    ] == [("chat", "gpt-4o", "openai", "2")]


def test_directories_hold_files_and_young_answers_may_be_asked_for(
    tmp_path: Path, recorded: Path
) -> None:
    written(tmp_path / "more.jsonl", [chat_line("One more?", prompt_tokens=10)])
    written(tmp_path / "notes.txt", ["not read"])
    result = run("--json", "--since", "2025-06-01", tmp_path)
    read = what_was_read(result)
    assert read["lines read"] == 10
    assert read["skipped: before --since"] == 2  # the streams, which do not say when they were


def test_a_file_that_breaks_off_is_judged_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.jsonl.gz", [chat_line(str(n)) for n in range(3000)])
    whole.write_bytes(whole.read_bytes()[:-2000])
    result = run(whole)
    assert result.exit_code == 0
    assert "cannot be read beyond line" in result.stderr


@pytest.mark.parametrize("lines", [[], ["{"], [{"path": "/v1/messages"}]])
def test_nothing_to_judge_is_an_error(tmp_path: Path, lines: list[Any]) -> None:
    result = run(written(tmp_path / "a.jsonl", lines))
    assert result.exit_code == 2
    assert f"none of {len(lines)} lines could be judged" in result.stderr


def test_a_path_that_is_not_there_and_a_wrong_group_are_errors(recorded: Path) -> None:
    assert run("nowhere.jsonl").exit_code == 2
    result = run("--by", "colour", recorded)
    assert result.exit_code == 2
    assert "class, family, endpoint, provider" in result.stderr
    assert run("--json", "--csv", recorded).exit_code == 2


def test_a_plot_needs_matplotlib_and_says_so(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(command, "can_plot", lambda: False)
    result = run("--plot", "a.svg", recorded)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: --plot needs matplotlib: pip install 'lastchunk[plot]', or leave --plot out.\n"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_plot_is_an_svg_and_the_same_each_time(recorded: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        assert run("--plot", tmp_path / name, recorded).exit_code == 0
    text = (tmp_path / "a.svg").read_text()
    assert text.startswith("<?xml")
    assert text == (tmp_path / "b.svg").read_text()
