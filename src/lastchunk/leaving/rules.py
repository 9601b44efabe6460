"""The rules in force: the operator's rows of `lastchunk.toml`, then the built-in table.

    [[when_client_leaves]]
    account = "acme"                # an account path: it and all below it
    do = "drain"                    # cancel | drain | cheaper

    [[when_client_leaves]]
    upstream = "api.openai.com"     # a host or a glob, of any port; or a provider by its name:
    model = "gpt-4o*"               # a model's name or a glob
    do = "cheaper"
    threshold_usd = "0.002"         # drain if the rest is expected to cost less than this

    [[when_client_leaves]]
    upstream = "llm.local:8000"
    provider = "vllm"               # who answers there

All that a row names must fit. The first row that fits and says `do` decides; the first that fits
and says `bills` ("whole", "stops" or "unknown") or names both an upstream and a provider tells what
a cancelled call is billed. Where no row says `do`, a provider that bills the whole answer is
drained and every other one is cancelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import TypeVar

from lastchunk.accounts import is_account_pattern, path_within
from lastchunk.errors import SettingsError
from lastchunk.leaving.providers import (
    NAMES,
    Provider,
    after_cancel,
    host_of,
    provider_named,
    provider_of,
)
from lastchunk.meter.departure import AfterCancel, LeavePolicy, Why
from lastchunk.money import nano_usd
from lastchunk.wire.request import CallRequest

_Word = TypeVar("_Word", LeavePolicy, AfterCancel)

TABLE = "when_client_leaves"

DEFAULT_THRESHOLD_NANO = 1_000_000
"""A tenth of a cent, where a row says `cheaper` without a threshold: about a hundred tokens of the
dearest models, a whole answer of the cheap ones."""

_KEYS = ("account", "bills", "do", "model", "provider", "threshold_usd", "upstream")
_BILLS = {
    "stops": AfterCancel.STOPS,
    "whole": AfterCancel.BILLS_WHOLE,
    "unknown": AfterCancel.UNKNOWN,
}
_WHY_BY_DEFAULT = {
    AfterCancel.STOPS: Why.PROVIDER_STOPS,
    AfterCancel.UNKNOWN: Why.PROVIDER_UNKNOWN,
    AfterCancel.BILLS_WHOLE: Why.BILLED_ANYWAY,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What one call's caller finds in force: `why` is the reason where nothing need be weighed."""

    policy: LeavePolicy
    after_cancel: AfterCancel
    name: str
    why: Why
    threshold_nano: int = DEFAULT_THRESHOLD_NANO


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the operator's. What is None does not matter; `number` counts from 1."""

    number: int
    account: str | None = None
    upstream: str | None = None
    model: str | None = None
    provider: Provider | None = None
    do: LeavePolicy | None = None
    bills: AfterCancel | None = None
    threshold_nano: int = DEFAULT_THRESHOLD_NANO

    @property
    def tells_provider(self) -> bool:
        """It says who answers at its upstream, instead of asking for calls to that provider."""
        return self.provider is not None and self.upstream is not None

    def fits(self, request: CallRequest, account: str, provider: Provider | None) -> bool:
        """Whether all that the row names is so; `provider` is the call's."""
        if self.account is not None and path_within(self.account, account) is None:
            return False
        if self.model is not None and not fnmatchcase(request.model, self.model):
            return False
        if self.upstream is not None and not _is_host(request.upstream, self.upstream):
            return False
        return self.provider is None or self.tells_provider or self.provider is provider


class Rules:
    """All rows, the operator's first. Immutable, and safe to share between threads."""

    def __init__(self, rows: tuple[Row, ...] = ()) -> None:
        self._rows = rows

    def rule_for(self, request: CallRequest, account: str) -> Rule:
        """What is to be done when this call's caller leaves."""
        provider, known_by = self._provider(request, account)
        fitting = [row for row in self._rows if row.fits(request, account, provider)]
        bills = next((row.bills for row in fitting if row.bills is not None), None)
        after = bills if bills is not None else after_cancel(provider, request)
        for row in fitting:
            if row.do is not None:
                name = f"{TABLE} row {row.number}"
                return Rule(row.do, after, name, Why.POLICY_SAYS, row.threshold_nano)
        drains = after is AfterCancel.BILLS_WHOLE
        policy = LeavePolicy.DRAIN if drains else LeavePolicy.CANCEL
        return Rule(policy, after, known_by, _WHY_BY_DEFAULT[after])

    def _provider(self, request: CallRequest, account: str) -> tuple[Provider | None, str]:
        """The call's provider, and what names it."""
        for row in self._rows:
            if row.tells_provider and row.fits(request, account, None):
                return row.provider, f"{TABLE} row {row.number}"
        found = provider_of(request)
        return found, f"built-in {found.name}" if found is not None else "built-in"


