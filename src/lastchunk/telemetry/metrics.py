"""Prometheus metrics: counted from settlements, so that they agree with the ledger to the token.

With several workers each writes its numbers into files of one folder (prometheus_client's
multiprocess mode), and a scrape of any worker sums them up, those of dead workers included.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lastchunk.money import NANO_PER_USD
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.telemetry.observer import Difference
from lastchunk.telemetry.told import duration_seconds, first_token_seconds

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder that workers share; the supervisor makes it. Read by prometheus_client, too."""

MOST_VALUES = 100
"""Different values of one label that are told apart in one process; all later ones are `other`.
Callers choose models and accounts: without a bound they choose how much memory this takes."""

MOST_SERIES = 2_000
"""Different sets of labels in one process, likewise: labels multiply."""

OTHER = "other"

DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
"""Seconds: from an embedding-like answer to a long reasoning one."""

FIRST_TOKEN_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

TOKEN_KINDS = {
    "input": "input_tokens",
    "input_cached": "input_cached_tokens",
    "output": "output_tokens",
    "output_reasoning": "output_reasoning_tokens",
}
"""The label's values and their fields of `Usage`. `input_cached` is a part of `input`, and
`output_reasoning` of `output`."""

BY_CALL = ("model", "upstream", "account", "ending", "basis")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Condition:
    """How one process is at this moment. The last two only grow."""

    open_calls: int = 0
    drains: int = 0
    ledger_away: int = 0
    spool_entries: int = 0
    spool_bytes: int = 0
    held_entries: int = 0
    lost_entries: int = 0
    unmetered_requests: int = 0


_GAUGES = {
    "open_calls": "Calls that are not settled yet.",
    "drains": "Answers that are read on although their caller left.",
    "ledger_away": "Processes whose ledger is away.",
    "spool_entries": "Entries that wait on disk for the ledger.",
    "spool_bytes": "Bytes of them.",
    "held_entries": "Entries that wait in memory: the spool cannot take them.",
}
_GROWING = {
    "lost_entries": "Entries that found no room anywhere.",
    "unmetered_requests": "Requests that were passed on unmetered.",
}


