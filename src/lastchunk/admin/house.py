"""The gateway itself: its health, an audit of the ledger, the rules read again."""

from __future__ import annotations

from typing import Literal

from lastchunk.admin.audit import Verified, audited
from lastchunk.admin.operation import Asked, Operation, Problem
from lastchunk.admin.schema import Answer, Moment, moment_or_none
from lastchunk.admin.sources import Sources
from lastchunk.errors import SettingsError

VERIFY_SECONDS = 600.0
"""How long an audit may take here; larger ledgers are for `lastchunk verify`."""


class LedgerState(Answer):
    """The ledger as this process sees it. What is spooled is not in any list or sum yet."""

    state: Literal["ok", "away"]
    away_since: Moment | None
    spooled_entries: int
    spool_bytes: int
    held_entries: int
    lost_entries: int


class Health(Answer):
    """How the process that answers is. `open_calls` are its own."""

    status: Literal["ok", "degraded", "failing"]
    open_calls: int
    ledger: LedgerState


class Reloaded(Answer):
    """The rules that hold from now on."""

    timezone: str
    upstreams: int
    limits: int
    charges: int


def health(sources: Sources, asked: Asked) -> Health:
    told = sources.bookkeeper.ledger.health()
    well: Literal["ok", "degraded"] = "degraded" if told.is_away or told.lost_entries else "ok"
    return Health(
        status=well if sources.bookkeeper.is_healthy() else "failing",
        open_calls=sources.bookkeeper.open_calls(),
        ledger=LedgerState(
            state="away" if told.is_away else "ok",
            away_since=moment_or_none(told.away_since_ms),
            spooled_entries=told.spooled_entries,
            spool_bytes=told.spool_bytes,
            held_entries=told.held_entries,
            lost_entries=told.lost_entries,
        ),
    )


def verify_ledger(sources: Sources, asked: Asked) -> Verified:
    if not sources.verifying.acquire(blocking=False):
        raise Problem("conflict", "The ledger is being verified: wait for that answer.")
    try:
        return audited(sources, asked)
    finally:
        sources.verifying.release()


def reload(sources: Sources, asked: Asked) -> Reloaded:
    if sources.reload is None or sources.run_reload is None:
        message = "This gateway cannot read its rules again: start it anew."
        raise Problem("not_available", message)
    try:
        sources.run_reload(sources.reload)
    except SettingsError as error:
        raise Problem("conflict", f"The rules before go on to hold: {error}") from None
    config = sources.rules()
    return Reloaded(
        timezone=config.timezone,
        upstreams=len(config.upstreams),
        limits=len(config.limits),
        charges=len(config.charges),
    )


HOUSE = (
    Operation("GET", "/admin/v1/health", "health", "How the gateway is", Health, health),
    Operation(
        "POST",
        "/admin/v1/verify",
        "verify",
        "Recompute every balance from the entries; one audit at a time",
        Verified,
        verify_ledger,
        errors=("conflict", "not_available"),
        seconds=VERIFY_SECONDS,
    ),
    Operation(
        "POST",
        "/admin/v1/reload",
        "reload",
        "Read limits, upstreams and charges from the file again",
        Reloaded,
        reload,
        errors=("conflict", "not_available"),
    ),
)
