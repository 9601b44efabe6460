"""Limits at the door and during the stream: what is held, what is refused, what remains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lastchunk.config import Config, LimitRow
from lastchunk.limits import Limit, Mode, Per, Refused, Standing, Unit
from lastchunk.metered_call import MeteredCall
from lastchunk.money import format_usd, nano_usd

SHOWN = {Unit.REQUESTS: "requests", Unit.TOKENS: "tokens", Unit.MONEY: "usd"}
"""What has `x-ratelimit-…` headers: OpenAI's two names, and money beside them."""

LONGEST_SLEEP_SECONDS = 60.0
"""How long a client may be left to sleep in a call: a limit of a minute has passed by then."""


def limits_of(config: Config) -> tuple[Limit, ...]:
    """The file's rows as limits."""
    return tuple(_limit(row) for row in config.limits)


def _limit(row: LimitRow) -> Limit:
    per, mode = Per(row.per or "ever"), Mode(row.mode)
    if row.usd is not None:
        return Limit(row.name, row.account, Unit.MONEY, nano_usd(row.usd), per, mode)
    if row.tokens is not None:
        return Limit(row.name, row.account, Unit.TOKENS, row.tokens, per, mode)
    if row.requests is not None:
        return Limit(row.name, row.account, Unit.REQUESTS, row.requests, per, mode)
    assert row.streams is not None, "the row was checked"
    return Limit(row.name, row.account, Unit.STREAMS, row.streams, Per.EVER, mode)


def status_of(refused: Refused) -> int:
    """402 where more money is needed, which clients do not retry; 429 where waiting helps."""
    return 402 if refused.standing.limit.unit is Unit.MONEY else 429


def code_of(refused: Refused) -> str:
    """The provider's own words for it."""
    if refused.standing.limit.unit is Unit.MONEY:
        return "insufficient_quota"
    return "rate_limit_exceeded"


def said(refused: Refused) -> str:
    """The refusal, for people: which limit, where it stands, and what helps."""
    limit = refused.standing.limit
    told = f"{_which(refused)}, {shown(limit.unit, refused.standing.remaining)} left."
    if refused.wanted is None:
        return f"{told} This model has no known price, so nobody can say whether it fits."
    wanted = shown(limit.unit, refused.wanted)
    if limit.unit in (Unit.MONEY, Unit.TOKENS):
        told += f" This call may come to {wanted}; a lower max_tokens makes it smaller."
    if refused.retry_seconds is None:
        return told
    return f"{told} Try again in {_duration(refused.retry_seconds)}."


def said_stopped(refused: Refused) -> str:
    """Why a stream ends here, for people: which limit it has come to."""
    return f"{_which(refused)}, and this answer has come to its end: it is not whole."


def _which(refused: Refused) -> str:
    limit, whose = refused.standing.limit, refused.standing.path or "everybody"
    span = "" if limit.unit is Unit.STREAMS or limit.per is Per.EVER else f" a {limit.per}"
    return f"Limit {limit.name!r} of {whose}: {shown(limit.unit, limit.amount)}{span}"


def rate_headers(standings: Sequence[Standing], now_ms: int) -> dict[str, str]:
    """`x-ratelimit-limit-…`, `-remaining-…` and `-reset-…` of the limit that is tightest."""
    headers: dict[str, str] = {}
    for unit, name in SHOWN.items():
        tightest = min(
            (standing for standing in standings if standing.limit.unit is unit),
            key=lambda standing: standing.remaining,
            default=None,
        )
        if tightest is None:
            continue
        headers[f"x-ratelimit-limit-{name}"] = _plain(unit, tightest.limit.amount)
        headers[f"x-ratelimit-remaining-{name}"] = _plain(unit, tightest.remaining)
        if tightest.resets_ms is not None:
            seconds = max(0.0, (tightest.resets_ms - now_ms) / 1000)
            headers[f"x-ratelimit-reset-{name}"] = _duration(seconds)
    return headers


def headers_of(call: MeteredCall, now_ms: int) -> dict[str, str]:
    """What remains with this call in it, where limits apply."""
    return {} if call.purse is None else rate_headers(call.purse.standings(), now_ms)


def retry_headers(refused: Refused) -> dict[str, str]:
    """`retry-after` in whole seconds, and to the millisecond as OpenAI's clients read it first.

    Where waiting does not help, or is for longer than a call may sleep, clients are told not to
    try again by themselves: openai-node would sleep for days.
    """
    seconds = refused.retry_seconds
    if seconds is None:
        return {"x-should-retry": "false"}
    headers = {
        "retry-after": str(math.ceil(seconds)),
        "retry-after-ms": str(math.ceil(seconds * 1000)),
    }
    return headers if seconds <= LONGEST_SLEEP_SECONDS else headers | {"x-should-retry": "false"}


def shown(unit: Unit, amount: int) -> str:
    """An amount of a unit, for people."""
    return format_usd(amount) if unit is Unit.MONEY else f"{amount:,} {unit.value}"


def _plain(unit: Unit, amount: int) -> str:
    return format_usd(amount).lstrip("$").replace(",", "") if unit is Unit.MONEY else str(amount)


def _duration(seconds: float) -> str:
    """As the official headers write it: `6m0s`, `1h2m`, `250ms`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole = math.ceil(seconds)
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (rest, "s"))
    told = [f"{number}{name}" for number, name in parts if number]
    return "".join(told[:2]) or "0s"


def has_budget(limits: Iterable[Limit], account: str) -> bool:
    """Whether any limit of money or tokens holds for this account."""
    spending = (Unit.MONEY, Unit.TOKENS)
    return any(limit.unit in spending and limit.path_of(account) is not None for limit in limits)
