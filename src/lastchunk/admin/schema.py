"""The shapes that all endpoints share: what is asked, what is answered, money, time, errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lastchunk.ledger.entries import TokenSpan
from lastchunk.money import usd
from lastchunk.pricing.cost import Cost

DEFAULT_PAGE = 50
MAX_PAGE = 200
"""Items of one answer: what the ledger reads at a time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Usd = Annotated[
    str,
    Meta(
        pattern=r"^-?[0-9]+\.[0-9]{9}$",
        description="US dollars, exact, with nine decimals.",
        examples=["0.012500000"],
    ),
]
Moment = Annotated[datetime, Meta(tz=True, description="ISO 8601 with a time zone.")]
AccountPrefix = Annotated[
    str, Meta(max_length=200, description="This account and all under it (`acme`: also `acme/x`).")
]
PageSize = Annotated[int, Meta(ge=1, le=MAX_PAGE, description="Items of the answer, at most.")]
Cursor = Annotated[
    str,
    Meta(max_length=500, description="Where to go on: `next` of the answer before, unchanged."),
]
Next = Annotated[
    str | None, Meta(description="The `cursor` of the next page; null: this is the last one.")
]
BasisName = Literal["assumed", "bounded", "counted", "reported_so_far", "reported", "stated"]


class Query(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The query of a request: each parameter at most once."""


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a request, JSON."""


class Answer(msgspec.Struct, kw_only=True):
    """What is answered, or a part of it."""


class UsdSpan(Answer):
    """Money with its interval: `low` <= `best` <= `high`."""

    low: Usd
    best: Usd
    high: Usd


class Tokens(Answer):
    """Tokens with their interval, and how the number is known."""

    low: int
    best: int
    high: int
    basis: BasisName


ErrorCode = Literal[
    "bad_json",
    "unauthorized",
    "not_found",
    "method_not_allowed",
    "too_slow_body",
    "conflict",
    "body_too_large",
    "wrong_content_type",
    "invalid",
    "bad_request",
    "failed",
    "not_available",
    "ledger_unavailable",
    "took_too_long",
]


class Error(Answer):
    """What went wrong and what helps. `code` is for machines and does not change."""

    code: ErrorCode
    message: str


class ErrorAnswer(Answer):
    """Every answer with a status of 400 or more."""

    error: Error


def money(nano: int) -> str:
    """Nano-dollars as they are answered."""
    return f"{usd(nano):.9f}"


def money_or_none(nano: int | None) -> str | None:
    return None if nano is None else money(nano)


def span_of(cost: Cost | None) -> UsdSpan | None:
    if cost is None:
        return None
    return UsdSpan(low=money(cost.low), best=money(cost.best), high=money(cost.high))


def tokens_of(span: TokenSpan | None) -> Tokens | None:
    if span is None:
        return None
    basis = _basis_name(span.basis.name.lower())
    return Tokens(low=span.low, best=span.best, high=span.high, basis=basis)


def basis_name(name: str | None) -> BasisName | None:
    return None if name is None else _basis_name(name)


def _basis_name(name: str) -> BasisName:
    named: BasisName = msgspec.convert(name, BasisName)
    return named


def moment(unix_ms: int) -> datetime:
    """Unix milliseconds as they are answered, exact."""
    return _EPOCH + timedelta(milliseconds=unix_ms)


def moment_or_none(unix_ms: int | None) -> datetime | None:
    return None if unix_ms is None else moment(unix_ms)


def unix_ms(given: datetime | msgspec.UnsetType) -> int | None:
    """A moment of a query in Unix milliseconds; None where it was not given."""
    if isinstance(given, msgspec.UnsetType):
        return None
    return (given - _EPOCH) // timedelta(milliseconds=1)


def given_or_none(given: str | msgspec.UnsetType) -> str | None:
    return None if isinstance(given, msgspec.UnsetType) else given
