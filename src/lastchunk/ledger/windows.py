"""Sums of one account path over one span of time, kept beside the entries for whoever limits them.

A window is made when it is first asked for, from the entries that stand then, and kept up to date
by every writer from then on. It is a projection: deleting it changes no meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import attrgetter

import sqlalchemy as sa

from lastchunk.accounts import EVERYONE, is_under, paths_above
from lastchunk.ledger import bulk
from lastchunk.ledger.database import lock_all_writers
from lastchunk.ledger.entries import Entry, EntryKind, storable
from lastchunk.ledger.tables import entries, in_flight, is_reservation, windows
from lastchunk.settlement.facts import Forecast

FOREVER_MS = 1 << 52
"""The end of a window that has none: in the year 144,683."""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Calls of an account path (and of all below it) opened from `start_ms` until before `end_ms`,
    in Unix milliseconds."""

    prefix: str
    start_ms: int
    end_ms: int

    def holds(self, account: str, opened_ms: int) -> bool:
        """Whether a call of this account, opened then, counts in it."""
        return self.start_ms <= opened_ms < self.end_ms and (
            self.prefix == EVERYONE or is_under(account, self.prefix)
        )


@dataclass(frozen=True, slots=True)
class Holds:
    """What one open call may still come to: at most, and as such calls usually do.

    Money in nano-dollars, 0 where no price is known.
    """

    most: int = 0
    usual: int = 0
    tokens_most: int = 0
    tokens_usual: int = 0


NO_HOLDS = Holds()


@dataclass(frozen=True, slots=True)
class WindowSums:
    """What counts in a window. Money is the provider's cost, best guesses, in nano-dollars.

    `spent` and `tokens` are of resolved calls, corrections included; the four holds are of open
    ones; `calls` counts reservations, refused and unsent ones among them.
    """

    spent: int = 0
    tokens: int = 0
    most: int = 0
    usual: int = 0
    tokens_most: int = 0
    tokens_usual: int = 0
    calls: int = 0
    calls_open: int = 0

    def __add__(self, other: WindowSums) -> WindowSums:
        return WindowSums(
            self.spent + other.spent,
            self.tokens + other.tokens,
            self.most + other.most,
            self.usual + other.usual,
            self.tokens_most + other.tokens_most,
            self.tokens_usual + other.tokens_usual,
            self.calls + other.calls,
            self.calls_open + other.calls_open,
        )


WINDOW_FIELDS: tuple[str, ...] = tuple(field.name for field in fields(WindowSums))
HOLD_FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Holds))

_WINDOW = tuple(field.name for field in fields(Window))
_window_of, _sums_of = attrgetter(*_WINDOW), attrgetter(*WINDOW_FIELDS)


def holds_of(forecast: Forecast) -> Holds:
    """What a call that was just reserved holds."""
    most = forecast.hold or 0
    tokens = forecast.input_tokens.high + forecast.output_tokens.high
    usual, usual_tokens = forecast.usual_hold, forecast.usual_tokens
    return Holds(
        most=most,
        usual=most if usual is None else usual,
        tokens_most=tokens,
        tokens_usual=tokens if usual_tokens is None else usual_tokens,
    )


def window_change(entry: Entry, holds: Holds) -> WindowSums:
    """What an entry changes in each window of its call; `holds` is what the call holds now."""
    if entry.kind is EntryKind.RESERVED:
        return WindowSums(
            most=holds.most,
            usual=holds.usual,
            tokens_most=holds.tokens_most,
            tokens_usual=holds.tokens_usual,
            calls=1,
            calls_open=1,
        )
    known = (entry.tokens.input, entry.tokens.output)
    used = WindowSums(
        spent=entry.cost.best if entry.cost else 0,
        tokens=sum(span.best for span in known if span is not None),
    )
    if entry.kind is EntryKind.CORRECTED:
        return used
    return used + _given_back(holds)


def hold_change(before: Holds, now: Holds) -> WindowSums:
    """What a hold that shrinks, or grows, while its call is open changes."""
    return WindowSums(
        most=now.most - before.most,
        usual=now.usual - before.usual,
        tokens_most=now.tokens_most - before.tokens_most,
        tokens_usual=now.tokens_usual - before.tokens_usual,
    )


def _given_back(holds: Holds) -> WindowSums:
    return WindowSums(
        most=-holds.most,
        usual=-holds.usual,
        tokens_most=-holds.tokens_most,
        tokens_usual=-holds.tokens_usual,
        calls_open=-1,
    )


class WindowBook:
    """The statements that write windows, made once."""

    def __init__(self, engine: sa.Engine) -> None:
        self._add = bulk.add_to(engine, windows, _WINDOW, WINDOW_FIELDS)
        self._kept = bulk.Listed(
            engine,
            f"SELECT {', '.join((*_WINDOW, *WINDOW_FIELDS))} FROM windows"
            " WHERE prefix IN ({list}) AND start_ms <= ? AND end_ms > ?",
        )

    def kept(
        self, connection: sa.Connection, calls: Iterable[tuple[str, int]]
    ) -> dict[Window, WindowSums]:
        """The windows kept of which some may hold one of these calls: accounts and opening times.

        In Unix milliseconds.
        """
        accounts, opened = zip(*calls, strict=True)
        prefixes = sorted({path for account in set(accounts) for path in paths_above(account)})
        size = len(_WINDOW)
        return {
            Window(*row[:size]): WindowSums(*row[size:])
            for row in self._kept.run(connection, prefixes, max(opened), min(opened))
        }

    def add(self, connection: sa.Connection, changes: dict[Window, WindowSums]) -> None:
        rows = [
            (*_window_of(window), *_sums_of(changes[window]))
            for window in sorted(changes, key=_window_of)
        ]
        self._add.run(connection, rows)


