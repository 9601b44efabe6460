"""What customers are charged, on the command line: a dry run, refunds, and who leaves early."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from cli_running import Cli
from made_calls import BOOK, START_MS, FixedClock, call_id, cut, made_call, reported, write

from lastchunk.config import load_config, read_config
from lastchunk.ledger import Ledger, Reader, verify
from lastchunk.meter.departure import Departure, Done, LeavePolicy, Why
from lastchunk.meter.ending import Ending
from lastchunk.settlement.settle import settle
from lastchunk.startup import charges_of
from lastchunk.usage import Basis, OutputCounts, Quantity

TABLE = """
[[charges]]
caused_by = "provider"
charge = "nothing"

[[charges]]
name = "cut answers"
endings = ["caller_left"]
charge = "delivered"
markup = "1.2"

[[charges]]
account = "support"
charge = "prompt"
"""


@pytest.fixture
def table(elsewhere: Path) -> Path:
    path = elsewhere / "next.toml"
    path.write_text(TABLE)
    return path


# The dry run.


@pytest.mark.usefixtures("a_day")
def test_a_dry_run_says_what_the_table_would_have_charged(cli: Cli, table: Path) -> None:
    """The same as settling every call again, by that table."""
    rules = charges_of(load_config(table))
    wanted: dict[str, int] = {}
    with Reader.open("lastchunk.db") as reader:
        for record in reader.calls():
            settlement, call = record.settlement, record.call
            if settlement is None or settlement.cost is None or settlement.nothing_used:
                continue
            again = settle(call, settlement.observation, settlement.ending, BOOK, charges=rules)
            assert again.charge.amount is not None
            wanted[call.account] = wanted.get(call.account, 0) + again.charge.amount
    rows = cli.json("charges", "--rules", str(table))["charges"]["rows"]
    told = {row["account"]: int(row["would_charge_usd"] * 10**9) for row in rows}
    assert told == wanted
    for row in rows:
        assert row["change_usd"] == row["would_charge_usd"] - row["charge_usd"]
    by_size = [abs(row["change_usd"]) for row in rows]
    assert by_size == sorted(by_size, reverse=True)
    assert sum(row["unknown_calls"] for row in rows) == 2


@pytest.mark.usefixtures("a_day")
def test_a_dry_run_by_the_table_in_force_changes_nothing(cli: Cli, table: Path) -> None:
    Path("none.toml").write_text("")
    for row in cli.csv("charges", "--rules", "none.toml"):
        assert Decimal(row["change_usd"]) == 0
        assert row["charge_usd"] == row["would_charge_usd"]
    text = cli.text("charges", "--rules", "none.toml")
    assert "has no [[charges]]" in text
    assert "Nothing was written" in text
    before = verify("lastchunk.db").entries
    cli.text("charges", "--rules", str(table), "--since", "2026-11-01", "--until", "2026-11-30")
    assert verify("lastchunk.db").entries == before


def test_a_dry_run_keeps_refunds_and_takes_periods(cli: Cli, table: Path, ledger: Ledger) -> None:
    for number in (1, 2, 3):
        call = made_call(number, account="support")
        write(ledger, call, reported(call, 1_000, 100))
    cli.text("refund", call_id(1), "--amount", "0.001", "--reason", "slow")
    cli.text("refund", call_id(2), "--reason", "wrong")
    (row,) = cli.json("charges", "--rules", str(table))["charges"]["rows"]
    assert row["charge_usd"] == Decimal("0.006")
    # 0.0025 a prompt: less a refund of 0.001, less one of all, and whole
    assert row["would_charge_usd"] == Decimal("0.004")
    since = "2026-11-05T10:03"
    (row,) = cli.json("charges", "--rules", str(table), "--since", since)["charges"]["rows"]
    assert (row["calls"], row["would_charge_usd"]) == (1, Decimal("0.0025"))


@pytest.mark.usefixtures("a_day")
def test_a_dry_run_refuses_a_table_that_is_not_there_or_wrong(cli: Cli) -> None:
    assert cli("charges", "--rules", "nowhere.toml").exit_code == 2
    Path("bad.toml").write_text('[[charges]]\ncharge = "half"')
    result = cli("charges", "--rules", "bad.toml")
    assert result.exit_code == 2
    assert "bad.toml, line 2" in result.stderr


# Refunds and adjustments.


@pytest.fixture
def one(ledger: Ledger) -> str:
    """A call that cost USD 0.0035 and is charged as much."""
    call = made_call(1)
    write(ledger, call, reported(call, 1_000, 100))
    return call.call_id


def test_a_refund_is_shown_everywhere_and_the_cost_stays(cli: Cli, one: str) -> None:
    told = cli.text("refund", one, "--amount", "0.001", "--reason", "it broke off", "--id", "t-17")
    assert "$0.003500 -> $0.002500" in told
    assert "id: t-17" in told
    cli.text("adjust", one, "--by", "-0.0005", "--reason", "as agreed")
    (call,) = cli.json("explain", one)["call"]["rows"]
    assert (call["cost_usd"], call["charge_usd"]) == (Decimal("0.0035"), Decimal("0.002"))
    text = " ".join(cli.text("explain", one).split())
    assert "cost; refunded" in text
    assert "refund: it broke off (adjustment:t-17)" in text
    assert "adjustment: as agreed" in text
    (row,) = cli.json("report", "--by", "account")["spend"]["rows"]
    assert (row["cost_usd"], row["charge_usd"], row["adjusted_usd"]) == (
        Decimal("0.0035"),
        Decimal("0.002"),
        Decimal("-0.0015"),
    )
    assert "-$0.001500" in cli.text("report")
    assert "$0.002000" in cli.text("calls")
    assert verify("lastchunk.db").is_clean


def test_a_generated_id_is_told_and_repeats_as_a_given_one(cli: Cli, one: str) -> None:
    told = cli.text("refund", one, "--reason", "all of it")
    id_ = told.split("id: ")[1].strip()
    assert id_.startswith("adj_")
    again = cli.text("refund", one, "--reason", "all of it", "--id", id_)
    assert "nothing was written" in again
    assert "$0.000000" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("refund", "CALL", "--amount", "0.0036", "--reason", "x"), "no more than that"),
        (("refund", "CALL", "--amount", "-1", "--reason", "x"), "above zero"),
        (("refund", "CALL", "--amount", "NaN", "--reason", "x"), "no amount"),
        (("refund", "CALL", "--amount", "1e-10", "--reason", "x"), "nine digits"),
        (("refund", "CALL"), "--reason"),
        (("refund", "call_nobody", "--reason", "x"), "no call"),
        (("adjust", "CALL", "--by", "0", "--reason", "x"), "changes nothing"),
        (("adjust", "CALL", "--by", "-1", "--reason", "x"), "no more than that"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(
    cli: Cli, one: str, arguments: tuple[str, ...], said: str
) -> None:
    result = cli(*(one if word == "CALL" else word for word in arguments))
    assert result.exit_code == 2
    assert said in result.stderr
    assert verify("lastchunk.db").entries == 2


# Who leaves early.


def left_early(number: int, account: str, clock: FixedClock, ledger: Ledger) -> None:
    """USD 0.0025 of prompt and USD 0.003 of output, of which 200 tokens were not delivered."""
    call = made_call(number, account=account)
    departure = Departure(
        Done.DRAINED,
        Why.POLICY_SAYS,
        LeavePolicy.DRAIN,
        "a row",
        call.opened_ms + 500,
        Quantity(0, 200, 300, Basis.ASSUMED),
        OutputCounts(text_tokens=100),
    )
    seen = replace(reported(call, 1_000, 300), departure=departure)
    ledger.reserve(call).result(10)
    rules = charges_of(load_config(Path("lastchunk.toml")))
    settlement = settle(call, seen, Ending.COMPLETED, BOOK, charges=rules)
    ledger.settle(call, settlement, clock.now_ms() + 10**6).result(10)


@pytest.fixture
def leavers(elsewhere: Path, ledger: Ledger, clock: FixedClock) -> None:
    """Ann leaves three of four calls, for which the delivered part is charged; Bob none of two."""
    text = TABLE + "\n[warnings]\ncancel_ratio = 0.5\nunbilled_share = 0.9\n"
    (elsewhere / "lastchunk.toml").write_text(text.replace('"1.2"', '"1"'))
    for number in (1, 2, 3):
        left_early(number, "search/ann", clock, ledger)
    whole = made_call(4, account="search/ann")
    write(ledger, whole, reported(whole, 1_000, 300))
    for number in (5, 6):
        call = made_call(number, account="search/bob")
        write(ledger, call, reported(call, 1_000, 300))
    gone = made_call(7, account="search/bob", opened_ms=START_MS - 10**8)
    write(ledger, gone, cut(gone, 1_000, 100), Ending.CALLER_LEFT)


@pytest.mark.usefixtures("leavers")
def test_who_leaves_early_and_unpaid_comes_first_and_is_marked(cli: Cli) -> None:
    since = ("--since", "2026-11-05", "--fewest-calls", "4")
    ann, bob = cli.json("cancellations", *since)["cancellations"]["rows"]
    assert (ann["account"], ann["calls"], ann["cancelled_calls"]) == ("search/ann", 4, 3)
    assert ann["cancel_ratio"] == Decimal("0.75")
    assert ann["cost_usd"] == Decimal("0.022")
    assert ann["unbilled_usd"] == ann["undelivered_usd"] == Decimal("0.006")
    assert ann["unbilled_share"] == Decimal("0.272727")
    assert ann["alert"] == "cancels"
    assert (bob["account"], bob["cancelled_calls"], bob["alert"]) == ("search/bob", 0, None)
    assert cli.json("cancellations")["cancellations"]["rows"][0]["alert"] is None, "too few calls"
    rows = cli.csv("cancellations", "--account", "search/bob")
    assert [row["cancelled_calls"] for row in rows] == ["1"]


@pytest.mark.usefixtures("leavers")
def test_the_table_fits_a_terminal_and_says_what_its_words_mean(cli: Cli) -> None:
    for command in ("cancellations", "charges"):
        text = cli.text(command)
        assert all(len(line) <= 80 for line in text.splitlines()), text
    text = cli.text("cancellations", "--fewest-calls", "4")
    assert "cancels over 50%" in text
    Path("lastchunk.toml").write_text("")
    assert "set cancel_ratio" in " ".join(cli.text("cancellations").split())


def test_the_tables_of_the_guide_are_tables() -> None:
    guide = Path(__file__).parents[2] / "docs/how-to/what-customers-are-charged.md"
    blocks = re.findall(r"```toml\n(.*?)```", guide.read_text(), re.DOTALL)
    charges, warnings = (read_config(block, "the guide") for block in blocks)
    assert [rule.name for rule in charges_of(charges)] == [
        "our fault",
        "broken by the provider",
        "row 3",
    ]
    assert warnings.warnings.cancel_ratio == 0.5
