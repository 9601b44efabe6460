"""What finished calls taught the counter: numbers and keyed hashes, kept while they are fresh.

Lessons are no accounts: they may be lost, and old ones are dropped.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import TypeAlias

import sqlalchemy as sa

from lastchunk.ledger import bulk
from lastchunk.ledger.tables import reasoning_paces, residuals, shape_keys
from lastchunk.settlement.learned_reasoning import ReasoningRow
from lastchunk.settlement.residuals import ResidualRow, Side

KEPT = 5_000
"""Rows of each kind that are kept, the latest: more than a counter in memory remembers."""

_RESIDUAL = tuple(field.name for field in fields(ResidualRow))
_PACE = tuple(field.name for field in fields(ReasoningRow))

LessonRow: TypeAlias = ResidualRow | ReasoningRow


@dataclass(frozen=True, slots=True)
class Lessons:
    """All that is remembered, the oldest first, and the key that shapes are hashed with."""

    key: bytes
    residuals: tuple[ResidualRow, ...]
    paces: tuple[ReasoningRow, ...]


class LessonBook:
    """Writes lessons on the writer's connection."""

    def __init__(self, engine: sa.Engine) -> None:
        self._residual = bulk.insert(engine, residuals, _RESIDUAL)
        self._pace = bulk.insert(engine, reasoning_paces, _PACE)

    def write(self, connection: sa.Connection, rows: Sequence[LessonRow]) -> None:
        learned = [
            [int(value) if isinstance(value, bool) else value for value in astuple(row)]
            for row in rows
            if isinstance(row, ResidualRow)
        ]
        paces = [astuple(row) for row in rows if isinstance(row, ReasoningRow)]
        self._residual.run(connection, learned)
        self._pace.run(connection, paces)


def read_lessons(connection: sa.Connection) -> Lessons:
    """The latest lessons; drops what is older, and makes the key where there is none yet."""
    for table in (residuals, reasoning_paces):
        newest = connection.scalar(sa.select(sa.func.max(table.c.seq))) or 0
        connection.execute(sa.delete(table).where(table.c.seq <= newest - KEPT))
    paces = _rows(connection, reasoning_paces, _PACE)
    return Lessons(
        key=_key(connection),
        residuals=read_residuals(connection),
        paces=tuple(ReasoningRow(**row._asdict()) for row in paces),
    )


def read_residuals(connection: sa.Connection) -> tuple[ResidualRow, ...]:
    """How far counts of finished calls were off, the oldest first."""
    return tuple(_residual(row) for row in _rows(connection, residuals, _RESIDUAL))


def _rows(
    connection: sa.Connection, table: sa.Table, names: Sequence[str]
) -> Sequence[sa.Row[tuple[object, ...]]]:
    columns = [table.c[name] for name in names]
    return connection.execute(sa.select(*columns).order_by(table.c.seq)).all()


def _residual(row: sa.Row[tuple[object, ...]]) -> ResidualRow:
    values = row._asdict()
    return ResidualRow(
        **values | {"side": Side(values["side"]), "bounded": bool(values["bounded"])}
    )


def _key(connection: sa.Connection) -> bytes:
    made = {"number": 1, "key": secrets.token_hex(32)}
    known: str | None = connection.scalar(sa.select(shape_keys.c.key))
    if known is None:
        connection.execute(sa.insert(shape_keys), made)
        known = made["key"]  # type: ignore[assignment]
    assert known is not None
    return bytes.fromhex(known)
