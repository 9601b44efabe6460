"""Who may still spend: limits as tables, and a race that no interleaving wins."""

import random
import threading
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger, verify
from lastchunk.ledger.balances import Balance
from lastchunk.ledger.windows import Holds, Window, WindowSums
from lastchunk.limits import Admission, Habits, Limit, Mode, Per, Refused, Unit
from lastchunk.limits.habits import SPEAKS, UNKNOWN_OUTPUT_TOKENS

NOON = 1_780_056_000_000
HOLDS = Holds(most=100, usual=20, tokens_most=1_000, tokens_usual=200)
M, T, R, S = Unit.MONEY, Unit.TOKENS, Unit.REQUESTS, Unit.STREAMS
STRICT, BALANCED = Mode.STRICT, Mode.BALANCED


class View:
    """Windows that say the same whoever asks, and remember who was asked for."""

    def __init__(self, sums: WindowSums) -> None:
        self.sums = sums
        self.asked: list[Window] = []

    def of(self, account: str) -> Balance:
        raise AssertionError("limits ask for windows only")

    under = of

    def window(self, window: Window) -> WindowSums:
        self.asked.append(window)
        return self.sums


def ask(limit: Limit, sums: WindowSums, account: str = "acme", **changes: Any) -> Refused | None:
    given: dict[str, Any] = {"holds": HOLDS, "at_ms": NOON, "zone": UTC, "priced": True} | changes
    return Admission([limit], account, **given)(View(sums))


def limit(unit: Unit, amount: int, per: Per = Per.DAY, mode: Mode = STRICT) -> Limit:
    return Limit("a limit", "acme", unit, amount, per, mode)


@pytest.mark.parametrize(
    ("rule", "sums", "fits"),
    [
        (limit(M, 100), WindowSums(), True),
        (limit(M, 99), WindowSums(), False),
        (limit(M, 200), WindowSums(spent=60, most=40), True),
        (limit(M, 200), WindowSums(spent=60, most=41), False),
        (limit(M, 200, mode=BALANCED), WindowSums(spent=100, usual=80, most=900), True),
        (limit(M, 200, mode=BALANCED), WindowSums(spent=100, usual=81), False),
        (limit(T, 1_500), WindowSums(tokens=400, tokens_most=100), True),
        (limit(T, 1_500), WindowSums(tokens=400, tokens_most=101), False),
        (limit(T, 500, mode=BALANCED), WindowSums(tokens=300, tokens_most=900), True),
        (limit(R, 3, Per.MINUTE), WindowSums(calls=2), True),
        (limit(R, 3, Per.MINUTE), WindowSums(calls=3), False),
        (limit(S, 3, Per.EVER), WindowSums(calls=9, calls_open=2), True),
        (limit(S, 3, Per.EVER), WindowSums(calls_open=3), False),
        (limit(M, 0), WindowSums(), False),
    ],
)
def test_a_call_fits_under_a_limit_or_not(rule: Limit, sums: WindowSums, fits: bool) -> None:
    assert (ask(rule, sums) is None) is fits


def test_a_refusal_says_when_it_is_worth_to_come_again() -> None:
    until_midnight = 12 * 3600
    used_up = ask(limit(M, 150), WindowSums(spent=100))
    held_only = ask(limit(M, 150), WindowSums(most=100))
    too_large = ask(limit(M, 50), WindowSums())
    for_ever = ask(limit(M, 150, Per.EVER), WindowSums(spent=100))
    assert used_up is not None
    assert held_only is not None
    assert too_large is not None
    assert for_ever is not None
    assert used_up.retry_seconds == until_midnight
    assert held_only.retry_seconds == 1.0
    assert too_large.retry_seconds is None
    assert for_ever.retry_seconds is None


def test_a_call_without_a_price_does_not_pass_a_limit_of_money() -> None:
    refused = ask(limit(M, 10_000), WindowSums(), priced=False)
    assert refused is not None
    assert refused.wanted is None
    assert ask(limit(T, 10_000), WindowSums(), priced=False) is None


@pytest.mark.parametrize(
    ("accounts", "account", "path"),
    [
        ("acme", "acme", "acme"),
        ("acme", "acme/search/u42", "acme"),
        ("acme", "acmes", None),
        ("acme/*", "acme", None),
        ("acme/*", "acme/search/u42", "acme/search"),
        ("*", "acme/search/u42", "acme"),
        ("*/search", "acme/search/u42", "acme/search"),
        ("*/search", "acme/web", None),
        ("", "acme/search", ""),
    ],
)
def test_a_limit_counts_an_account_under_its_path(
    accounts: str, account: str, path: str | None
) -> None:
    assert Limit("a limit", accounts, M, 1).path_of(account) == path


def test_every_level_of_a_path_is_asked_and_the_first_that_is_full_refuses() -> None:
    levels = [Limit(name, name, M, 1_000) for name in ("", "acme", "acme/search", "other")]
    view = View(WindowSums())
    admission = Admission(levels, "acme/search/u1", HOLDS, NOON, UTC, priced=True)
    assert admission(view) is None
    assert [window.prefix for window in view.asked] == ["", "acme", "acme/search"]
    assert [standing.remaining for standing in admission.standings] == [1_000] * 3


def test_a_balanced_limit_says_how_far_open_calls_may_overshoot() -> None:
    admission = Admission(
        [limit(M, 500, mode=BALANCED)], "acme", HOLDS, NOON, UTC, priced=True
    )  # fmt: skip
    assert admission(View(WindowSums(spent=100, usual=60, most=300))) is None
    (standing,) = admission.standings
    assert (standing.used, standing.held, standing.overshoot) == (100, 60, 240)


@given(outputs=st.lists(st.integers(0, 5_000), min_size=SPEAKS, max_size=150))
def test_a_usual_hold_covers_95_of_100_of_the_calls_it_was_learned_from(outputs: list[int]) -> None:
    habits = Habits.from_calls(("acme", "gpt-5", tokens) for tokens in outputs)
    usual = habits.output_tokens("acme", "gpt-5")
    assert sum(tokens <= usual for tokens in outputs) >= 0.95 * len(outputs)
    assert habits.output_tokens("others", "gpt-5") == usual
    assert habits.output_tokens("acme", "gpt-4o") == UNKNOWN_OUTPUT_TOKENS


@pytest.mark.parametrize("seed", range(3))
def test_a_strict_cap_is_never_exceeded_whatever_the_interleaving(
    tmp_path: Path, seed: int
) -> None:
    from limits_facts import call_of, settled

    url, cap = str(tmp_path / "ledger.db"), 1_000
    rule = Limit("cap", "acme", M, cap, Per.EVER)
    sums: list[WindowSums] = []
    with Ledger.open(url, clock=SystemClock()) as ledger:

        def spend(number: int) -> None:
            rng = random.Random(f"{seed}:{number}")
            for n in range(40):
                hold = rng.randint(1, 60)
                call = call_of(f"acme/u{number}", hold)
                admission = Admission(
                    [rule], call.account, Holds(most=hold), NOON, UTC, priced=True
                )
                if ledger.reserve(call, admission).result() is None and n % 5:
                    ledger.settle(call, settled(call, rng.randint(0, hold)), NOON)
                if n % 7 == 0:
                    ledger.reserve(
                        call_of("acme", 0),
                        lambda view: sums.append(view.window(Window("acme", 0, 1 << 52))) or "no",
                    ).result()

        threads = [threading.Thread(target=spend, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sums
    assert max(found.spent + found.most for found in sums) <= cap
    assert verify(url).discrepancies == ()