class TransactionWindows:
    """Windows as of this transaction: read when asked for, plus what the batch has changed."""

    def __init__(self, connection: sa.Connection, book: WindowBook) -> None:
        self._connection = connection
        self._book = book
        self._recalled: dict[Window, WindowSums] = {}
        self._asked: dict[Window, WindowSums] = {}
        self._changes: list[tuple[str, int, WindowSums]] = []

    def recall(self, calls: Iterable[tuple[str, int]]) -> None:
        """Read at once what decisions about calls of these accounts, opened then, will ask for."""
        self._recalled = self._book.kept(self._connection, calls)

    def of(self, window: Window) -> WindowSums:
        """The sums of a window; one that is not kept yet is made and kept from now on."""
        window = Window(storable(window.prefix), window.start_ms, window.end_ms)
        if window not in self._asked:
            stored = self._recalled.get(window) or _stored_sums(self._connection, window)
            if stored is None:
                lock_all_writers(self._connection)
                stored = _stored_sums(self._connection, window)
            if stored is None:
                stored = sums_of_entries(self._connection, window)
                self._book.add(self._connection, {window: stored})
            for account, opened_ms, change in self._changes:
                if window.holds(account, opened_ms):
                    stored += change
            self._asked[window] = stored
        return self._asked[window]

    def change(self, account: str, opened_ms: int, change: WindowSums) -> None:
        """To be written to every window that holds a call of this account, opened then."""
        self._changes.append((account, opened_ms, change))
        for window, sums in self._asked.items():
            if window.holds(account, opened_ms):
                self._asked[window] = sums + change

    def write(self) -> None:
        """Adds the batch's changes to the windows that are kept, once its entries are inserted.

        Not before: whoever makes a window keeps entries from being inserted meanwhile, so that one
        who then reads which windows there are misses none.
        """
        if not self._changes:
            return
        sums: dict[Window, WindowSums] = {}
        calls = [(account, opened_ms) for account, opened_ms, _ in self._changes]
        kept: dict[str, list[Window]] = {}
        for window in self._book.kept(self._connection, calls):
            kept.setdefault(window.prefix, []).append(window)
        for account, opened_ms, change in self._changes:
            for path in paths_above(account):
                for window in kept.get(path, ()):
                    if window.start_ms <= opened_ms < window.end_ms:
                        sums[window] = sums.get(window, WindowSums()) + change
        self._book.add(self._connection, sums)


def window_sums(connection: sa.Connection, window: Window) -> WindowSums:
    """A window's sums, as kept where somebody keeps it, else computed. Keeps nothing."""
    window = Window(storable(window.prefix), window.start_ms, window.end_ms)
    stored = _stored_sums(connection, window)
    return sums_of_entries(connection, window) if stored is None else stored


def _stored_sums(connection: sa.Connection, window: Window) -> WindowSums | None:
    given = {name: getattr(window, name) for name in _WINDOW}
    row = connection.execute(_one_window, given).one_or_none()
    return None if row is None else WindowSums(*row)


def sums_of_entries(connection: sa.Connection, window: Window) -> WindowSums:
    """A window's sums, computed from the entries."""
    inside = [
        is_reservation(entries),
        entries.c.opened_ms >= window.start_ms,
        entries.c.opened_ms < window.end_ms,
    ]
    if window.prefix != EVERYONE:
        inside.append(account_under(entries.c.account, window.prefix))
    reserved = sa.select(entries.c.call_id).where(*inside).subquery()
    later = entries.alias()
    used = sa.select(
        sa.func.coalesce(sa.func.sum(later.c.cost_best_nano), 0),
        sa.func.coalesce(sa.func.sum(later.c.input_best), 0)
        + sa.func.coalesce(sa.func.sum(later.c.output_best), 0),
        sa.func.count(sa.distinct(reserved.c.call_id)),
    ).select_from(reserved.join(later, later.c.call_id == reserved.c.call_id))
    spent, tokens, calls = connection.execute(used).one()
    held = [sa.func.coalesce(sa.func.sum(in_flight.c[f"held_{n}"]), 0) for n in HOLD_FIELDS]
    holding = sa.select(*held, sa.func.count(in_flight.c.call_id)).select_from(
        reserved.join(in_flight, in_flight.c.call_id == reserved.c.call_id)
    )
    *holds, calls_open = connection.execute(holding).one()
    return WindowSums(*(int(n) for n in (spent, tokens, *holds, calls, calls_open)))


def account_under(column: sa.ColumnElement[str], prefix: str) -> sa.ColumnElement[bool]:
    """The account itself and all below it, as a range of bytes ("0" follows "/")."""
    prefix = storable(prefix)
    return sa.or_(column == prefix, sa.and_(column >= prefix + "/", column < prefix + "0"))


def forget_windows(connection: sa.Connection, ended_before_ms: int) -> None:
    """Windows that are over are only asked for again by who looks back: they are made anew then."""
    connection.execute(sa.delete(windows).where(windows.c.end_ms < ended_before_ms))


def kept_windows(connection: sa.Connection) -> Iterable[tuple[Window, WindowSums]]:
    """Every window that is kept, for an audit."""
    columns = [windows.c[name] for name in (*_WINDOW, *WINDOW_FIELDS)]
    for row in connection.execute(sa.select(*columns)):
        yield Window(*row[: len(_WINDOW)]), WindowSums(*row[len(_WINDOW) :])


_one_window = sa.select(*(windows.c[name] for name in WINDOW_FIELDS)).where(
    *(windows.c[name] == sa.bindparam(name) for name in _WINDOW)
)
