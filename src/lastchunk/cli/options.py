"""Options that several commands share: the ledger, the time, the format."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from lastchunk.clock import SystemClock

Command = TypeVar("Command", bound=Callable[..., Any])

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"(\d{1,6})([mhdw])")


def _age_ms(age: re.Match[str]) -> int:
    return int(timedelta(**{_UNITS[age[2]]: int(age[1])}).total_seconds() * 1000)


class Age(click.ParamType[int]):
    """`30m`, `24h`, `7d`, `52w`, as milliseconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        age = _AGE.fullmatch(str(value).strip())
        if age is None:
            self.fail(f"{value!r} is no age: write 30m, 24h, 7d or 52w.", param, ctx)
        return _age_ms(age)


class Moment(click.ParamType[int]):
    """A day, a moment or an age, as Unix milliseconds.

    `2026-11-01` (UTC), `2026-11-01T09:30`, `2026-11-01T09:30+01:00`, `30m`, `24h`, `7d`, `2w` ago.
    With `day_ends` a day means its end: `--until 2026-11-30` takes the whole day in.
    """

    name = "moment"

    def __init__(self, *, day_ends: bool = False) -> None:
        self._day_ends = day_ends

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if age := _AGE.fullmatch(text):
            return SystemClock().now_ms() - _age_ms(age)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(
                f"{text!r} is no moment: write a day (2026-11-01), a moment (2026-11-01T09:30)"
                " or an age (30m, 24h, 7d).",
                param,
                ctx,
            )
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        if self._day_ends and re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            moment += timedelta(days=1)
        return int(moment.timestamp() * 1000)


class Tag(click.ParamType[tuple[str, str]]):
    """`key=value`, as a pair."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, found, wanted = str(value).partition("=")
        if not key or not found:
            self.fail(f"{value!r} is no tag: write key=value, like team=search.", param, ctx)
        return key, wanted


def with_ledger(command: Command) -> Command:
    """`--ledger`: without it LASTCHUNK_LEDGER, lastchunk.toml, then ./lastchunk.db."""
    return click.option(
        "--ledger",
        metavar="URL",
        help="The ledger's path or database URL  [default: $LASTCHUNK_LEDGER or lastchunk.db]",
    )(command)


def with_choice(command: Command) -> Command:
    """`--account`, `--model` and `--tag`: which calls are added up."""
    command = click.option(
        "--tag", type=Tag(), metavar="KEY=VALUE", help="Only calls with this tag."
    )(command)
    command = click.option("--model", help="Only this model, asked for or served.")(command)
    return click.option("--account", help="Only this account and all under it.")(command)


def with_period(command: Command) -> Command:
    """`--since` and `--until`, in Unix milliseconds or None."""
    command = click.option(
        "--until",
        type=Moment(day_ends=True),
        metavar="WHEN",
        help="Only calls opened before then; a day counts whole.",
    )(command)
    return click.option(
        "--since",
        type=Moment(),
        metavar="WHEN",
        help="Only calls opened since then: 2026-11-01, 2026-11-01T09:30 (UTC), 30m, 24h, 7d.",
    )(command)


def with_formats(command: Command) -> Command:
    """`--json` and `--csv`, as the flags `as_json` and `as_csv`."""
    command = click.option("--csv", "as_csv", is_flag=True, help="Write CSV, rows only.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, with totals.")(command)
