"""Looks where limits stand, after settlements and off their path, and warns once for all.

Which warnings were given is in the ledger: one process of several gives each, and a restart gives
none again. A warning is claimed before it is told and marked when it is delivered; a claim that
was not delivered (its process died, its webhook stayed away) is taken over after a while, as long
as its limit is looked at. So each is delivered at least once, with an id that stays the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from lastchunk.alerting.alert import Alert
from lastchunk.alerting.webhook import Webhook
from lastchunk.clock import Clock
from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import Reader
from lastchunk.ledger.notices import Claim, Notice, NoticeTable
from lastchunk.ledger.windows import FOREVER_MS, Window
from lastchunk.limits import NO_THRESHOLDS, Limit, Per, Standing, Thresholds, Unit
from lastchunk.limits.admission import standing_of
from lastchunk.money import format_usd
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.telemetry import Difference

LOOK_SECONDS = 2.0
"""The pause between two looks."""

REST_AFTER_LOOKS = 20
"""… and at least so many times as long as the last look took: a twentieth of a core at most."""

STALE_MS = 300_000
"""A claim that is not delivered for so long is free: longer than a webhook tries."""

REMEMBERED_ACCOUNTS = 10_000
"""Accounts that spent between two looks; those beyond are looked at when they spend again."""

CLOSE_SECONDS = 2.0

MINUTE_MS = 60_000

log = logging.getLogger("lastchunk.warnings")


class Told(Protocol):
    """Who counts warnings, such as `Metrics`."""

    def warned(self, kind: str, name: str, level: int) -> None: ...

    def used(self, limit: str, account: str, share: float, end_ms: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at: swapped whole by a reload."""

    limits: tuple[Limit, ...] = ()
    thresholds: Thresholds = NO_THRESHOLDS
    """On the conduct of accounts."""
    zone: tzinfo = UTC
    at_percent: tuple[int, ...] = ()

    def budgets(self) -> tuple[Limit, ...]:
        """Money and tokens by the hour and longer: what is spent in a minute is a rate."""
        spending = (Unit.MONEY, Unit.TOKENS)
        return tuple(
            one for one in self.limits if one.unit in spending and one.per is not Per.MINUTE
        )


