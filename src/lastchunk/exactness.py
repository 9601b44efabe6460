"""Which calls use exact mode: the whole answer is asked for, and replayed as the stream."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def is_exact_account(account: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns (`billing/*`) names this account."""
    return any(fnmatchcase(account, pattern) for pattern in patterns)
