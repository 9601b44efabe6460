"""Accounts whose callers leave too much, or whose cost is not charged: looked at by the hour."""

from __future__ import annotations

from datetime import UTC, datetime

from lastchunk.alerting.alert import Alert
from lastchunk.alerting.watch import Watched
from lastchunk.clock import Clock
from lastchunk.ledger import CallFilter, Reader
from lastchunk.limits import NO_THRESHOLDS, Per, Sign, span_of
from lastchunk.limits import alerts as above_thresholds
from lastchunk.limits.conduct import Alert as Above

CONDUCT_SECONDS = 5.0
"""The pause between two looks, each of which passes over the calls of an hour."""

REST_AFTER_LOOKS = 50
"""… and at least so many times as long as the last one took: a fiftieth of a core at most."""

_KINDS = {Sign.CANCELS: "cancel_ratio", Sign.UNBILLED: "unbilled_share"}
"""As the thresholds are called in the operator's file."""


class ConductLook:
    """Asked by the watch; gives the accounts that are above a threshold in an hour of the clock.

    None: it is too early for another look.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = 0.0
        self._looked_ms: int | None = None

    def __call__(self, reader: Reader, watched: Watched) -> list[Alert] | None:
        began = self._clock.elapsed()
        if watched.thresholds == NO_THRESHOLDS:
            return []
        if began < self._due:
            return None
        now_ms = self._clock.now_ms()
        # The last calls of an hour are settled when the next one has begun.
        moments = (now_ms if self._looked_ms is None else self._looked_ms, now_ms)
        hours = {span_of(Per.HOUR, at_ms, watched.zone) for at_ms in moments}
        found = [
            _alert(above, start_ms)
            for start_ms, end_ms in sorted(hours)
            for above in above_thresholds(
                reader.conduct(CallFilter(since_ms=start_ms, until_ms=end_ms)), watched.thresholds
            )
        ]
        self._looked_ms = now_ms
        took = self._clock.elapsed() - began
        self._due = began + took + max(CONDUCT_SECONDS, took * REST_AFTER_LOOKS)
        return found


def _alert(above: Above, start_ms: int) -> Alert:
    conduct, threshold = above.conduct, f"{above.threshold:.0%}"
    if above.sign is Sign.CANCELS:
        what = f"the callers of {above.account} left {above.share:.0%} of {conduct.calls} calls"
    else:
        what = f"{above.share:.0%} of the cost of {above.account} is not charged"
    return Alert(
        kind=_KINDS[above.sign],
        name="hour",
        account=above.account,
        start_ms=start_ms,
        level=round(above.threshold * 100),
        message=f"{what} in this hour, more than {threshold}",
        facts=(
            ("share", round(above.share, 4)),
            ("calls", conduct.calls),
            ("cancelled_calls", conduct.cancelled),
            ("cost_nano_usd", conduct.cost),
            ("unbilled_nano_usd", conduct.unbilled),
            ("starts", datetime.fromtimestamp(start_ms / 1000, UTC).isoformat(timespec="seconds")),
        ),
    )
