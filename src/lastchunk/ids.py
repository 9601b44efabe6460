"""The only randomness: ids that sort by time and are made before anything is done."""

import os

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32, lower case: no letter that reads like a digit."""


def new_call_id(now_ms: int) -> str:
    """An id such as `call_01jd3x…`: 48 bits of time, 80 random bits, sorting by time."""
    return "call_" + _ulid(now_ms)


def new_process_id(now_ms: int) -> str:
    """An id for one run of one process; a forked child makes its own."""
    return "proc_" + _ulid(now_ms)


def _ulid(now_ms: int) -> str:
    number = (now_ms & ((1 << 48) - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -5, -5))
