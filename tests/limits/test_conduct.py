"""Which accounts are told of: thresholds on how their callers behave."""

import pytest

from lastchunk.ledger import Conduct
from lastchunk.limits import Sign, Thresholds, alerts

CANCELS, UNBILLED = Sign.CANCELS, Sign.UNBILLED


def conduct(calls: int, cancelled: int, cost: int = 100, unbilled: int = 0) -> Conduct:
    return Conduct("acme", calls, cancelled, cost, cost - unbilled, unbilled)


@pytest.mark.parametrize(
    ("row", "signs"),
    [
        (conduct(20, 11), [CANCELS]),
        (conduct(20, 10), []),
        (conduct(19, 19, 100, 100), []),
        (conduct(20, 0, 100, 21), [UNBILLED]),
        (conduct(20, 0, 100, 20), []),
        (conduct(20, 20, 100, 100), [CANCELS, UNBILLED]),
        (conduct(20, 0, 0, 0), []),
    ],
)
def test_an_account_above_a_threshold_is_told_of(row: Conduct, signs: list[Sign]) -> None:
    found = alerts([row], Thresholds(cancel_ratio=0.5, unbilled_share=0.2, fewest_calls=20))
    assert [alert.sign for alert in found] == signs
    assert all(alert.account == "acme" and alert.share > alert.threshold for alert in found)


def test_without_thresholds_nobody_is_told_of() -> None:
    assert alerts([conduct(1_000, 1_000, 100, 100)], Thresholds()) == []
