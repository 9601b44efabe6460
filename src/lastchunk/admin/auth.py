"""The key of the admin API: where it is from, and whether a request has it."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from lastchunk.errors import SettingsError

VARIABLE = "LASTCHUNK_ADMIN_KEY"
MIN_KEY_CHARS = 16
"""Shorter keys can be guessed."""


class AdminKey:
    """The operator's key, kept as a hash alone."""

    def __init__(self, key: str) -> None:
        """Raises SettingsError for a key that is too short, or that no header can carry."""
        if len(key) < MIN_KEY_CHARS:
            raise SettingsError(
                f"the admin key has {len(key)} characters: use {MIN_KEY_CHARS} or more,"
                " such as those of `openssl rand -hex 32`"
            )
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise SettingsError("the admin key must be printable ASCII without blanks")
        self._digest = _digest(key)

    def opens(self, authorization: str) -> bool:
        """Whether this `Authorization` header brings the key as a bearer's.

        Hashes of one length are compared, in constant time: neither the time nor the length of
        what was presented tells anything about the key.
        """
        scheme, _, presented = authorization.partition(" ")
        same = hmac.compare_digest(_digest(presented.strip()), self._digest)
        return same and scheme.lower() == "bearer"


def find_admin_key(file: Path | None) -> AdminKey | None:
    """The key of a file, else of the environment; None where there is none.

    Raises SettingsError where it cannot be read or used.
    """
    if file is None:
        given = os.environ.get(VARIABLE, "").strip()
        return AdminKey(given) if given else None
    try:
        return AdminKey(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"the admin key cannot be read from {file}: {reason}") from None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
