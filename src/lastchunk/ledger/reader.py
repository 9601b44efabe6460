"""The ledger, opened for reading: single calls, lists of calls, sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import sqlalchemy as sa

from lastchunk.errors import CallNotFound
from lastchunk.ledger.balances import BALANCE_FIELDS, Balance
from lastchunk.ledger.calls import EVERY_CALL, CallFilter, conditions, joined, reserved
from lastchunk.ledger.conduct import Conduct, read_conduct
from lastchunk.ledger.database import (
    check_schema,
    hidden,
    parse_url,
    reading_engine,
    unavailable,
)
from lastchunk.ledger.detail import decode
from lastchunk.ledger.entries import Correction, Entry, EntryKind, Standing, standing_of, storable
from lastchunk.ledger.lessons import read_residuals
from lastchunk.ledger.rows import entry_of
from lastchunk.ledger.spend import SpendRow, read_spend
from lastchunk.ledger.tables import balances, entries, in_flight, is_reservation
from lastchunk.ledger.windows import Window, WindowSums, account_under, window_sums
from lastchunk.meter.observation import Observation
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.settlement.residuals import ResidualRow

PAGE = 200
"""Calls read at a time while listing: between pages no read transaction is open, so that a slow
reader of a long list does not keep the write-ahead log from being folded in."""

_MOST_NAMED = 5
"""How many candidates an error names when an id fits several calls."""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """Everything the ledger says of one call. `entries` are in the order of writing.

    `settlement` is None while the call is open; `seen` is what its process last wrote down, and
    None once it is resolved (the settlement has the observation then).
    """

    call: OpenCall
    entries: tuple[Entry, ...]
    settlement: Settlement | None
    corrections: tuple[Correction, ...]
    seen: Observation | None

    @property
    def call_id(self) -> str:
        return self.call.call_id

    @property
    def is_open(self) -> bool:
        return self.settlement is None

    @property
    def process_id(self) -> str:
        """The opening of the ledger that reserved the call."""
        return self.entries[0].process_id

    @property
    def standing(self) -> Standing:
        """Tokens, cost, charge and basis as they are now, corrections included."""
        return standing_of(self.entries)


class Reader:
    """Reads beside any writers, and without them. May be used from several threads."""

    def __init__(self, engine: sa.Engine, url: sa.URL) -> None:
        self.url = hidden(url)
        self._engine = engine
        self._parsed_url = url

    @classmethod
    def open(cls, url: str) -> Reader:
        """Opens the ledger at a path or URL. Raises LedgerUnavailable where there is none."""
        parsed = parse_url(url)
        engine = reading_engine(parsed)
        try:
            check_schema(engine, parsed)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, parsed)

    def call(self, any_id: str) -> CallRecord:
        """The call with this id, the only one whose id begins so, or the provider's response id.

        Raises CallNotFound where none or several fit; it then names them.
        """
        with self._reading() as connection:
            found = _matching_ids(connection, storable(any_id))
            if not found:
                raise CallNotFound(
                    f"no call in {self.url} has the id {any_id!r}: give a call id, its beginning,"
                    " or the provider's response id"
                )
            if len(found) > 1:
                named = ", ".join(found[:_MOST_NAMED]) + (", …" * (len(found) > _MOST_NAMED))
                raise CallNotFound(f"{any_id!r} fits several calls: {named}; give one of these")
            return _records(connection, found)[0]

    def residuals(self) -> tuple[ResidualRow, ...]:
        """How far counts of finished calls were off, the oldest first, as far as it is kept."""
        with self._reading() as connection:
            return read_residuals(connection)

    def calls(
        self,
        wanted: CallFilter = EVERY_CALL,
        limit: int | None = None,
        newest_first: bool = True,
        after: tuple[int, str] | None = None,
    ) -> Iterator[CallRecord]:
        """The calls that fit, by the time they were opened. Read page by page as it is iterated.

        `after` is the opening and the id of the last call of an earlier list, to go on from there.
        """
        opened, id_ = reserved.c.opened_ms, reserved.c.call_id
        place, order = sa.tuple_(opened, id_), (opened, id_)
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            query = (
                sa.select(opened, id_).select_from(joined).where(*conditions(wanted)).limit(size)
            )
            query = query.order_by(*(column.desc() for column in order) if newest_first else order)
            if after is not None:
                last = sa.tuple_(*after)
                query = query.where(place < last if newest_first else place > last)
            with self._reading() as connection:
                found = connection.execute(query).all()
                records = _records(connection, [row.call_id for row in found])
            yield from records
            if len(found) < size:
                return
            after = (found[-1].opened_ms, found[-1].call_id)
            left = None if left is None else left - size

    def count(self, wanted: CallFilter = EVERY_CALL) -> int:
        """How many calls fit."""
        query = sa.select(sa.func.count()).select_from(joined).where(*conditions(wanted))
        with self._reading() as connection:
            return connection.scalar(query) or 0

    def conduct(self, wanted: CallFilter = EVERY_CALL) -> list[Conduct]:
        """How each account's callers behaved, and what of the cost was not charged; by account."""
        with self._reading() as connection:
            return read_conduct(connection, wanted)

    def entries(self, call_id: str) -> list[Entry]:
        """A call's entries in the order of writing; none for a call that does not exist."""
        query = sa.select(entries).where(entries.c.call_id == call_id).order_by(entries.c.seq)
        with self._reading() as connection:
            return [entry_of(row) for row in connection.execute(query).mappings()]

    def spend(
        self, group_by: Sequence[str] = (), wanted: CallFilter = EVERY_CALL
    ) -> list[SpendRow]:
        """Sums by any of account, model, day, ending, dialect, way and tag:KEY, sorted by key."""
        with self._reading() as connection:
            return read_spend(connection, group_by, wanted)

    def balance(self, prefix: str) -> Balance:
        """What an account and all under it hold and have spent."""
        columns = [balances.c[name] for name in BALANCE_FIELDS]
        total = Balance()
        with self._reading() as connection:
            query = sa.select(*columns).where(account_under(balances.c.account, prefix))
            for row in connection.execute(query):
                total += Balance(*row)
        return total

    def window(self, window: Window) -> WindowSums:
        """The sums of one window: as kept beside the entries, else computed from them."""
        with self._reading() as connection:
            return window_sums(connection, window)

    def accounts(self) -> list[tuple[str, Balance]]:
        """Every account with its balance, sorted."""
        columns = [balances.c[name] for name in BALANCE_FIELDS]
        query = sa.select(balances.c.account, *columns).order_by(balances.c.account)
        with self._reading() as connection:
            return [(row[0], Balance(*row[1:])) for row in connection.execute(query)]

    def close(self) -> None:
        """Gives its connections back. Iterators that are under way end with an error."""
        self._engine.dispose()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with unavailable(self._parsed_url, "read"), self._engine.connect() as connection:
            yield connection


