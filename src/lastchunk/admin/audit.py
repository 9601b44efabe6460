"""The audit, in a process of its own: recomputing takes a core, and here streams are relayed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Annotated

import msgspec
from msgspec import Meta

from lastchunk.admin.auth import VARIABLE
from lastchunk.admin.operation import Asked, Problem
from lastchunk.admin.schema import Answer
from lastchunk.admin.sources import Sources
from lastchunk.errors import LedgerUnavailable

LOOK_SECONDS = 0.25
"""How often is looked whether somebody still waits for it."""

EXIT_CLEAN, EXIT_DISCREPANCIES = 0, 1


class Discrepancy(Answer):
    """One thing that does not hold. `subject` is a call id, or an account for balances."""

    name: str
    subject: str
    message: str


class Verified(Answer):
    """What an audit found. `found` counts all discrepancies; the first thousand are listed."""

    clean: bool
    entries: int
    calls: int
    accounts: int
    found: int
    discrepancies: Annotated[list[Discrepancy], Meta(max_length=1_000)]


class _Checked(msgspec.Struct):
    entries: int
    calls: int
    accounts: int
    found: int


class _Discrepancies(msgspec.Struct):
    rows: list[Discrepancy]


class _Checks(msgspec.Struct):
    rows: list[_Checked]


class _Said(msgspec.Struct):
    """What `lastchunk verify --json` writes."""

    discrepancies: _Discrepancies
    checked: _Checks


def audited(sources: Sources, asked: Asked) -> Verified:
    """Runs `lastchunk verify` and waits. Raises LedgerUnavailable, or Problem where it gave up."""
    environment = os.environ | {"LASTCHUNK_LEDGER": sources.ledger_url}  # no password in arguments
    environment.pop(VARIABLE, None)
    command = [sys.executable, "-m", "lastchunk", "verify", "--json"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            out, errors = _waited(process, sources, asked)
        finally:
            process.kill()  # nothing, where it has ended
    if process.returncode not in (EXIT_CLEAN, EXIT_DISCREPANCIES):
        told = errors.decode(errors="replace").strip().splitlines()
        raise LedgerUnavailable(told[-1] if told else "the audit ended without an answer")
    said = msgspec.json.decode(out, type=_Said)
    (checked,) = said.checked.rows
    return Verified(
        clean=checked.found == 0,
        entries=checked.entries,
        calls=checked.calls,
        accounts=checked.accounts,
        found=checked.found,
        discrepancies=said.discrepancies.rows,
    )


def _waited(
    process: subprocess.Popen[bytes], sources: Sources, asked: Asked
) -> tuple[bytes, bytes]:
    while True:
        try:
            return process.communicate(timeout=LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if sources.stopping.is_set():
                message = "The gateway is stopping: ask its successor."
                raise Problem("not_available", message) from None
            if time.monotonic() > asked.deadline:
                message = "It took too long: run `lastchunk verify` beside the gateway."
                raise Problem("took_too_long", message) from None