class Watch:
    """An observer of calls. One for a process; `close` it.

    `alerts` is asked at each look for warnings of other kinds, such as `ConductLook`; each is given
    once as well. It answers None where it is too early to look: it is asked again soon.
    """

    def __init__(
        self,
        ledger: str,
        clock: Clock,
        watched: Watched,
        *,
        webhook: Webhook | None = None,
        told: Told | None = None,
        alerts: Callable[[Reader, Watched], Iterable[Alert] | None] = lambda *_: (),
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._url = ledger
        self._clock = clock
        self.watched = watched
        self._webhook = webhook
        self._told = told
        self._alerts = alerts
        self._look_seconds = look_seconds
        self._spent: dict[tuple[str, int], int] = {}
        self._given: set[Notice] = set()
        """Told already, by whomever: not asked for again."""
        self._under_way: set[Notice] = set()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._ledger: tuple[Reader, NoticeTable] | None = None
        self._thread = threading.Thread(target=self._run, name="lastchunk-warnings", daemon=True)
        self._thread.start()

    # An observer of calls: notes who spent, and nothing else.

    def opened(self, call: OpenCall) -> None:
        """Nothing: warnings are about what is spent."""

    def settled(self, call: OpenCall, settlement: Settlement) -> None:
        self._note(call)

    def corrected(self, call: OpenCall, difference: Difference) -> None:
        self._note(call)

    def _note(self, call: OpenCall) -> None:
        with self._lock:
            if len(self._spent) < REMEMBERED_ACCOUNTS:
                self._spent[call.account, call.opened_ms // MINUTE_MS] = call.opened_ms
        self._changed.set()

    def close(self) -> None:
        """Look once more, and let the webhook try what waits."""
        self._closing.set()
        self._changed.set()
        self._thread.join(CLOSE_SECONDS)
        if self._webhook is not None:
            self._webhook.close(CLOSE_SECONDS)

    # The thread.

    def _run(self) -> None:
        while not self._closing.is_set():
            self._changed.wait()
            began = self._clock.elapsed()
            self._look_safely()
            took = self._clock.elapsed() - began
            self._closing.wait(max(self._look_seconds, took * REST_AFTER_LOOKS))
        self._look_safely()
        if self._ledger is not None:
            for opened in self._ledger:
                opened.close()

    def _look_safely(self) -> None:
        self._changed.clear()
        with self._lock:
            spent, self._spent = self._spent, {}
        try:
            self._look(spent)
        except LedgerUnavailable as error:
            log.warning("budgets cannot be looked at: %s", error)
            with self._lock:
                self._spent = spent | self._spent
        except Exception as error:  # the border where warnings must live on
            log.error("budgets cannot be looked at (%s)", type(error).__name__)

    def _look(self, spent: dict[tuple[str, int], int]) -> None:
        if self._ledger is None:
            self._ledger = Reader.open(self._url), NoticeTable(self._url)
        reader, notices = self._ledger
        watched = self.watched
        asked: set[tuple[Limit, Window]] = set()
        for (account, _), opened_ms in spent.items():
            for limit in watched.budgets():
                if (window := limit.window(account, opened_ms, watched.zone)) is not None:
                    asked.add((limit, window))
        for limit, window in asked:
            standing = standing_of(limit, reader.window(window), window.prefix, window.end_ms)
            share = standing.used / limit.amount if limit.amount else 1.0
            if self._told is not None:
                self._told.used(limit.name, window.prefix, share, window.end_ms)
            for level in sorted(watched.at_percent):
                if standing.used * 100 >= limit.amount * level:
                    self._give(_budget_alert(standing, window, level), notices)
        if (alerts := self._alerts(reader, watched)) is None:
            self._changed.set()
            return
        for alert in alerts:
            self._give(alert, notices)

    def _give(self, alert: Alert, notices: NoticeTable) -> None:
        notice = Notice(alert.subject, alert.account, alert.start_ms, alert.level)
        with self._lock:
            if notice in self._given or notice in self._under_way:
                return
        claim = notices.claim(notice, self._clock.now_ms(), STALE_MS)
        if claim is Claim.TOLD:
            self._given.add(notice)
        if claim in (Claim.TOLD, Claim.TAKEN):
            return
        if claim is Claim.FIRST:
            log.warning("%s", alert.message)
            if self._told is not None:
                self._told.warned(alert.kind, alert.name, alert.level)
        self._deliver(alert, notice, notices)

    def _deliver(self, alert: Alert, notice: Notice, notices: NoticeTable) -> None:
        if self._webhook is None:
            notices.told(notice, self._clock.now_ms())
            self._given.add(notice)
            return

        def done(delivered: bool) -> None:
            with self._lock:
                self._under_way.discard(notice)
            if delivered:
                try:
                    notices.told(notice, self._clock.now_ms())
                except LedgerUnavailable as error:
                    log.warning("alert %s will be delivered again: %s", alert.alert_id, error)

        with self._lock:
            self._under_way.add(notice)
        if not self._webhook.offer(alert, done):
            log.error("webhook: too many alerts wait; %s is tried again later", alert.alert_id)
            with self._lock:
                self._under_way.discard(notice)


def _budget_alert(standing: Standing, window: Window, level: int) -> Alert:
    limit = standing.limit
    whose = window.prefix or "everybody"
    used, cap = _shown(limit, standing.used), _shown(limit, limit.amount)
    span = "" if limit.per is Per.EVER else f" of this {limit.per}"
    money = limit.unit is Unit.MONEY
    return Alert(
        kind="budget",
        name=limit.name,
        account=window.prefix,
        start_ms=window.start_ms,
        level=level,
        message=f"limit {limit.name!r} of {whose}: {used} of {cap}{span} used, {level} % reached",
        facts=(
            ("unit", limit.unit.value),
            ("used_nano_usd" if money else "used_tokens", standing.used),
            ("cap_nano_usd" if money else "cap_tokens", limit.amount),
            ("per", limit.per.value),
            ("starts", _moment(window.start_ms)),
            ("ends", _moment(window.end_ms)),
        ),
    )


def _shown(limit: Limit, amount: int) -> str:
    return format_usd(amount) if limit.unit is Unit.MONEY else f"{amount:,} tokens"


def _moment(at_ms: int) -> str | None:
    """None for the ends of a window that has none."""
    if at_ms in (0, FOREVER_MS):
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")
