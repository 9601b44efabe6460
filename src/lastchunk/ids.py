"""The only randomness: ids that sort by time and are made before anything is done."""

import os

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32, lower case: no letter that reads like a digit."""


def new_call_id(now_ms: int) -> str:
    """An id such as `call_01jd3x…`: 48 bits of time, 80 random bits, sorting by time."""
    return "call_" + _ulid(now_ms)


def new_adjustment_id(now_ms: int) -> str:
    """An id such as `adj_01jd3x…` for a refund whose asker brings none."""
    return "adj_" + _ulid(now_ms)


def new_process_id(now_ms: int) -> str:
    """An id for one run of one process; a forked child makes its own."""
    return "proc_" + _ulid(now_ms)


def new_key_id() -> str:
    """A public name for a key: 50 random bits, so that nobody's id is another's."""
    number = int.from_bytes(os.urandom(7), "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(45, -5, -5))


def new_secret() -> str:
    """A key's secret part: 256 random bits as 52 letters and digits."""
    number = int.from_bytes(os.urandom(33), "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(255, -5, -5))


def _ulid(now_ms: int) -> str:
    number = (now_ms & ((1 << 48) - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -5, -5))
