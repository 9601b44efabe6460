"""The tables as this version writes and reads them; `migrations/` makes them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

SCHEMA_VERSION = "0002"
"""The migration that this version's tables stand at; a test holds it to the newest one."""

VERSION_TABLE = "lastchunk_schema"
"""Alembic's own table, under a name that leaves room for the neighbours' in a shared database."""

metadata = sa.MetaData()

_Seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text that is compared by its bytes on both databases: prefixes are ranges, order is the same."""


def _token_columns(name: str) -> list[sa.Column[Any]]:
    return [
        sa.Column(f"{name}_low", sa.BigInteger),
        sa.Column(f"{name}_best", sa.BigInteger),
        sa.Column(f"{name}_high", sa.BigInteger),
        sa.Column(f"{name}_basis", sa.SmallInteger),
    ]


entries = sa.Table(
    "entries",
    metadata,
    sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
    sa.Column("call_id", _Key, nullable=False),
    sa.Column("attempt_of", _Key),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("account", _Key, nullable=False),
    sa.Column("way", sa.Text, nullable=False),
    sa.Column("dialect", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("model_served", sa.Text),
    sa.Column("upstream", sa.Text, nullable=False),
    sa.Column("response_id", _Key),
    sa.Column("ending", sa.Text),
    sa.Column("basis", sa.SmallInteger),
    *_token_columns("input"),
    *_token_columns("cached"),
    *_token_columns("output"),
    *_token_columns("reasoning"),
    sa.Column("held_nano", sa.BigInteger),
    sa.Column("cost_low_nano", sa.BigInteger),
    sa.Column("cost_best_nano", sa.BigInteger),
    sa.Column("cost_high_nano", sa.BigInteger),
    sa.Column("charge_nano", sa.BigInteger),
    sa.Column("price_id", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("correction_id", _Key),
    sa.Column("opened_ms", sa.BigInteger, nullable=False),
    sa.Column("occurred_ms", sa.BigInteger, nullable=False),
    sa.Column("recorded_ms", sa.BigInteger, nullable=False),
    sa.Column("process_id", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("content_hash", sa.Text, nullable=False),
)
"""Every entry ever written. Triggers refuse UPDATE and DELETE, and what has no reservation."""


def is_reservation(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """Written with literals, not parameters: only then do both databases use the partial index."""
    return table.c.kind == sa.literal_column("'reserved'")


def is_resolution(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """As above, for SETTLED and RELEASED."""
    return table.c.kind.in_([sa.literal_column("'settled'"), sa.literal_column("'released'")])


def is_correction(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """As above, for CORRECTED."""
    return table.c.kind == sa.literal_column("'corrected'")


def _partial_index(
    name: str, *columns: sa.Column[Any], where: sa.ColumnElement[bool], unique: bool = False
) -> sa.Index:
    return sa.Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


sa.Index("entries_call", entries.c.call_id)
_partial_index(
    "entries_one_reservation", entries.c.call_id, where=is_reservation(entries), unique=True
)
_partial_index(
    "entries_one_resolution", entries.c.call_id, where=is_resolution(entries), unique=True
)
_partial_index(
    "entries_one_correction",
    entries.c.call_id,
    entries.c.correction_id,
    where=is_correction(entries),
    unique=True,
)
_partial_index(
    "entries_attempts",
    entries.c.attempt_of,
    where=sa.and_(is_reservation(entries), entries.c.attempt_of.is_not(None)),
)
_partial_index("entries_response", entries.c.response_id, where=entries.c.response_id.is_not(None))
_partial_index(
    "entries_opened", entries.c.opened_ms, entries.c.call_id, where=is_reservation(entries)
)
_partial_index(
    "entries_account",
    entries.c.account,
    entries.c.opened_ms,
    where=is_reservation(entries),
)

tags = sa.Table(
    "tags",
    metadata,
    sa.Column("call_id", _Key, primary_key=True),
    sa.Column("key", _Key, primary_key=True),
    sa.Column("value", _Key, primary_key=True),
    sa.Index("tags_value", "key", "value"),
    sqlite_with_rowid=False,
)
"""A call's tags, written with its reservation and never changed."""