def _matching_ids(connection: sa.Connection, any_id: str) -> list[str]:
    """Call ids that fit, best kind of fit first: the whole id, a response id, a beginning."""
    exact = sa.select(entries.c.call_id).where(is_reservation(entries), entries.c.call_id == any_id)
    named = (
        sa.select(entries.c.call_id)
        .where(entries.c.response_id == any_id)
        .distinct()
        .order_by(entries.c.call_id)
    )
    # All ids are ASCII: "\x7f" sorts after every one that begins so.
    begun = (
        sa.select(entries.c.call_id)
        .where(
            is_reservation(entries),
            entries.c.call_id >= any_id,
            entries.c.call_id < any_id + "\x7f",
        )
        .order_by(entries.c.call_id)
    )
    for query in (exact, named, begun) if any_id else ():
        if found := connection.scalars(query.limit(_MOST_NAMED + 1)).all():
            return list(found)
    return []


def _records(connection: sa.Connection, call_ids: Sequence[str]) -> list[CallRecord]:
    """The calls of these ids, in this order."""
    if not call_ids:
        return []
    histories: dict[str, list[Entry]] = {call_id: [] for call_id in call_ids}
    query = sa.select(entries).where(entries.c.call_id.in_(call_ids)).order_by(entries.c.seq)
    for row in connection.execute(query).mappings():
        histories[row["call_id"]].append(entry_of(row))
    under_way = sa.select(in_flight.c.call_id, in_flight.c.seen).where(
        in_flight.c.call_id.in_(call_ids), in_flight.c.seen.is_not(None)
    )
    seen: dict[str, str] = {row.call_id: row.seen for row in connection.execute(under_way)}
    return [_record(call_id, history, seen.get(call_id)) for call_id, history in histories.items()]


def _record(call_id: str, history: list[Entry], seen: str | None) -> CallRecord:
    settlement = None
    corrections = []
    for entry in history:
        if entry.kind is EntryKind.CORRECTED:
            corrections.append(decode(entry.detail, Correction, call_id))
        elif entry.kind is not EntryKind.RESERVED:
            settlement = decode(entry.detail, Settlement, call_id)
    return CallRecord(
        call=decode(history[0].detail, OpenCall, call_id),
        entries=tuple(history),
        settlement=settlement,
        corrections=tuple(corrections),
        seen=None if seen is None else decode(seen, Observation, call_id),
    )