BUILT_IN = Rules()
"""Without any row of the operator's."""


def read_rules(rows: Iterable[object], source: str) -> Rules:
    """The rules of the operator's rows, as TOML gives them; `source` is where they stand.

    Raises SettingsError naming the row, the key and what may be written there.
    """
    return Rules(
        tuple(
            _RowReader(f"{source}: [[{TABLE}]] row {number}").row(row, number)
            for number, row in enumerate(rows, 1)
        )
    )


class _RowReader:
    """Reads one row; knows its place, to say where a mistake is."""

    def __init__(self, place: str) -> None:
        self._place = place

    def row(self, row: object, number: int) -> Row:
        if not isinstance(row, Mapping):
            raise self._wrong("it is no table: write its keys under it")
        for key in row:
            if key not in _KEYS:
                raise self._wrong(f"{key!r:.60} is no key: write one of {', '.join(_KEYS)}")
        provider = self._provider(row.get("provider"))
        upstream = self._text(row, "upstream", 'a host or a glob, like "*.example.com"')
        if provider is not None and not provider.hosts and upstream is None:
            raise self._wrong(
                f'provider = "{provider.name}" has no host of its own: write the upstream, too'
            )
        do = self._word(row, "do", {policy.value: policy for policy in LeavePolicy})
        if do is None and "bills" not in row and (provider is None or upstream is None):
            raise self._wrong('it says nothing: write do = "cancel", "drain" or "cheaper"')
        if "threshold_usd" in row and do is not LeavePolicy.CHEAPER:
            raise self._wrong('a threshold_usd needs do = "cheaper"')
        return Row(
            number=number,
            account=self._account(row),
            upstream=upstream.lower() if upstream is not None else None,
            model=self._text(row, "model", 'a name or a glob, like "gpt-4o*"'),
            provider=provider,
            do=do,
            bills=self._word(row, "bills", _BILLS),
            threshold_nano=self._threshold(row.get("threshold_usd")),
        )

    def _provider(self, name: object) -> Provider | None:
        if name is None:
            return None
        found = provider_named(name) if isinstance(name, str) else None
        if found is None:
            known = ", ".join(NAMES)
            raise self._wrong(
                f"provider = {name!r:.60} is not known: write one of {known};"
                ' or name its host with upstream and say bills = "whole" or "stops"'
            )
        return found

    def _word(
        self, row: Mapping[str, object], key: str, words: Mapping[str, _Word]
    ) -> _Word | None:
        if (value := row.get(key)) is None:
            return None
        if not isinstance(value, str) or value not in words:
            allowed = ", ".join(f'"{word}"' for word in words)
            raise self._wrong(f"{key} = {value!r:.60} is not known: write one of {allowed}")
        return words[value]

    def _text(self, row: Mapping[str, object], key: str, wanted: str) -> str | None:
        value = row.get(key)
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise self._wrong(f"{key} = {value!r:.60} cannot be used: write {wanted}")
        return value

    def _account(self, row: Mapping[str, object]) -> str | None:
        account = self._text(row, "account", 'an account path, like "acme/*"')
        if account is None:
            return None
        if not is_account_pattern(account):
            raise self._wrong(
                f"account = {account!r:.60} cannot be used: write a path; it means itself and all"
                ' below it, like "acme"; a segment may be "*", as in "acme/*"'
            )
        return account

    def _threshold(self, value: object) -> int:
        if value is None:
            return DEFAULT_THRESHOLD_NANO
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                amount = Decimal(str(value))
            except InvalidOperation:
                amount = Decimal(-1)
            if amount.is_finite() and 0 <= amount <= 1000:
                return nano_usd(amount)
        raise self._wrong(
            f'threshold_usd = {value!r:.60} cannot be used: write USD from 0 to 1000, like "0.002"'
        )

    def _wrong(self, what: str) -> SettingsError:
        return SettingsError(f"{self._place}: {what}.")


def _is_host(upstream: str, pattern: str) -> bool:
    """With the port where the pattern names one; else of any port."""
    return any(fnmatchcase(one, pattern) for one in (upstream.lower(), host_of(upstream)))
