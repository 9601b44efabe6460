"""Calls: the newest first, page by page; one call line by line."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, NamedTuple

from msgspec import UNSET, Meta, UnsetType

from lastchunk.admin.operation import Asked, Operation
from lastchunk.admin.paging import cursor_at, divided, place_at
from lastchunk.admin.schema import (
    DEFAULT_PAGE,
    AccountPrefix,
    Answer,
    BasisName,
    Cursor,
    Moment,
    Next,
    PageSize,
    Query,
    Tokens,
    Usd,
    UsdSpan,
    basis_name,
    given_or_none,
    moment,
    money_or_none,
    span_of,
    tokens_of,
    unix_ms,
)
from lastchunk.admin.sources import Sources
from lastchunk.admin.tables import ReportTable, report_table
from lastchunk.ledger import CallFilter, CallRecord
from lastchunk.meter.ending import Ending
from lastchunk.reports.explain import explain_tables, observation_of

MAX_ATTEMPTS = 200
"""Attempts of one logical call that are shown: clients retry a few times."""

TagWanted = Annotated[
    str, Meta(pattern=r"^[^=]+=", max_length=500, description="Only calls with this `key=value`.")
]
Model = Annotated[str, Meta(max_length=300, description="The model asked for, or that served.")]
Way = Annotated[
    str, Meta(pattern="^[a-z]{1,20}$", description="How they came in: `python` or `gateway`.")
]


class Place(NamedTuple):
    """The opening, in Unix milliseconds, and the id of the last call of a page."""

    opened_ms: Annotated[int, Meta(ge=-(2**62), le=2**62)]
    call_id: Annotated[str, Meta(pattern="^[!-~]{1,200}$")]


class Tag(Answer):
    """One label that a caller gave."""

    key: str
    value: str


class Call(Answer):
    """One call. No content is here, nor anywhere in the ledger.

    `ending` is null while the call is open; `cost_usd` and `charge_usd` are null where no price is
    known, or nothing yet; `held_usd` is what an open call holds.
    """

    call_id: str
    attempt_of: str | None
    account: str
    tags: list[Tag]
    way: str
    upstream: str
    dialect: str
    model: str
    model_served: str | None
    response_id: str | None
    process_id: str
    opened_at: Moment
    open: bool
    ending: Ending | None
    basis: BasisName | None
    input_tokens: Tokens | None
    cached_tokens: Tokens | None
    output_tokens: Tokens | None
    reasoning_tokens: Tokens | None
    cost_usd: UsdSpan | None
    charge_usd: Usd | None
    held_usd: Usd | None
    reasons: list[str]


class Calls(Answer):
    """Calls, the newest first."""

    items: list[Call]
    next: Next


class CallExplained(Answer):
    """One call, and the tables of `lastchunk explain` by name, `entries` among them."""

    call: Call
    tables: dict[str, ReportTable]


class PeriodQuery(Query):
    """Calls by whose, what and when. `since` and `until` are of the calls' opening."""

    account: AccountPrefix | UnsetType = UNSET
    model: Model | UnsetType = UNSET
    tag: TagWanted | UnsetType = UNSET
    since: Moment | UnsetType = UNSET
    until: Annotated[Moment, Meta(description="Before this moment.")] | UnsetType = UNSET


class OpenCallsQuery(PeriodQuery):
    """Which open calls."""

    way: Way | UnsetType = UNSET
    limit: PageSize = DEFAULT_PAGE
    cursor: Cursor | UnsetType = UNSET


class CallsQuery(OpenCallsQuery):
    """Which calls. All that is given must hold."""

    ending: Ending | UnsetType = UNSET
    unpriced: Annotated[bool, Meta(description="Only calls without a price.")] = False
    departed: Annotated[bool, Meta(description="Only calls whose caller left early.")] = False


def wanted_of(query: PeriodQuery) -> CallFilter:
    """The part of a filter that all have."""
    tag = given_or_none(query.tag)
    key, _, value = (tag or "").partition("=")
    return CallFilter(
        account=given_or_none(query.account),
        model=given_or_none(query.model),
        tag=None if tag is None else (key, value),
        since_ms=unix_ms(query.since),
        until_ms=unix_ms(query.until),
    )


def list_calls(sources: Sources, asked: Asked) -> Calls:
    query: CallsQuery = asked.query
    wanted = replace(
        wanted_of(query),
        way=given_or_none(query.way),
        ending=None if isinstance(query.ending, UnsetType) else query.ending,
        unpriced_only=query.unpriced,
        departed_only=query.departed,
    )
    return _page(sources, query, wanted)


def list_open_calls(sources: Sources, asked: Asked) -> Calls:
    query: OpenCallsQuery = asked.query
    wanted = replace(wanted_of(query), way=given_or_none(query.way), open_only=True)
    return _page(sources, query, wanted)


def explain_call(sources: Sources, asked: Asked) -> CallExplained:
    record = sources.reader.call(asked.item_id)
    first_id = record.call.attempt_of or record.call_id
    found = sources.reader.calls(CallFilter(attempts_of=first_id), MAX_ATTEMPTS, newest_first=False)
    tables = explain_tables(record, list(found) or [record], sources.bookkeeper.book)
    return CallExplained(
        call=_call(record), tables={table.name: report_table(table) for table in tables}
    )


def _page(sources: Sources, query: OpenCallsQuery, wanted: CallFilter) -> Calls:
    after = place_at(query.cursor, Place)
    found = list(sources.reader.calls(wanted, query.limit + 1, after=after))
    page, more = divided(found, query.limit)
    last = Place(page[-1].call.opened_ms, page[-1].call_id) if more else None
    return Calls(
        items=[_call(record) for record in page], next=None if last is None else cursor_at(last)
    )


def _call(record: CallRecord) -> Call:
    call, settlement, standing = record.call, record.settlement, record.standing
    seen = observation_of(record)
    return Call(
        call_id=call.call_id,
        attempt_of=call.attempt_of,
        account=call.account,
        tags=[Tag(key=key, value=value) for key, value in call.tags],
        way=call.way,
        upstream=call.request.upstream,
        dialect=call.request.dialect.value,
        model=call.request.model,
        model_served=seen.model_served if seen is not None else None,
        response_id=seen.response_id if seen is not None else None,
        process_id=record.process_id,
        opened_at=moment(call.opened_ms),
        open=record.is_open,
        ending=settlement.ending if settlement is not None else None,
        basis=basis_name(None if standing.basis is None else standing.basis.name.lower()),
        input_tokens=tokens_of(standing.tokens.input),
        cached_tokens=tokens_of(standing.tokens.cached),
        output_tokens=tokens_of(standing.tokens.output),
        reasoning_tokens=tokens_of(standing.tokens.reasoning),
        cost_usd=span_of(standing.cost),
        charge_usd=money_or_none(standing.charge_nano),
        held_usd=money_or_none(call.forecast.hold) if record.is_open else None,
        reasons=list(settlement.reasons) if settlement is not None else [],
    )


CALLS = (
    Operation("GET", "/admin/v1/calls", "list_calls", "List calls", Calls, list_calls, CallsQuery),
    Operation(
        "GET",
        "/admin/v1/open-calls",
        "list_open_calls",
        "List calls that are under way",
        Calls,
        list_open_calls,
        OpenCallsQuery,
    ),
    Operation(
        "GET",
        "/admin/v1/calls/{id}",
        "explain_call",
        "Explain one call: by its id, its id's beginning, or the provider's id",
        CallExplained,
        explain_call,
    ),
)
