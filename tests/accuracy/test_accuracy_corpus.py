"""The thresholds of the counter on recordings with real providers' usage; skipped without them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lastchunk.cli import main

CORPUS = Path(os.environ.get("LASTCHUNK_CORPUS", ""))
FILES = ("openai_chat", "openai_responses", "openai_completions", "azure", "compat")

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(
        "LASTCHUNK_CORPUS" not in os.environ,
        reason="LASTCHUNK_CORPUS does not name the recordings (see docs/accuracy.md)",
    ),
]

Rows = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def judged() -> dict[str, Any]:
    """The tables of one run over the recordings of OpenAI, Azure and those like them."""
    files = [str(CORPUS / f"{name}.jsonl.gz") for name in FILES]
    result = CliRunner().invoke(main, ["accuracy", "--json", "--prefixes", *files])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def rows(judged: dict[str, Any], table: str) -> Rows:
    return {(row["class"], row["counted"]): row for row in judged[table]["rows"]}


def test_every_line_is_read_and_our_reader_finds_the_usage_that_the_line_notes(
    judged: dict[str, Any],
) -> None:
    read = {row["what"]: row["lines"] for row in judged["read"]["rows"]}
    assert read["lines read"] > 7_000
    assert "skipped: malformed" not in read
    assert not any(what.startswith("judged, though") for what in read)


def test_derivable_prompts_are_counted_cold(judged: dict[str, Any]) -> None:
    cold = rows(judged, "prompts")["derivable", "cold"]
    assert cold["exact_percent"] >= 88
    assert cold["within_2_percent_percent"] >= 95
    assert cold["within_2_tokens_percent"] >= 95
    assert rows(judged, "prompts")["plain", "cold"]["exact_percent"] >= 97.5


def test_learning_makes_derivable_prompts_better_and_never_clearly_worse(
    judged: dict[str, Any],
) -> None:
    prompts = rows(judged, "prompts")
    assert prompts["derivable", "warm"]["exact_percent"] >= 93
    assert prompts["all", "warm"]["exact_percent"] >= 75
    for kind, counted in prompts:
        if counted == "warm":
            gain = prompts[kind, "warm"]["exact_percent"] - prompts[kind, "cold"]["exact_percent"]
            assert gain >= -0.5, kind


def test_the_cookbook_rule_is_beaten_in_every_class(judged: dict[str, Any]) -> None:
    prompts = rows(judged, "prompts")
    for row in judged["cookbook"]["rows"]:
        if row["class"] not in ("other models", "not derivable", "embeddings", "all"):
            assert prompts[row["class"], "cold"]["exact_percent"] > row["exact_percent"]


def test_outputs_are_counted_cold(judged: dict[str, Any]) -> None:
    outputs = rows(judged, "outputs")
    assert outputs["text", "cold"]["exact_percent"] >= 91
    assert outputs["text", "cold"]["within_2_tokens_percent"] >= 99
    assert outputs["one call", "cold"]["within_2_tokens_percent"] >= 95
    assert outputs["parallel calls", "cold"]["within_2_tokens_percent"] >= 85


@pytest.mark.parametrize("table", ["prompts", "outputs"])
def test_intervals_hold_93_to_98_percent_of_all_truths(judged: dict[str, Any], table: str) -> None:
    for counted in ("cold", "warm"):
        assert 93 <= rows(judged, table)["all", counted]["inside_percent"] <= 98


@pytest.mark.parametrize("table", ["prompts", "outputs"])
def test_intervals_are_narrower_than_20_percent_to_both_sides(
    judged: dict[str, Any], table: str
) -> None:
    for counted in ("cold", "warm"):
        assert rows(judged, table)["derivable", counted]["mean_width_percent"] < 40


def test_prefixes_are_exact_against_the_chunks_own_logprobs(judged: dict[str, Any]) -> None:
    found = [row for row in judged["prefixes"]["rows"] if row["known_by"] == "logprobs"]
    (row,) = (row for row in found if row["family"] == "gpt-4o")
    assert row["cuts"] >= 500
    assert row["exact_percent"] == 100
