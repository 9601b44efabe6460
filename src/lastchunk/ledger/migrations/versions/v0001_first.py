"""The first schema: entries, tags, balances, in-flight rows, processes, and their rules."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_RESERVED = "kind = 'reserved'"
_RESOLVED = "kind IN ('settled', 'released')"
_CORRECTED = "kind = 'corrected'"


def upgrade() -> None:
    """Makes everything."""
    _create_entries()
    _create_indexes()
    _create_the_rest()
    _create_lessons()
    if op.get_bind().dialect.name == "sqlite":
        rules = (*_SQLITE_RULES, *_sqlite_refusals("entries"), *_sqlite_refusals("tags"))
    else:
        rules = _POSTGRESQL_RULES
    for rule in rules:
        op.execute(sa.text(rule))


def _span(name: str) -> list[sa.Column[Any]]:
    return [
        sa.Column(f"{name}_low", sa.BigInteger),
        sa.Column(f"{name}_best", sa.BigInteger),
        sa.Column(f"{name}_high", sa.BigInteger),
        sa.Column(f"{name}_basis", sa.SmallInteger),
    ]


def _ordered(name: str, unit: str = "") -> list[sa.CheckConstraint]:
    low, best, high = (f"{name}_{part}{unit}" for part in ("low", "best", "high"))
    return [
        sa.CheckConstraint(
            f"{_CORRECTED} OR {low} IS NULL OR ({low} <= {best} AND {best} <= {high})",
            name=f"entries_{name}_ordered",
        ),
        sa.CheckConstraint(
            f"({low} IS NULL) = ({best} IS NULL) AND ({low} IS NULL) = ({high} IS NULL)",
            name=f"entries_{name}_whole",
        ),
    ]


def _create_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("call_id", _KEY, nullable=False),
        sa.Column("attempt_of", _KEY),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("account", _KEY, nullable=False),
        sa.Column("way", sa.Text, nullable=False),
        sa.Column("dialect", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_served", sa.Text),
        sa.Column("upstream", sa.Text, nullable=False),
        sa.Column("response_id", _KEY),
        sa.Column("ending", sa.Text),
        sa.Column("basis", sa.SmallInteger),
        *_span("input"),
        *_span("cached"),
        *_span("output"),
        *_span("reasoning"),
        sa.Column("held_nano", sa.BigInteger),
        sa.Column("cost_low_nano", sa.BigInteger),
        sa.Column("cost_best_nano", sa.BigInteger),
        sa.Column("cost_high_nano", sa.BigInteger),
        sa.Column("charge_nano", sa.BigInteger),
        sa.Column("price_id", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("correction_id", _KEY),
        sa.Column("opened_ms", sa.BigInteger, nullable=False),
        sa.Column("occurred_ms", sa.BigInteger, nullable=False),
        sa.Column("recorded_ms", sa.BigInteger, nullable=False),
        sa.Column("process_id", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.CheckConstraint(
            f"{_RESERVED} OR {_RESOLVED} OR {_CORRECTED}", name="entries_kind_known"
        ),
        sa.CheckConstraint(
            f"({_CORRECTED}) = (correction_id IS NOT NULL)", name="entries_correction_named"
        ),
        sa.CheckConstraint(
            f"({_RESOLVED}) = (ending IS NOT NULL)", name="entries_resolution_has_ending"
        ),
        *_ordered("input"),
        *_ordered("cached"),
        *_ordered("output"),
        *_ordered("reasoning"),
        *_ordered("cost", "_nano"),
    )


def _create_indexes() -> None:
    def partial(name: str, columns: list[str], where: str, unique: bool = False) -> None:
        rows = sa.text(where)
        op.create_index(
            name, "entries", columns, unique=unique, sqlite_where=rows, postgresql_where=rows
        )

    op.create_index("entries_call", "entries", ["call_id"])
    partial("entries_one_reservation", ["call_id"], _RESERVED, unique=True)
    partial("entries_one_resolution", ["call_id"], _RESOLVED, unique=True)
    partial("entries_one_correction", ["call_id", "correction_id"], _CORRECTED, unique=True)
    partial("entries_attempts", ["attempt_of"], f"{_RESERVED} AND attempt_of IS NOT NULL")
    partial("entries_response", ["response_id"], "response_id IS NOT NULL")
    partial("entries_opened", ["opened_ms", "call_id"], _RESERVED)
    partial("entries_account", ["account", "opened_ms"], _RESERVED)


_SUMS = (
    "held",
    "spent_low",
    "spent_best",
    "spent_high",
    "charge",
    "calls_open",
    "calls_settled",
    "calls_released",
    "unpriced_calls",
)


def _create_lessons() -> None:
    op.create_table(
        "residuals",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
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
    op.create_table(
        "reasoning_paces",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("shape", sa.Text, nullable=False),
        sa.Column("silent_ms", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "shape_keys",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text, nullable=False),
    )


def _create_the_rest() -> None:
    # SQLite turns a 64-bit sum that overflows into a float without a word: refuse that.
    whole_numbers = " AND ".join(f"typeof({name}) = 'integer'" for name in _SUMS)
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "balances",
        sa.Column("account", _KEY, primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _SUMS),
        *([sa.CheckConstraint(whole_numbers, name="balances_whole")] if on_sqlite else []),
    )
    op.create_table(
        "tags",
        sa.Column("call_id", _KEY, primary_key=True),
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("value", _KEY, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("tags_value", "tags", ["key", "value"])
    op.create_table(
        "in_flight",
        sa.Column("call_id", _KEY, primary_key=True),
        sa.Column("process_id", _KEY, nullable=False),
        sa.Column("seen", sa.Text),
        sa.Column("seen_ms", sa.BigInteger),
        sqlite_with_rowid=False,
    )
    op.create_index("in_flight_process", "in_flight", ["process_id"])
    op.create_table(
        "processes",
        sa.Column("process_id", _KEY, primary_key=True),
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


def _sqlite_refusals(table: str) -> tuple[str, ...]:
    return tuple(
        f"CREATE TRIGGER {table}_never_{verb.lower()} BEFORE {verb} ON {table} BEGIN "
        f"SELECT RAISE(ABORT, 'lastchunk: {table} are never changed or deleted'); END"
        for verb in ("UPDATE", "DELETE")
    )


# INSERT OR REPLACE deletes rows without asking the DELETE trigger: hence "never replaced".
_SQLITE_RULES = (
    """
    CREATE TRIGGER entries_never_replaced BEFORE INSERT ON entries
    WHEN EXISTS (SELECT 1 FROM entries WHERE seq = NEW.seq)
      OR EXISTS (
        SELECT 1 FROM entries AS earlier WHERE earlier.call_id = NEW.call_id
        AND (
          (NEW.kind = 'reserved' AND earlier.kind = 'reserved')
          OR (NEW.kind IN ('settled', 'released') AND earlier.kind IN ('settled', 'released'))
          OR (NEW.kind = 'corrected' AND earlier.correction_id = NEW.correction_id)
        )
      )
    BEGIN SELECT RAISE(ABORT, 'lastchunk: this entry exists already'); END
    """,
    """
    CREATE TRIGGER entries_resolution_needs_reservation BEFORE INSERT ON entries
    WHEN NEW.kind IN ('settled', 'released') AND NOT EXISTS (
      SELECT 1 FROM entries AS earlier
      WHERE earlier.call_id = NEW.call_id AND earlier.kind = 'reserved'
      AND earlier.account = NEW.account AND earlier.held_nano IS NEW.held_nano
      AND earlier.opened_ms = NEW.opened_ms
    )
    BEGIN SELECT RAISE(ABORT, 'lastchunk: no such reservation'); END
    """,
    """
    CREATE TRIGGER entries_correction_needs_resolution BEFORE INSERT ON entries
    WHEN NEW.kind = 'corrected' AND NOT EXISTS (
      SELECT 1 FROM entries AS earlier WHERE earlier.call_id = NEW.call_id
      AND earlier.kind IN ('settled', 'released') AND earlier.account = NEW.account
      AND earlier.opened_ms = NEW.opened_ms
    )
    BEGIN SELECT RAISE(ABORT, 'lastchunk: no such resolution'); END
    """,
)

_POSTGRESQL_RULES = (
    """
    CREATE FUNCTION lastchunk_never_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'lastchunk: % are never changed or deleted', TG_TABLE_NAME; END $$
    """,
    """
    CREATE TRIGGER entries_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION lastchunk_never_changed()
    """,
    """
    CREATE TRIGGER tags_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON tags
    FOR EACH STATEMENT EXECUTE FUNCTION lastchunk_never_changed()
    """,
    """
    CREATE FUNCTION lastchunk_entry_in_order() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.kind IN ('settled', 'released') AND NOT EXISTS (
        SELECT 1 FROM entries AS earlier
      WHERE earlier.call_id = NEW.call_id AND earlier.kind = 'reserved'
        AND earlier.account = NEW.account AND earlier.held_nano IS NOT DISTINCT FROM NEW.held_nano
        AND earlier.opened_ms = NEW.opened_ms
      ) THEN
        RAISE EXCEPTION 'lastchunk: no such reservation: %', NEW.call_id;
      END IF;
      IF NEW.kind = 'corrected' AND NOT EXISTS (
        SELECT 1 FROM entries AS earlier WHERE earlier.call_id = NEW.call_id
        AND earlier.kind IN ('settled', 'released') AND earlier.account = NEW.account
        AND earlier.opened_ms = NEW.opened_ms
      ) THEN
        RAISE EXCEPTION 'lastchunk: no such resolution: %', NEW.call_id;
      END IF;
      RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER entries_in_order BEFORE INSERT ON entries
    FOR EACH ROW EXECUTE FUNCTION lastchunk_entry_in_order()
    """,
)
