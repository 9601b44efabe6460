"""The operator's rules: the tables of `lastchunk.toml`, checked as a whole before any is used.

    timezone = "Europe/Berlin"

    [upstreams.openai]
    url = "https://api.openai.com"
    models = ["gpt-*", "o*"]
    api_key_env = "OPENAI_API_KEY"

    [[limits]]
    name = "search, a month"
    account = "acme/search"
    usd = "250"
    per = "month"

Scalars such as `ledger` or `grace_seconds` in the same file belong to `settings`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lastchunk.accounts import MAX_ACCOUNT_CHARS, PATH
from lastchunk.errors import SettingsError

Path_ = Annotated[str, Field(max_length=MAX_ACCOUNT_CHARS, pattern=f"^(?:{PATH})?$")]
"""A pattern of account paths: `*` is any one segment; empty is everybody."""


EndingName = Literal[
    "completed",
    "upstream_cut",
    "upstream_timeout",
    "upstream_failed",
    "caller_left",
    "limit_reached",
    "refused",
    "never_sent",
    "lost",
]
"""How a call may have ended: the names of `Ending`, which a test compares."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UpstreamRow(_Row):
    """One provider. Its key is named here, never written here."""

    url: str
    models: tuple[str, ...] = ("*",)
    """Patterns of model names; the first upstream that has one that fits serves the call."""
    api_key_env: str | None = None
    api_key_file: Path | None = None
    auth: Literal["bearer", "api-key"] = "bearer"
    """How the key is sent: `authorization: Bearer …`, or Azure's `api-key: …`."""

    @field_validator("url")
    @classmethod
    def _a_base_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ValueError("write a base URL such as https://api.openai.com")
        if parts.username or parts.password:
            raise ValueError("no credentials in the URL: use api_key_env or api_key_file")
        if parts.hostname.startswith("169.254.") or parts.hostname.lower() == "fd00:ec2::254":
            raise ValueError("this is a machine's own metadata address, no provider")
        return url

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key_env and self.api_key_file:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self

    def serves(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def api_key(self) -> str | None:
        """The provider's key, read now; None where callers bring their own.

        Raises SettingsError where it is named and not there.
        """
        if self.api_key_env is not None:
            if not (key := os.environ.get(self.api_key_env, "").strip()):
                raise SettingsError(
                    f"{self.api_key_env} is empty: set it to the key for {self.url}"
                )
            return key
        if self.api_key_file is not None:
            try:
                return self.api_key_file.read_text().strip()
            except OSError as error:
                raise SettingsError(
                    f"the key for {self.url} cannot be read from {self.api_key_file}:"
                    f" {error.strerror}"
                ) from error
        return None


class LimitRow(_Row):
    """One limit: exactly one of `usd`, `tokens`, `requests` and `streams`."""

    name: str = Field(min_length=1, max_length=100)
    account: Path_ = ""
    usd: Decimal | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    requests: int | None = Field(default=None, ge=0)
    streams: int | None = Field(default=None, ge=0)
    per: Literal["minute", "hour", "day", "week", "month", "ever"] | None = None
    mode: Literal["strict", "balanced"] = "strict"

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        given = [
            n for n in ("usd", "tokens", "requests", "streams") if getattr(self, n) is not None
        ]
        if len(given) != 1:
            raise ValueError("give exactly one of usd, tokens, requests and streams")
        if given == ["streams"] and self.per is not None:
            raise ValueError("streams are counted while they are open: leave out per")
        if given != ["streams"] and self.per is None:
            raise ValueError("say how often it starts anew: per = minute … month, or ever")
        return self


class ChargeRow(_Row):
    """What customers are charged for calls that ended so. The first row that fits decides."""

    name: str = Field(default="", max_length=60)
    """What its charges are called in the ledger; without one, the row's number."""
    account: Path_ = ""
    endings: tuple[EndingName, ...] = ()
    """Names of endings; none: any."""
    caused_by: Literal["caller", "provider", "gateway"] | None = None
    charge: Literal["actual", "delivered", "prompt", "nothing"]
    markup: Decimal = Field(default=Decimal(1), ge=0, le=100)
    """A factor on the cost: 1.2 is 20 % on top."""


class WarningRow(_Row):
    """Who is told when a budget is nearly used up, or an account cancels too much."""

    at_percent: tuple[int, ...] = (80, 95)
    webhook_url: str | None = None
    webhook_secret_env: str | None = None
    cancel_ratio: float | None = Field(default=None, gt=0, le=1)
    """Share of an account's calls of an hour that their caller left, above which it is told."""
    unbilled_share: float | None = Field(default=None, gt=0, le=1)
    """Share of an account's cost of an hour that is not charged, above which it is told."""


class Config(_Row):
    """All the rules in force. Read whole and swapped whole: never half of an old one."""

    timezone: str = "UTC"
    upstreams: Mapping[str, UpstreamRow] = Field(default_factory=dict)
    limits: tuple[LimitRow, ...] = ()
    charges: tuple[ChargeRow, ...] = ()
    warnings: WarningRow = WarningRow()

    @field_validator("timezone")
    @classmethod
    def _a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError("no such time zone; write one such as Europe/Berlin") from error
        return name

    @field_validator("upstreams")
    @classmethod
    def _plain_names(cls, rows: Mapping[str, UpstreamRow]) -> Mapping[str, UpstreamRow]:
        for name in rows:
            if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
                raise ValueError(f"{name!r}: use letters, digits, dots and dashes in a name")
        return rows

    @field_validator("limits")
    @classmethod
    def _names_differ(cls, rows: tuple[LimitRow, ...]) -> tuple[LimitRow, ...]:
        names = [row.name for row in rows]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two limits are called {name!r}")
        return rows

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


NO_RULES = Config()
"""No upstreams by name, no limits: everybody may everything, and is charged what it costs."""


def load_config(path: Path, others: Collection[str] | None = None) -> Config:
    """The rules of a file; none where there is no file.

    `others` are the names that others read from it; None: whatever they are. Raises SettingsError
    naming the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return NO_RULES
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    return read_config(text, str(path), others)


def read_config(text: str, name: str, others: Collection[str] | None = None) -> Config:
    """The rules of a text; `name` is what errors call it."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{name} is no TOML: {error}") from None
    for key in tables:
        if others is not None and key not in Config.model_fields and key not in others:
            near = difflib.get_close_matches(key, [*Config.model_fields, *others], 1)
            hint = (
                f"did you mean {near[0]}?" if near else "docs/reference/settings.md has all names"
            )
            raise SettingsError(f"{name}, line {line_of(text, [key])}: {key}: unknown; {hint}")
    known = {key: value for key, value in tables.items() if key in Config.model_fields}
    try:
        return Config.model_validate(known)
    except ValidationError as error:
        raise SettingsError(_first_error(error, text, name)) from None


