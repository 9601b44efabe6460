"""The configured limits, and where each stands for each account path it counts."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from lastchunk.accounts import is_under
from lastchunk.admin.operation import Asked, Operation
from lastchunk.admin.paging import cursor_at, divided, place_at
from lastchunk.admin.schema import (
    DEFAULT_PAGE,
    AccountPrefix,
    Answer,
    Cursor,
    Moment,
    Next,
    PageSize,
    Query,
    moment,
    moment_or_none,
    money,
)
from lastchunk.admin.sources import Sources
from lastchunk.config import Config
from lastchunk.gateway.budget import limits_of
from lastchunk.ledger.windows import Window
from lastchunk.limits import Limit, Standing, Unit, span_of
from lastchunk.limits.admission import standing_of

Amount = Annotated[
    str,
    Meta(
        pattern=r"^-?[0-9]+(\.[0-9]{9})?$",
        description="In the limit's unit: dollars with nine decimals, or a whole number.",
    ),
]


class LimitStanding(Answer):
    """Where a limit stands for one account path, in the span that holds now.

    `used` is of resolved calls, `held` of open ones, `remaining` what a new call may still hold;
    `overshoot` is how far open calls may come beyond the limit, which is 0 for strict ones. `path`
    is empty for everybody together. `resets_at` is null where it never starts anew.
    """

    name: str
    accounts: str
    path: str
    unit: Literal["usd", "tokens", "requests", "streams"]
    per: Literal["minute", "hour", "day", "week", "month", "ever"]
    mode: Literal["strict", "balanced"]
    amount: Amount
    used: Amount
    held: Amount
    remaining: Amount
    overshoot: Amount
    started_at: Moment | None
    resets_at: Moment | None


class Limits(Answer):
    """Limits by name, then by path. They are changed in `lastchunk.toml`, not here."""

    timezone: str
    items: list[LimitStanding]
    next: Next


class LimitsQuery(Query):
    """Which limits, and for which account paths."""

    name: Annotated[str, Meta(max_length=100, description="Only this limit.")] | UnsetType = UNSET
    account: AccountPrefix | UnsetType = UNSET
    limit: PageSize = DEFAULT_PAGE
    cursor: Cursor | UnsetType = UNSET


def list_limits(sources: Sources, asked: Asked) -> Limits:
    query: LimitsQuery = asked.query
    config = sources.rules()
    place = place_at(query.cursor, tuple[str, str])
    page, more = divided(_places(sources, config, query, place), query.limit)
    now_ms = sources.now_ms()
    windows = [Window(path, *span_of(limit.per, now_ms, config.zone)) for limit, path in page]
    items = []
    for (limit, path), window in zip(page, windows, strict=True):
        asked.check_time()
        sums = sources.reader.window(window)
        items.append(_standing(standing_of(limit, sums, path, window.end_ms), window))
    last = cursor_at((page[-1][0].name, page[-1][1])) if more else None
    return Limits(timezone=config.timezone, items=items, next=last)


def _places(
    sources: Sources, config: Config, query: LimitsQuery, after: tuple[str, str] | None
) -> list[tuple[Limit, str]]:
    """Every limit with every path that it counts somebody under, sorted."""
    limits = [
        limit
        for limit in limits_of(config)
        if isinstance(query.name, UnsetType) or limit.name == query.name
    ]
    accounts = [account for account, _ in sources.reader.accounts()] if limits else []
    found = {
        (limit.name, path): limit
        for limit in limits
        for path in _paths(limit, accounts)
        if isinstance(query.account, UnsetType) or is_under(path, query.account)
    }
    places = sorted(place for place in found if after is None or place > after)
    return [(found[place], place[1]) for place in places]


def _paths(limit: Limit, accounts: list[str]) -> set[str]:
    """Paths of accounts that have called; a limit of one path stands there from the beginning."""
    paths = {path for account in accounts if (path := limit.path_of(account)) is not None}
    return paths if "*" in limit.accounts.split("/") else {limit.accounts}


def _standing(standing: Standing, window: Window) -> LimitStanding:
    limit = standing.limit
    return LimitStanding(
        name=limit.name,
        accounts=limit.accounts,
        path=standing.path,
        unit=limit.unit.value,
        per=limit.per.value,
        mode=limit.mode.value,
        amount=_amount(limit.unit, limit.amount),
        used=_amount(limit.unit, standing.used),
        held=_amount(limit.unit, standing.held),
        remaining=_amount(limit.unit, standing.remaining),
        overshoot=_amount(limit.unit, standing.overshoot),
        started_at=None if standing.resets_ms is None else moment(window.start_ms),
        resets_at=moment_or_none(standing.resets_ms),
    )


def _amount(unit: Unit, amount: int) -> str:
    return money(amount) if unit is Unit.MONEY else str(amount)


LIMITS = (
    Operation(
        "GET",
        "/admin/v1/limits",
        "list_limits",
        "List limits and where they stand",
        Limits,
        list_limits,
        LimitsQuery,
    ),
)
