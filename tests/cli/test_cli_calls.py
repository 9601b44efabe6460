"""`lastchunk calls`: which calls, and how each number is marked."""

import re
from decimal import Decimal

import pytest
from cli_running import Cli
from made_calls import START_MS, call_id, held, made_call, reported, write

from lastchunk.ledger import Ledger

pytestmark = pytest.mark.usefixtures("a_day")


def ids(cli: Cli, *arguments: str) -> list[str]:
    return [row["call_id"] for row in cli.csv("calls", *arguments)]


def test_the_newest_comes_first_and_twenty_are_shown(cli: Cli) -> None:
    written = cli.text("calls")
    assert written.count("call_0000") == 22  # two of them as what another is a retry of
    assert written.index(call_id(48)) < written.index(call_id(47)) < written.index(call_id(43))
    assert "There are more: the newest 20 are shown" in written


def test_machines_get_all_of_them(cli: Cli) -> None:
    assert len(ids(cli)) == 42
    assert len(cli.json("calls")["calls"]["rows"]) == 42
    assert len(ids(cli, "--limit", "5")) == 5
    assert "There are more" not in cli.text("calls", "--limit", "0")


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (("--open",), [48, 47]),
        (("--unpriced",), [42, 41]),
        (("--ending", "caller_left"), [35, 34, 33, 32, 31, 30]),
        (("--ending", "refused"), [45, 39]),
        (("--account", "batch"), [43]),
        (("--account", "support", "--model", "gpt-4o"), [46, 45, 44]),
        (("--since", "2026-11-06T10:46"), [48, 47, 46]),
        (("--since", "2026-11-06T11:46+01:00"), [48, 47, 46]),
        (("--until", "2026-11-05T10:53:01"), [1, 0]),
        (("--until", "2026-11-04"), []),
        (("--tag", "team=support", "--until", "2026-11-05T15:00"), [5, 2]),
        (("--tag", "team=none"), []),
    ],
)
def test_filters(cli: Cli, arguments: tuple[str, ...], numbers: list[int]) -> None:
    assert ids(cli, *arguments) == [call_id(number) for number in numbers]


def test_until_a_day_takes_the_whole_day_in(cli: Cli) -> None:
    assert len(ids(cli, "--until", "2026-11-05")) == 16
    assert len(ids(cli, "--since", "2026-11-06")) == 26


def test_account_means_all_under_it(cli: Cli) -> None:
    accounts = {row["account"] for row in cli.csv("calls", "--account", "search")}
    assert accounts == {"search/ann", "search/bob"}


def test_what_was_not_reported_is_marked_with_its_interval(cli: Cli) -> None:
    written = cli.text("calls", "--ending", "caller_left", "--limit", "1")
    assert "~1,200" in written
    assert re.search(r"out 240–2\d\d\b", written)
    assert "~$0.005400" in written
    assert re.search(r"cost \$0.003900–\$0.005\d{3}\b", written)
    assert "~ counted by us" in written
    assert "?" not in written


def test_a_reported_call_has_no_mark_and_no_interval(cli: Cli) -> None:
    written = cli.text("calls", "--account", "batch")
    assert "30,000" in written
    assert "$0.027500" in written
    assert not set("~?>–") & set(written)


def test_an_unpriced_call_is_no_zero(cli: Cli) -> None:
    written = cli.text("calls", "--unpriced")
    assert written.count("unpriced") == 2
    assert "$" not in written
    row = cli.json("calls", "--unpriced")["calls"]["rows"][0]
    assert (row["cost_usd"], row["input_tokens"]) == (None, 5000)


def test_an_open_call_shows_what_it_holds(cli: Cli) -> None:
    written = cli.text("calls", "--open")
    assert f"holds {held(47)}" in written
    assert "sum" not in written


def test_a_sum_says_what_it_leaves_out(cli: Cli) -> None:
    assert "4 calls are not in the sum" in cli.text("calls", "--limit", "8")


def test_the_totals_are_the_same_in_every_format(cli: Cli) -> None:
    document = cli.json("calls")["calls"]
    for name in ("cost_usd", "cost_usd_low", "cost_usd_high"):
        from_csv = sum(Decimal(row[name] or 0) for row in cli.csv("calls"))
        from_json = sum(row[name] or 0 for row in document["rows"])
        assert from_csv == from_json == document["totals"][name] > 0
    assert f"${document['totals']['cost_usd']:.6f}" in cli.text("calls", "--limit", "0")


def test_nothing_is_wider_than_the_screen(cli: Cli) -> None:
    for command in ("calls", "report", "report --by account,model,day"):
        assert max(map(len, cli.text(*command.split()).splitlines())) <= 80


def test_a_pipe_gets_whole_lines_without_colours(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    lines = cli.text("calls", "--limit", "0").splitlines()
    assert "\x1b" not in "".join(lines)
    assert [line.split()[0] for line in lines[1:43]] == ids(cli)


def test_filters_that_fit_nothing_say_so(cli: Cli) -> None:
    assert "No call fits these filters" in cli.text("calls", "--account", "nobody")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--since", "yesterday"), "is no moment: write a day"),
        (("--tag", "team"), "write key=value"),
        (("--ending", "ended"), "caller_left"),
        (("--limit", "-1"), "--limit"),
    ],
)
def test_a_wrong_option_says_what_to_write(cli: Cli, arguments: tuple[str, ...], told: str) -> None:
    result = cli("calls", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_an_age_counts_back_from_now(cli: Cli, ledger: Ledger) -> None:
    """The made calls are from a fixed day: an age of some decades reaches any of them."""
    write(ledger, call := made_call(60, opened_ms=START_MS), reported(call, 1, 1))
    assert call_id(60) in ids(cli, "--since", "5000w")
    assert ids(cli, "--until", "5000w") == []