balances = sa.Table(
    "balances",
    metadata,
    sa.Column("account", _Key, primary_key=True),
    sa.Column("held", sa.BigInteger, nullable=False),
    sa.Column("spent_low", sa.BigInteger, nullable=False),
    sa.Column("spent_best", sa.BigInteger, nullable=False),
    sa.Column("spent_high", sa.BigInteger, nullable=False),
    sa.Column("charge", sa.BigInteger, nullable=False),
    sa.Column("calls_open", sa.BigInteger, nullable=False),
    sa.Column("calls_settled", sa.BigInteger, nullable=False),
    sa.Column("calls_released", sa.BigInteger, nullable=False),
    sa.Column("unpriced_calls", sa.BigInteger, nullable=False),
)
"""Sums of the entries by account: nothing is known here that the entries do not say."""

in_flight = sa.Table(
    "in_flight",
    metadata,
    sa.Column("call_id", _Key, primary_key=True),
    sa.Column("process_id", _Key, nullable=False),
    sa.Column("seen", sa.Text),
    sa.Column("seen_ms", sa.BigInteger),
    sa.Column("held_most", sa.BigInteger),
    sa.Column("held_usual", sa.BigInteger),
    sa.Column("held_tokens_most", sa.BigInteger),
    sa.Column("held_tokens_usual", sa.BigInteger),
    sa.Index("in_flight_process", "process_id"),
    sqlite_with_rowid=False,
)
"""One row for each open call, with what was last seen of it and what it holds in the windows now;
gone when the call is resolved."""

windows = sa.Table(
    "windows",
    metadata,
    sa.Column("prefix", _Key, primary_key=True),
    sa.Column("start_ms", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("end_ms", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("spent", sa.BigInteger, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("most", sa.BigInteger, nullable=False),
    sa.Column("usual", sa.BigInteger, nullable=False),
    sa.Column("tokens_most", sa.BigInteger, nullable=False),
    sa.Column("tokens_usual", sa.BigInteger, nullable=False),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("calls_open", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Sums of the entries by account path and span of time, for limits: kept once they are asked for,
and nothing is known here that entries and in-flight rows do not say."""

processes = sa.Table(
    "processes",
    metadata,
    sa.Column("process_id", _Key, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("machine_id", sa.Text, nullable=False),
    sa.Column("boot_id", sa.Text, nullable=False),
    sa.Column("pid_space", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("start_ticks", sa.BigInteger),
    sa.Column("started_ms", sa.BigInteger, nullable=False),
    sa.Column("beat_ms", sa.BigInteger, nullable=False),
    sa.Column("ended_ms", sa.BigInteger),
)
"""Who has the ledger open, or had it: by this a call's process is known to be dead."""

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("key_id", _Key, primary_key=True),
    sa.Column("secret_hash", sa.Text, nullable=False),
    sa.Column("account", _Key, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("models", sa.Text, nullable=False),
    sa.Column("upstreams", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_ms", sa.BigInteger),
    sa.Column("revoked_ms", sa.BigInteger),
    sqlite_with_rowid=False,
)
"""Who may come in. The secret itself is nowhere: only its hash is. Patterns are JSON lists."""

notices = sa.Table(
    "notices",
    metadata,
    sa.Column("subject", _Key, primary_key=True),
    sa.Column("prefix", _Key, primary_key=True),
    sa.Column("start_ms", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("level", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("told_ms", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Which warnings were given already: by one process for all."""

residuals = sa.Table(
    "residuals",
    metadata,
    sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
    sa.Column("side", sa.Text, nullable=False),
    sa.Column("shape", sa.Text, nullable=False),
    sa.Column("family", sa.Text, nullable=False),
    sa.Column("residual", sa.BigInteger, nullable=False),
    sa.Column("counted", sa.BigInteger, nullable=False),
    sa.Column("low", sa.BigInteger, nullable=False),
    sa.Column("high", sa.BigInteger, nullable=False),
    sa.Column("bounded", sa.SmallInteger, nullable=False),
    sa.Column("seen_ms", sa.BigInteger, nullable=False),
)
"""How far our count of a finished call was off, by shape: a keyed hash, no content."""

reasoning_paces = sa.Table(
    "reasoning_paces",
    metadata,
    sa.Column("seq", _Seq, primary_key=True, autoincrement=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("shape", sa.Text, nullable=False),
    sa.Column("silent_ms", sa.BigInteger, nullable=False),
    sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
    sa.Column("seen_ms", sa.BigInteger, nullable=False),
)
"""How much a model reasoned while it was silent, in finished calls."""

shape_keys = sa.Table(
    "shape_keys",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, nullable=False),
)
"""The one key of this ledger's shapes: without it nobody can guess a request from its hash."""
