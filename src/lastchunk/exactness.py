"""Which calls use exact mode: the whole answer is asked for, and replayed as the stream."""

from __future__ import annotations

from collections.abc import Iterable

from lastchunk.accounts import path_within


def is_exact_account(account: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns (`billing`, `billing/*`) takes in this account.

    As for limits and charges: a path takes in all below it, and a segment may be `*`.
    """
    return any(path_within(pattern, account) is not None for pattern in patterns)
