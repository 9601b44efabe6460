"""`lastchunk report`: sums that agree with the calls and with each other."""

from decimal import Decimal

import pytest
from cli_running import Cli
from made_calls import held

pytestmark = pytest.mark.usefixtures("a_day")

GROUPINGS = ("account", "model", "day", "ending", "dialect", "way", "tag:team", "account,model,day")


@pytest.mark.parametrize("by", GROUPINGS)
def test_every_grouping_adds_up_to_the_same_as_the_calls(cli: Cli, by: str) -> None:
    calls = cli.json("calls")["calls"]["totals"]
    spend = cli.json("report", "--by", by)["spend"]
    rows = cli.csv("report", "--by", by)
    for name in ("cost_usd", "cost_usd_low", "cost_usd_high"):
        assert sum(Decimal(row[name] or 0) for row in rows) == spend["totals"][name] == calls[name]
    assert sum(int(row["calls"]) for row in rows) == spend["totals"]["calls"] == 42
    assert f"${calls['cost_usd']:.6f}" in cli.text("report", "--by", by)


def test_the_bases_add_up_to_the_cost(cli: Cli) -> None:
    document = cli.json("report", "--by", "account")
    total = document["spend"]["totals"]["cost_usd"]
    assert sum(row["cost_usd"] or 0 for row in document["certainty"]["rows"]) == total
    for row in (*document["spend"]["rows"], document["spend"]["totals"]):
        split = [value for name, value in row.items() if name.startswith("cost_")]
        assert sum(split[3:]) == row["cost_usd"]  # after the best, the low and the high


def test_the_certainty_names_what_the_sum_rests_on(cli: Cli) -> None:
    rows = cli.json("report")["certainty"]["rows"]
    assert [row["basis"] for row in rows] == [
        "reported",
        "reported_so_far",
        "counted",
        "bounded",
        "assumed",
        "unpriced",
    ]


def test_unpriced_and_open_calls_are_always_told(cli: Cli) -> None:
    written = " ".join(cli.text("report").split())
    assert "Unpriced: 2 calls without a known price (10,000 tokens in, 600 out)." in written
    assert f"Open: 2 calls under way, for which {held(47)} are held." in written
    assert cli.json("report")["spend"]["totals"]["unpriced_calls"] == 2


def test_a_period_takes_only_its_calls(cli: Cli) -> None:
    rows = cli.csv("report", "--by", "day", "--since", "2026-11-06", "--until", "2026-11-06")
    assert [(row["day"], row["calls"]) for row in rows] == [("2026-11-06", "26")]


def test_filters_and_groups_go_together(cli: Cli) -> None:
    rows = cli.csv("report", "--by", "model", "--account", "support", "--tag", "team=support")
    assert [row["model"] for row in rows] == ["gpt-5"]


def test_days_are_in_order_and_the_rest_by_cost(cli: Cli) -> None:
    assert [row["day"] for row in cli.csv("report", "--by", "day")] == ["2026-11-05", "2026-11-06"]
    costs = [Decimal(row["cost_usd"] or 0) for row in cli.csv("report", "--by", "account,model")]
    assert costs == sorted(costs, reverse=True)


def test_a_group_that_does_not_exist_is_refused_by_name(cli: Cli) -> None:
    result = cli("report", "--by", "colour")
    assert result.exit_code == 2
    assert "cannot group by 'colour': choose from account, model, day" in result.stderr
