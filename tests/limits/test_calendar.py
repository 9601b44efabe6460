"""Spans of the calendar, right where clocks change and months differ."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.ledger.windows import FOREVER_MS
from lastchunk.limits import Per, span_of

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


SPANS = [
    # zone, span, moment, from, until
    ("UTC", Per.MINUTE, "2026-05-29T12:34:56Z", "2026-05-29T12:34:00Z", "2026-05-29T12:35:00Z"),
    ("UTC", Per.HOUR, "2026-05-29T12:34:56Z", "2026-05-29T12:00:00Z", "2026-05-29T13:00:00Z"),
    ("UTC", Per.WEEK, "2026-05-31T23:59:59Z", "2026-05-25T00:00:00Z", "2026-06-01T00:00:00Z"),
    ("UTC", Per.MONTH, "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
    ("UTC", Per.MONTH, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
    # half an hour off: hours of the wall clock
    ("Asia/Kolkata", Per.HOUR, "2026-05-29T12:40:00Z", "2026-05-29T12:30:00Z",
     "2026-05-29T13:30:00Z"),
    # clocks go forward: a day of 23 hours; and back: one of 25
    ("Europe/Berlin", Per.DAY, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z",
     "2026-03-29T22:00:00Z"),
    ("Europe/Berlin", Per.DAY, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z",
     "2026-10-25T23:00:00Z"),
    ("Europe/Berlin", Per.MONTH, "2026-03-31T23:00:00Z", "2026-03-31T22:00:00Z",
     "2026-04-30T22:00:00Z"),
    # the hour that comes twice is two spans
    ("Europe/Berlin", Per.HOUR, "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z",
     "2026-10-25T01:00:00Z"),
    ("Europe/Berlin", Per.HOUR, "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z",
     "2026-10-25T02:00:00Z"),
    # midnight does not exist there on that day
    ("Asia/Beirut", Per.DAY, "2026-03-29T12:00:00Z", "2026-03-28T22:00:00Z",
     "2026-03-29T21:00:00Z"),
    # a date that was left out
    ("Pacific/Apia", Per.DAY, "2011-12-31T00:00:00Z", "2011-12-30T10:00:00Z",
     "2011-12-31T10:00:00Z"),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "per", "moment", "start", "end"), SPANS)
def test_a_moment_lies_in_its_span(zone: str, per: Per, moment: str, start: str, end: str) -> None:
    assert span_of(per, ms(moment), ZoneInfo(zone)) == (ms(start), ms(end))


def test_for_ever_begins_before_and_ends_after_everything() -> None:
    assert span_of(Per.EVER, ms("2026-05-29T12:00:00Z"), ZoneInfo("UTC")) == (0, FOREVER_MS)


@given(
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    per=st.sampled_from([per for per in Per if per is not Per.EVER]),
    at_ms=st.integers(ms("2009-01-01T00:00:00Z"), ms("2036-01-01T00:00:00Z")),
)
def test_spans_hold_their_moments_and_follow_each_other(
    zone: ZoneInfo, per: Per, at_ms: int
) -> None:
    start, end = span_of(per, at_ms, zone)
    assert start <= at_ms < end
    assert span_of(per, start, zone) == span_of(per, end - 1, zone) == (start, end)
    assert span_of(per, end, zone)[0] == end
    assert span_of(per, start - 1, zone)[1] == start
