"""The keys of the gateway's callers: list, create, rotate, revoke."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from lastchunk.accounts import is_account_path, is_under
from lastchunk.admin.operation import Asked, Operation, Problem
from lastchunk.admin.paging import cursor_at, divided, place_at
from lastchunk.admin.schema import (
    DEFAULT_PAGE,
    AccountPrefix,
    Answer,
    Body,
    Cursor,
    Moment,
    Next,
    PageSize,
    Query,
    moment,
    moment_or_none,
)
from lastchunk.admin.sources import Sources
from lastchunk.errors import KeyNotFound
from lastchunk.ledger import keys as ledger_keys
from lastchunk.reports.keys import state_of

DAY_SECONDS = 86_400
MAX_SECONDS = 100 * 366 * DAY_SECONDS

State = Literal["valid", "rotated_out", "revoked", "expired"]
Pattern = Annotated[str, Meta(min_length=1, max_length=200)]
Patterns = Annotated[list[Pattern], Meta(max_length=100)]

log = logging.getLogger("lastchunk.admin")


class Key(Answer):
    """One key, without its secret. `rotated_out`: it opens until `revoked_at`."""

    key_id: str
    account: str
    name: str
    state: State
    models: list[str]
    upstreams: list[str]
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None


class NewKey(Answer):
    """A key that was just made. `secret` is what clients send; it is told only now."""

    key: Key
    secret: str


class Keys(Answer):
    """Keys, the oldest first."""

    items: list[Key]
    next: Next


class KeysQuery(Query):
    """Which keys."""

    account: AccountPrefix | UnsetType = UNSET
    state: State | UnsetType = UNSET
    limit: PageSize = DEFAULT_PAGE
    cursor: Cursor | UnsetType = UNSET


class KeyWanted(Body):
    """A key to make. Without `models` or `upstreams` it opens all; patterns such as `gpt-*`."""

    account: Annotated[str, Meta(min_length=1, max_length=200, examples=["acme/search"])]
    name: Annotated[str, Meta(max_length=200, description="What it is for.")] = ""
    models: Patterns = field(default_factory=list)
    upstreams: Patterns = field(default_factory=list)
    expires_in_seconds: Annotated[int, Meta(ge=1, le=MAX_SECONDS)] | UnsetType = UNSET


class Rotation(Body):
    """How long the old key still opens beside the new one."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=MAX_SECONDS)] = DAY_SECONDS


def list_keys(sources: Sources, asked: Asked) -> Keys:
    query: KeysQuery = asked.query
    place = place_at(query.cursor, tuple[int, str])
    now_ms = sources.now_ms()
    found = [
        key
        for key in sources.keys.all()
        if (place is None or (key.created_ms, key.key_id) > place)
        and (isinstance(query.account, UnsetType) or is_under(key.account, query.account))
        and (isinstance(query.state, UnsetType) or _state(key, now_ms) == query.state)
    ]
    page, more = divided(found, query.limit)
    last = (page[-1].created_ms, page[-1].key_id) if more else None
    items = [_key(key, now_ms) for key in page]
    return Keys(items=items, next=None if last is None else cursor_at(last))


def create_key(sources: Sources, asked: Asked) -> NewKey:
    wanted: KeyWanted = asked.body
    if not is_account_path(wanted.account):
        raise Problem("invalid", "body: account is no account path: write one as acme/search/u42")
    now_ms = sources.now_ms()
    lasts = wanted.expires_in_seconds
    key, secret = sources.keys.create(
        wanted.account,
        wanted.name,
        now_ms,
        models=wanted.models,
        upstreams=wanted.upstreams,
        expires_ms=None if isinstance(lasts, UnsetType) else now_ms + lasts * 1000,
    )
    log.info("key %s was created", key.key_id)
    return NewKey(key=_key(key, now_ms), secret=secret)


def rotate_key(sources: Sources, asked: Asked) -> NewKey:
    rotation: Rotation = asked.body
    now_ms = sources.now_ms()
    old = _found(sources, asked.item_id)
    if not old.is_valid(now_ms):
        raise Problem("conflict", f"key {old.key_id} is revoked or expired: create a new one")
    overlap_ms = rotation.overlap_seconds * 1000
    key, secret = sources.keys.rotate(old.key_id, now_ms, overlap_ms=overlap_ms)
    log.info("key %s was rotated: key %s takes its place", old.key_id, key.key_id)
    return NewKey(key=_key(key, now_ms), secret=secret)


def revoke_key(sources: Sources, asked: Asked) -> Key:
    now_ms = sources.now_ms()
    key = sources.keys.revoke(_found(sources, asked.item_id).key_id, now_ms)
    log.info("key %s was revoked", key.key_id)
    return _key(key, now_ms)


def _found(sources: Sources, key_id: str) -> ledger_keys.Key:
    for key in sources.keys.all():
        if key.key_id == key_id:
            return key
    raise KeyNotFound("there is no key with this id: GET /admin/v1/keys lists them")


def _state(key: ledger_keys.Key, now_ms: int) -> State:
    match state_of(key, now_ms):
        case "valid":
            return "valid"
        case "revoked":
            return "revoked"
        case "expired":
            return "expired"
        case _:
            return "rotated_out"


def _key(key: ledger_keys.Key, now_ms: int) -> Key:
    return Key(
        key_id=key.key_id,
        account=key.account,
        name=key.name,
        state=_state(key, now_ms),
        models=list(key.models),
        upstreams=list(key.upstreams),
        created_at=moment(key.created_ms),
        expires_at=moment_or_none(key.expires_ms),
        revoked_at=moment_or_none(key.revoked_ms),
    )


KEYS = (
    Operation("GET", "/admin/v1/keys", "list_keys", "List keys", Keys, list_keys, KeysQuery),
    Operation(
        "POST",
        "/admin/v1/keys",
        "create_key",
        "Make a key; its secret is in this answer alone",
        NewKey,
        create_key,
        body=KeyWanted,
        status=201,
    ),
    Operation(
        "POST",
        "/admin/v1/keys/{id}/rotate",
        "rotate_key",
        "Make a new key in the place of this one, which opens for a while yet",
        NewKey,
        rotate_key,
        body=Rotation,
        body_optional=True,
        status=201,
        errors=("conflict",),
    ),
    Operation(
        "POST",
        "/admin/v1/keys/{id}/revoke",
        "revoke_key",
        "Let this key open nothing from now on; may be repeated",
        Key,
        revoke_key,
    ),
)
