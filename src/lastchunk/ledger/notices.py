"""Which warnings were given: each by one process for all, and by none again after a restart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum, auto

import sqlalchemy as sa

from lastchunk.ledger.database import parse_url, unavailable, writing_engine
from lastchunk.ledger.entries import storable
from lastchunk.ledger.tables import notices


@dataclass(frozen=True, slots=True)
class Notice:
    """One warning: what it is about, for which account path, in which window, at which level."""

    subject: str
    prefix: str
    start_ms: int
    level: int


class Claim(Enum):
    """Who may tell a warning."""

    FIRST = auto()
    """We, and nobody has before."""
    AGAIN = auto()
    """We: who claimed it did not say in time that it was delivered."""
    TAKEN = auto()
    """Somebody else, at this moment."""
    TOLD = auto()
    """Nobody: it was delivered."""


_KEY = ("subject", "prefix", "start_ms", "level")
_this = sa.and_(*(notices.c[name] == sa.bindparam(f"the_{name}") for name in _KEY))

_insert = sa.text(
    "INSERT INTO notices (subject, prefix, start_ms, level, told_ms)"
    " VALUES (:the_subject, :the_prefix, :the_start_ms, :the_level, :now) ON CONFLICT DO NOTHING"
)


class NoticeTable:
    """The notices in a ledger. Each method is one short transaction: not for an event loop.

    `told_ms` is when a warning was delivered; below 0 it is minus the moment of its claim.
    """

    def __init__(self, url: str) -> None:
        self._url = parse_url(url)
        self._engine = writing_engine(self._url)

    def claim(self, notice: Notice, now_ms: int, stale_ms: int) -> Claim:
        """Ask to tell a warning. A claim older than `stale_ms` that was not delivered is free.

        Raises LedgerUnavailable.
        """
        given = _given(notice)
        with unavailable(self._url, "written"), self._engine.begin() as connection:
            before = connection.scalar(sa.select(notices.c.told_ms).where(_this), given)
            if before is None:
                inserted = connection.execute(_insert, given | {"now": -now_ms})
                return Claim.FIRST if inserted.rowcount == 1 else Claim.TAKEN
            if before >= 0:
                return Claim.TOLD
            if -before > now_ms - stale_ms:
                return Claim.TAKEN
            taken_over = connection.execute(
                sa.update(notices)
                .where(_this, notices.c.told_ms == before)
                .values(told_ms=sa.bindparam("now")),
                given | {"now": -now_ms},
            )
            return Claim.AGAIN if taken_over.rowcount == 1 else Claim.TAKEN

    def told(self, notice: Notice, now_ms: int) -> None:
        """It was delivered. Raises LedgerUnavailable."""
        update = sa.update(notices).where(_this).values(told_ms=sa.bindparam("now"))
        with unavailable(self._url, "written"), self._engine.begin() as connection:
            connection.execute(update, _given(notice) | {"now": now_ms})

    def close(self) -> None:
        """Gives its connections back."""
        self._engine.dispose()


def _given(notice: Notice) -> dict[str, object]:
    told = asdict(notice)
    told |= {"subject": storable(notice.subject), "prefix": storable(notice.prefix)}
    return {f"the_{name}": value for name, value in told.items()}
