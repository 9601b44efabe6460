"""Calendar spans in a time zone: minutes, hours, days, weeks and months, right across DST."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache

from lastchunk.ledger.windows import FOREVER_MS


class Per(StrEnum):
    """The span that a limit starts anew with."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    """From Monday."""
    MONTH = "month"
    EVER = "ever"


def span_of(per: Per, at_ms: int, zone: tzinfo) -> tuple[int, int]:
    """The span that a moment lies in: from its first millisecond until before the next one's.

    Days begin at the zone's first instant of the date, so a day may have 23 or 25 hours, and spans
    follow each other without a gap. All in Unix milliseconds.
    """
    return _span_at(per, at_ms // 1000, zone)


@lru_cache(maxsize=4096)
def _span_at(per: Per, at_s: int, zone: tzinfo) -> tuple[int, int]:
    """All calls of a second are in one span: clocks are set by whole seconds."""
    match per:
        case Per.EVER:
            return 0, FOREVER_MS
        case Per.MINUTE | Per.HOUR:
            return _clock_span(per, at_s * 1000, zone)
        case _:
            day = datetime.fromtimestamp(at_s, zone).date()
            first, following = _dates(per, day)
            return _first_ms(first, zone), _first_ms(following, zone)


def _clock_span(per: Per, at_ms: int, zone: tzinfo) -> tuple[int, int]:
    """Minutes and hours of the wall clock. An hour that the clock repeats is two spans."""
    length_ms = 60_000 if per is Per.MINUTE else 3_600_000
    offset = datetime.fromtimestamp(at_ms / 1000, zone).utcoffset() or timedelta()
    shift = int(offset.total_seconds() * 1000)
    start = (at_ms + shift) // length_ms * length_ms - shift
    return start, start + length_ms


def _dates(per: Per, day: date) -> tuple[date, date]:
    match per:
        case Per.WEEK:
            first = day - timedelta(days=day.weekday())
            return first, first + timedelta(days=7)
        case Per.MONTH:
            first = day.replace(day=1)
            return first, (first + timedelta(days=32)).replace(day=1)
        case _:
            return day, day + timedelta(days=1)


def _first_ms(day: date, zone: tzinfo) -> int:
    """The first instant of a date: 00:00, or later where the clock jumps over midnight."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(midnight.astimezone(UTC).timestamp()) * 1000
