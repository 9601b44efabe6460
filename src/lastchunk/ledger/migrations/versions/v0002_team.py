"""What a team's gateway needs: windows for limits, keys, and which warnings were given."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_HOLDS = ("held_most", "held_usual", "held_tokens_most", "held_tokens_usual")
_SUMS = (
    "spent",
    "tokens",
    "most",
    "usual",
    "tokens_most",
    "tokens_usual",
    "calls",
    "calls_open",
)


def upgrade() -> None:
    """Adds the table and the columns; calls that are open now hold nothing in windows."""
    for name in _HOLDS:
        op.add_column("in_flight", sa.Column(name, sa.BigInteger))
    # SQLite turns a 64-bit sum that overflows into a float without a word: refuse that.
    whole_numbers = " AND ".join(f"typeof({name}) = 'integer'" for name in _SUMS)
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "windows",
        sa.Column("prefix", _KEY, primary_key=True),
        sa.Column("start_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("end_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _SUMS),
        *([sa.CheckConstraint(whole_numbers, name="windows_whole")] if on_sqlite else []),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "keys",
        sa.Column("key_id", _KEY, primary_key=True),
        sa.Column("secret_hash", sa.Text, nullable=False),
        sa.Column("account", _KEY, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("upstreams", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger),
        sa.Column("revoked_ms", sa.BigInteger),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "notices",
        sa.Column("subject", _KEY, primary_key=True),
        sa.Column("prefix", _KEY, primary_key=True),
        sa.Column("start_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("level", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("told_ms", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