class Metrics:
    """All metrics of one process. Thread-safe; an observer of calls."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()

        def counter(name: str, told: str, labels: Iterable[str] = BY_CALL) -> Counter:
            return Counter(f"lastchunk_{name}", told, tuple(labels), registry=registry)

        self._calls = counter("calls", "Calls that were settled or released.")
        self._tokens = counter("tokens", "Tokens, best guesses.", ("kind", *BY_CALL))
        self._cost = counter("cost_usd", "What the provider bills: best guess.")
        self._low = counter("cost_low_usd", "What the provider bills at the least.")
        self._high = counter("cost_high_usd", "What the provider bills at the most.")
        self._charge = counter("charge_usd", "What customers are charged.")
        self._unpriced = counter("unpriced_calls", "Calls whose cost nobody knows.")
        by_upstream = ("model", "upstream")
        self._duration = Histogram(
            "lastchunk_call_duration_seconds",
            "From the opening of a call to its last byte; calls of dead processes left out.",
            by_upstream,
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._first_token = Histogram(
            "lastchunk_time_to_first_token_seconds",
            "From the opening of a call to the first token that was seen.",
            by_upstream,
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self._corrections = counter("corrections", "Corrections of settled calls.", by_upstream)
        self._corrected = {
            name: Gauge(
                f"lastchunk_corrected_{name}",
                f"Signed: to be added to lastchunk_{name}_total.",
                labels,
                registry=registry,
                multiprocess_mode="sum",
            )
            for name, labels in (
                ("tokens", ("kind", *by_upstream)),
                ("cost_usd", by_upstream),
                ("cost_low_usd", by_upstream),
                ("cost_high_usd", by_upstream),
                ("charge_usd", by_upstream),
            )
        }
        self._refused = counter("limit_refusals", "Calls that a limit refused.", ("limit",))
        self._warned = counter("warnings", "Warnings that were given.", ("kind", "name", "level"))
        self._used = Gauge(
            "lastchunk_limit_used_ratio",
            "Settled share of a limit in its present window, as last looked at: of an organisation"
            " with several paths under the limit, the largest.",
            ("limit", "account"),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._gauges = {
            name: Gauge(f"lastchunk_{name}", told, registry=registry, multiprocess_mode="livesum")
            for name, told in _GAUGES.items()
        }
        self._growing = {name: counter(name, told, ()) for name, told in _GROWING.items()}
        self._condition = Condition()
        self._fullest: dict[tuple[str, str], _Fullest] = {}
        self._bounds = {name: _Bounded(MOST_VALUES) for name in (*BY_CALL, "name")}
        self._series: set[tuple[str, ...]] = set()

    # An observer of calls.

    def opened(self, call: OpenCall) -> None:
        """Nothing: open calls are told by `show`."""

    def settled(self, call: OpenCall, settlement: Settlement) -> None:
        usage, cost = settlement.usage, settlement.cost
        labels = self._labels(call, settlement)
        self._calls.labels(*labels).inc()
        for kind, field in TOKEN_KINDS.items():
            if (quantity := getattr(usage, field)) is not None:
                self._tokens.labels(kind, *labels).inc(quantity.best)
        if cost is None:
            self._unpriced.labels(*labels).inc()
        else:
            self._cost.labels(*labels).inc(cost.best / NANO_PER_USD)
            self._low.labels(*labels).inc(cost.low / NANO_PER_USD)
            self._high.labels(*labels).inc(cost.high / NANO_PER_USD)
        if settlement.charge.amount:
            self._charge.labels(*labels).inc(settlement.charge.amount / NANO_PER_USD)
        if (seconds := duration_seconds(call, settlement)) is not None:
            self._duration.labels(*labels[:2]).observe(seconds)
        if (seconds := first_token_seconds(call, settlement)) is not None:
            self._first_token.labels(*labels[:2]).observe(seconds)

    def corrected(self, call: OpenCall, difference: Difference) -> None:
        where = self._where(call)
        self._corrections.labels(*where).inc()
        for kind, tokens in difference.tokens:
            self._corrected["tokens"].labels(kind, *where).inc(tokens)
        if (cost := difference.cost) is not None:
            for name, nano in (("", cost.best), ("low_", cost.low), ("high_", cost.high)):
                gauge = self._corrected[f"cost_{name}usd"]
                gauge.labels(*where).inc(nano / NANO_PER_USD)
        if difference.charge_nano is not None:
            charge = self._corrected["charge_usd"].labels(*where)
            charge.inc(difference.charge_nano / NANO_PER_USD)

    # What others tell.

    def refused(self, limit: str) -> None:
        """A limit, by its name, refused a call."""
        self._refused.labels(self._bound("name", limit)).inc()

    def warned(self, kind: str, name: str, level: int) -> None:
        """A warning was given: that a budget's `level` percent are used, or of another kind."""
        self._warned.labels(kind, self._bound("name", name), str(level)).inc()

    def used(self, limit: str, account: str, share: float, end_ms: int) -> None:
        """How much of a limit's window, until `end_ms`, is settled; 1.0 is all of it."""
        labels = self._bound("name", limit), self._bound("account", account.partition("/")[0])
        known = self._fullest.get(labels)
        # A call that settles late tells of a window that is over: it does not count any more.
        same = known is not None and (account, end_ms) == known[:2]
        if known is None or same or (end_ms, share) >= known[1:]:
            self._fullest[labels] = _Fullest(account, end_ms, share)
            self._used.labels(*labels).set(share)

    def show(self, now: Condition, now_ms: int) -> None:
        """How this process is. To be called about once a second, and before it is scraped."""
        for labels, fullest in list(self._fullest.items()):
            if fullest.end_ms <= now_ms:  # in the next window nothing is used yet
                del self._fullest[labels]
                self._used.labels(*labels).set(0.0)
        for name, gauge in self._gauges.items():
            gauge.set(getattr(now, name))
        for name, growing in self._growing.items():
            growing.inc(max(0, getattr(now, name) - getattr(self._condition, name)))
        self._condition = now

    def text(self) -> bytes:
        """The numbers of all workers in Prometheus's text format. Reads files: not for a loop."""
        if (folder := os.environ.get(FOLDER_VARIABLE)) is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        together.register(_Workers(Path(folder)))
        return generate_latest(together)

    # Labels.

    def _labels(self, call: OpenCall, settlement: Settlement) -> tuple[str, ...]:
        basis = settlement.usage.basis
        labels = (
            *self._where(call),
            self._bound("account", call.account.partition("/")[0]),
            settlement.ending.value,
            "none" if basis is None else basis.name.lower(),
        )
        if labels not in self._series:
            if len(self._series) >= MOST_SERIES:
                return (OTHER, OTHER, OTHER, *labels[3:])
            self._series.add(labels)
        return labels

    def _where(self, call: OpenCall) -> tuple[str, str]:
        request = call.request
        return self._bound("model", request.model), self._bound("upstream", request.upstream)

    def _bound(self, label: str, value: str) -> str:
        return self._bounds[label].of(value)


class _Workers(Collector):
    """The sums of all workers' files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in self._folder.glob("*.db") if _is_begun(file)]
        merged: Iterable[Metric] = multiprocess.MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


def _is_begun(file: Path) -> bool:
    """A file that a worker is just making is empty at first, and cannot be read then."""
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # its worker has just ended
        return False


class _Fullest(NamedTuple):
    """Of the accounts that one line of the limits' gauge stands for, the one nearest its limit."""

    account: str
    end_ms: int
    share: float


class _Bounded:
    """The first so many values; each later one is `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        value = value.encode("utf-8", "replace").decode()
        self._known.add(value)
        return value


assert {field.name for field in fields(Condition)} == {*_GAUGES, *_GROWING}
