"""`lastchunk verify`: clean ledgers pass, tampered ones do not."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cli_running import Cli


def tamper(path: Path, *statements: str) -> None:
    """Changes what lastchunk never changes, past its guards."""
    with closing(sqlite3.connect(path)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            assert connection.execute(statement).rowcount == 1
        connection.commit()


@pytest.mark.usefixtures("a_day")
def test_a_ledger_that_holds_together_passes(cli: Cli) -> None:
    written = cli.text("verify")
    assert "The ledger holds together" in written
    assert "calls            42" in written
    assert cli.json("verify")["checked"]["rows"][0]["found"] == 0


@pytest.mark.parametrize(
    ("statement", "name", "subject"),
    [
        (
            "UPDATE balances SET spent_best = spent_best + 1 WHERE account = 'batch'",
            "balance_differs",
            "batch",
        ),
        ("UPDATE entries SET cost_best_nano = 1, cost_low_nano = 1 WHERE seq = 2", "columns", ""),
        ("DELETE FROM entries WHERE seq = 2", "", "search/ann"),
    ],
)
def test_a_ledger_that_was_tampered_with_fails_and_says_where(
    cli: Cli, a_day: Path, statement: str, name: str, subject: str
) -> None:
    tamper(a_day, statement)
    result = cli("verify")
    assert result.exit_code == 1
    assert "What does not hold" in result.stdout
    assert name in result.stdout
    assert subject in result.stdout
    assert cli("verify", "--json").exit_code == 1


def test_discrepancies_are_rows_of_csv(cli: Cli, a_day: Path) -> None:
    tamper(a_day, "UPDATE balances SET held = held + 5 WHERE account = 'support'")
    lines = cli("verify", "--csv").stdout.splitlines()
    assert lines[0] == "name,subject,message"
    assert lines[1].startswith("balance_differs,support,")
