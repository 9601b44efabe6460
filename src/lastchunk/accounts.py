"""Account paths: organisation, team, user, as in `acme/search/u42`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

EVERYONE = ""
"""The path above all accounts."""

MAX_ACCOUNT_CHARS = 200

PATH = r"[^/\s]+(?:/[^/\s]+)*"
"""Segments between slashes, without blanks."""


def is_account_path(text: str) -> bool:
    """Whether this names one account: segments between slashes, none of them `*`."""
    fits = len(text) <= MAX_ACCOUNT_CHARS and re.fullmatch(PATH, text) is not None
    return fits and "*" not in text.split("/")


def is_account_pattern(text: str) -> bool:
    """Whether `path_within` can take accounts under this: each segment is whole or `*`."""
    return all(part == "*" or (part and "*" not in part) for part in text.split("/"))


def is_under(account: str, prefix: str) -> bool:
    """Whether an account is the prefix itself or lies under it: `team/ann` is under `team`."""
    return account == prefix or account.startswith(prefix + "/")


@lru_cache(maxsize=16_384)
def path_within(pattern: str, account: str) -> str | None:
    """The path that a pattern takes an account under; None where it does not fit.

    A pattern is a path whose segments may be `*`: `acme` takes everything below acme under `acme`,
    `acme/*` takes each team under its own path, `*` each organisation, and `` everybody under ``.
    """
    if pattern == EVERYONE:
        return EVERYONE
    wanted, given = pattern.split("/"), account.split("/")
    if len(given) < len(wanted):
        return None
    if any(want not in ("*", have) for want, have in zip(wanted, given, strict=False)):
        return None
    return "/".join(given[: len(wanted)])


def paths_above(account: str) -> Iterator[str]:
    """Every path that an account counts under, from everyone down to itself."""
    yield EVERYONE
    end = account.find("/")
    while end >= 0:
        yield account[:end]
        end = account.find("/", end + 1)
    yield account