def _first_error(error: ValidationError, text: str, name: str) -> str:
    first = error.errors(include_input=False)[0]
    where = [part for part in first["loc"] if part != "__root__"]
    line = line_of(text, where)
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        said = f"unknown; known are {', '.join(_fields_beside(where))}"
    return f"{name}, line {line}: {_spelled(where)}: {said}"


def _fields_beside(where: Sequence[int | str]) -> list[str]:
    """The names that may stand where an unknown one does."""
    rows: dict[str, type[BaseModel]] = {
        "upstreams": UpstreamRow,
        "limits": LimitRow,
        "charges": ChargeRow,
        "warnings": WarningRow,
    }
    return sorted(rows.get(str(where[0]), Config).model_fields)


def _spelled(where: Sequence[int | str]) -> str:
    spelled = ""
    for part in where:
        spelled += f"[{part}]" if isinstance(part, int) else f".{part}" if spelled else part
    return spelled


_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")


def line_of(text: str, where: Sequence[int | str]) -> int:
    """The line, from 1, on which a value stands, or else the table that it belongs in.

    `where` is a path into the parsed file, such as `("limits", 2, "usd")`.
    """
    names = [str(part) for part in where if isinstance(part, str)]
    number = next((part for part in where if isinstance(part, int)), 0)
    best, depth, seen = 1, 0, -1
    table: list[str] = []
    for at, line in enumerate(text.splitlines(), start=1):
        found: list[str] = []
        if header := _HEADER.match(line):
            found = table = [part.strip().strip("\"'") for part in header[2].split(".")]
            seen += header[1] == "[[" and table == names[:1]
        elif "=" in line:
            found = [*table, line.split("=", 1)[0].strip().strip("\"'")]
        here = seen in (-1, number) or len(table) == 0
        if here and len(found) > depth and found == names[: len(found)]:
            best, depth = at, len(found)
    return best
