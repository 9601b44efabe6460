"""Brings a ledger's schema to this version. A module of its own: Alembic is slow to import."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: sa.Connection) -> None:
    """Runs the missing steps inside the caller's transaction, which holds the write lock."""
    command.upgrade(alembic_config(connection), "head")


def older_may_go_on(version: str) -> bool:
    """Whether processes that know the tables as of `version` may write while they are upgraded.

    A step says so with `OLDER_MAY_GO_ON = True`: it only adds what an older lastchunk need not
    write. One that says nothing is taken to break them.
    """
    steps = ScriptDirectory.from_config(alembic_config()).iterate_revisions("head", version)
    return all(getattr(step.module, "OLDER_MAY_GO_ON", False) for step in steps)


def alembic_config(connection: sa.Connection | None = None) -> Config:
    """The configuration Alembic needs, without a file of settings."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
