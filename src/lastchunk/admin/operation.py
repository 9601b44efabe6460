"""One endpoint as data: from these the routes, the checks and the OpenAPI document are made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from lastchunk.admin.schema import Answer, Body, ErrorCode, Query

if TYPE_CHECKING:
    from lastchunk.admin.sources import Sources

READ_SECONDS = 30.0
"""How long the answer to a question may take: beyond it a narrower one is wanted."""

STATUS: dict[ErrorCode, int] = {
    "bad_json": 400,
    "bad_request": 400,
    "unauthorized": 401,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_slow_body": 408,
    "conflict": 409,
    "body_too_large": 413,
    "wrong_content_type": 415,
    "invalid": 422,
    "failed": 500,
    "not_available": 501,
    "ledger_unavailable": 503,
    "took_too_long": 504,
}
"""Each error's status."""


class Problem(Exception):
    """An error as it is answered. `allow` are the methods that there are, for a 405."""

    def __init__(self, code: ErrorCode, message: str, *, allow: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.allow = allow


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, checked. `deadline` is in seconds of `time.monotonic`."""

    query: Any
    body: Any
    item_id: str
    """What stands for `{id}` in the path; empty where there is none."""
    deadline: float

    def check_time(self) -> None:
        """Raises Problem when the time for the answer is over."""
        if time.monotonic() > self.deadline:
            raise too_long()


def too_long() -> Problem:
    message = "This took too long. Ask for less: a shorter period, an account, a smaller page."
    return Problem("took_too_long", message)


Respond = Callable[["Sources", Asked], Answer]
"""Runs in a thread of its own: it may read the ledger, and wait."""


class NoQuery(Query):
    """There are no query parameters."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint. `path` may hold one `{id}`. `body` None: none is read."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    summary: str
    answer: type[Answer]
    respond: Respond
    query: type[Query] = NoQuery
    body: type[Body] | None = None
    body_optional: bool = False
    status: int = 200
    errors: tuple[ErrorCode, ...] = ()
    """Those that only some endpoints have."""
    seconds: float = READ_SECONDS

    @property
    def all_errors(self) -> tuple[ErrorCode, ...]:
        """Every error that it may answer with."""
        found: list[ErrorCode] = ["bad_request", "unauthorized", *self.errors, "invalid"]
        if "{id}" in self.path:
            found.append("not_found")
        if self.body is not None:
            found += ["bad_json", "too_slow_body", "body_too_large", "wrong_content_type"]
        return (*found, "ledger_unavailable", "took_too_long")

    def read_query(self, given: dict[str, str]) -> Query:
        """The query, checked. Raises Problem."""
        try:
            return msgspec.convert(given, self.query, strict=False)
        except (msgspec.ValidationError, OverflowError) as error:
            raise Problem("invalid", f"query: {error}") from None

    def read_body(self, raw: bytes) -> Body | None:
        """The body, checked. Raises Problem."""
        if self.body is None:
            return None
        if not raw and self.body_optional:
            raw = b"{}"
        try:
            return msgspec.json.decode(raw, type=self.body)
        except msgspec.ValidationError as error:
            raise Problem("invalid", f"body: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem("bad_json", f"The body is no JSON: {error}") from None
