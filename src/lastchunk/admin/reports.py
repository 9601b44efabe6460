"""Reports: spend by groups, what it rests on, callers who left early."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from lastchunk.admin.calls import PeriodQuery, wanted_of
from lastchunk.admin.operation import Asked, Operation, Problem
from lastchunk.admin.schema import Answer
from lastchunk.admin.sources import Sources
from lastchunk.admin.tables import ReportTable, report_table
from lastchunk.errors import LedgerError, LedgerUnavailable
from lastchunk.ledger import CallRecord
from lastchunk.ledger.spend import GROUPS
from lastchunk.reports.departures import departures_table
from lastchunk.reports.spend import added, certainty_table, spend_tables

MAX_GROUPS = 4
MAX_ROWS = 1_000
"""Groups of one answer; their totals hold all."""


class SpendQuery(PeriodQuery):
    """Which calls, and what to group them by. Days are UTC."""

    by: Annotated[
        str,
        Meta(
            max_length=300, description=f"Up to {MAX_GROUPS} of {', '.join(GROUPS)}, with commas."
        ),
    ] = "model"
    limit: Annotated[int, Meta(ge=1, le=MAX_ROWS, description="Groups, the largest first.")] = 200


class Report(Answer):
    """One table."""

    table: ReportTable


def spend(sources: Sources, asked: Asked) -> Report:
    query: SpendQuery = asked.query
    group_by = [one.strip() for one in query.by.split(",") if one.strip()]
    if len(group_by) > MAX_GROUPS or len(set(group_by)) < len(group_by):
        raise Problem("invalid", f"query: by: give up to {MAX_GROUPS} groups, each once")
    try:
        rows = sources.reader.spend(group_by, wanted_of(query))
    except LedgerUnavailable:
        raise
    except LedgerError as error:
        raise Problem("invalid", f"query: by: {error}") from None
    return Report(table=report_table(spend_tables(rows, group_by, empty="")[0], query.limit))


def certainty(sources: Sources, asked: Asked) -> Report:
    whole = added(sources.reader.spend((), wanted_of(asked.query)))
    return Report(table=report_table(certainty_table(whole)))


def departures(sources: Sources, asked: Asked) -> Report:
    wanted = replace(wanted_of(asked.query), departed_only=True)
    records = _in_time(sources.reader.calls(wanted), asked)
    return Report(table=report_table(departures_table(records, empty="")))


def _in_time(records: Iterable[CallRecord], asked: Asked) -> Iterator[CallRecord]:
    """Read on only while somebody waits for the answer."""
    for record in records:
        asked.check_time()
        yield record


REPORTS = (
    Operation(
        "GET",
        "/admin/v1/reports/spend",
        "report_spend",
        "Sum up the spend by groups",
        Report,
        spend,
        SpendQuery,
    ),
    Operation(
        "GET",
        "/admin/v1/reports/certainty",
        "report_certainty",
        "How much of the spend rests on which basis",
        Report,
        certainty,
        PeriodQuery,
    ),
    Operation(
        "GET",
        "/admin/v1/reports/departures",
        "report_departures",
        "Callers who left early: what was done, what it cost and saved",
        Report,
        departures,
        PeriodQuery,
    ),
)
