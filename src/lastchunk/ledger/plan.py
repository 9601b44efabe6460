"""What a batch of submissions will write, and what becomes of each: decided before any SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, assert_never

from lastchunk.errors import CallNotFound, EntryConflict, LedgerError
from lastchunk.ledger.balances import Balance, change_by
from lastchunk.ledger.detail import encode
from lastchunk.ledger.entries import (
    NOTHING_YET,
    Correction,
    Entry,
    EntryKind,
    Standing,
    content_hash,
    corrected_entry,
    standing_after,
)
from lastchunk.ledger.lessons import LessonRow


class BalanceView(Protocol):
    """The balances as they stand inside the writing transaction, this batch's own included."""

    def of(self, account: str) -> Balance:
        """The balance of one account."""
        ...

    def under(self, prefix: str) -> Balance:
        """The sum of an account and of all under it: `team` includes `team/ann`."""
        ...


Admit: TypeAlias = Callable[[BalanceView], Any]
"""Says None to admit a reservation, anything else to refuse it. Must be quick: others wait."""


@dataclass(frozen=True, slots=True)
class Reservation:
    entry: Entry
    tags: tuple[tuple[str, str], ...]
    admit: Admit | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    entry: Entry


@dataclass(frozen=True, slots=True)
class Amendment:
    correction: Correction
    process_id: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of open calls, as JSON by call id."""

    seen: Mapping[str, str]
    seen_ms: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    process_id: str
    beat_ms: int
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Learned:
    """Lessons of finished calls."""

    rows: tuple[LessonRow, ...]


Item: TypeAlias = Reservation | Resolution | Amendment | Sighting | Heartbeat | Learned


@dataclass(frozen=True, slots=True)
class Failed:
    """The outcome of an item that was not written; the others of its batch were."""

    error: Exception


@dataclass(slots=True)
class KnownCall:
    """What the ledger says of a call, brought up to date as the plan grows.

    `reserved` and `standing` are filled only for calls that the batch corrects.
    """

    reserved_hash: str | None = None
    account: str = ""
    held_nano: int | None = None
    opened_ms: int = 0
    resolved_hash: str | None = None
    corrections: dict[str, str] = field(default_factory=dict)
    reserved: Entry | None = None
    standing: Standing = NOTHING_YET


class Balances(BalanceView, Protocol):
    """A view that the plan keeps up to date."""

    def change(self, account: str, change: Balance) -> None: ...


class Plan:
    """Grows item by item, in the order of submission."""

    def __init__(self, known: dict[str, KnownCall], balances: Balances) -> None:
        self.entries: list[Entry] = []
        self.tags: list[tuple[str, str, str]] = []
        self.opened: dict[str, str] = {}
        """Process ids by the id of a call that this batch opens."""
        self.seen: dict[str, tuple[str, int]] = {}
        self.closed: list[str] = []
        self.beats: list[Heartbeat] = []
        self.lessons: list[LessonRow] = []
        self._known = known
        self._balances = balances

    def add(self, item: Item) -> Any:
        """The outcome that the item will have once the plan is written."""
        try:
            match item:
                case Reservation():
                    return self._reserve(item)
                case Resolution():
                    return self._resolve(item.entry)
                case Amendment():
                    return self._correct(item)
                case Sighting():
                    self.seen.update((key, (seen, item.seen_ms)) for key, seen in item.seen.items())
                    return None
                case Heartbeat():
                    self.beats.append(item)
                    return None
                case Learned():
                    self.lessons.extend(item.rows)
                    return None
                case _:
                    assert_never(item)
        except LedgerError as error:
            return Failed(error)

    def _reserve(self, item: Reservation) -> Any:
        entry = item.entry
        known = self._known.setdefault(entry.call_id, KnownCall())
        if known.reserved_hash == entry.content_hash:
            return None
        if known.reserved_hash is not None:
            raise EntryConflict(
                f"call {entry.call_id} is reserved already, with other content: give each attempt"
                " an id of its own"
            )
        if item.admit is not None:
            try:
                refusal = item.admit(self._balances)
            except Exception as error:  # someone else's code: only its own call may suffer
                return Failed(error)
            if refusal is not None:
                return refusal
        known.reserved_hash, known.reserved = entry.content_hash, entry
        known.account, known.held_nano = entry.account, entry.held_nano
        known.opened_ms = entry.opened_ms
        self.tags.extend((entry.call_id, key, value) for key, value in dict.fromkeys(item.tags))
        self.opened[entry.call_id] = entry.process_id
        self._write(known, entry)
        return None

    def _resolve(self, entry: Entry) -> bool:
        known = self._reserved(entry.call_id)
        if known.resolved_hash == entry.content_hash:
            return False
        if known.resolved_hash is not None:
            raise EntryConflict(
                f"call {entry.call_id} is resolved already, with other content: what is learned"
                " later is a correction"
            )
        reserved = (known.account, known.held_nano, known.opened_ms)
        if reserved != (entry.account, entry.held_nano, entry.opened_ms):
            raise EntryConflict(
                f"call {entry.call_id} was reserved with another account, hold or opening: settle"
                " it with the OpenCall it was reserved with"
            )
        known.resolved_hash = entry.content_hash
        if self.opened.pop(entry.call_id, None) is None:
            self.closed.append(entry.call_id)
        self._write(known, entry)
        return True

    def _correct(self, item: Amendment) -> bool:
        correction = item.correction
        known = self._reserved(correction.call_id)
        if known.resolved_hash is None:
            raise LedgerError(
                f"call {correction.call_id} is still open: settle it before it is corrected"
            )
        assert known.reserved is not None, "the batch loads what it corrects in full"
        new_hash = content_hash(
            EntryKind.CORRECTED, correction.call_id, correction.occurred_ms, encode(correction)
        )
        written = known.corrections.get(correction.correction_id)
        if written == new_hash:
            return False
        if written is not None:
            raise EntryConflict(
                f"call {correction.call_id} was corrected already by {correction.correction_id},"
                " with other content: give a later statement an id of its own"
            )
        entry = corrected_entry(known.reserved, known.standing, correction, item.process_id)
        known.corrections[correction.correction_id] = new_hash
        self._write(known, entry)
        return True

    def _reserved(self, call_id: str) -> KnownCall:
        known = self._known.get(call_id)
        if known is None or known.reserved_hash is None:
            raise CallNotFound(f"call {call_id} was never reserved: reserve it first")
        return known

    def _write(self, known: KnownCall, entry: Entry) -> None:
        self._balances.change(entry.account, change_by(entry, known.standing))
        if entry.kind is not EntryKind.RESERVED:
            known.standing = standing_after(known.standing, entry)
        self.entries.append(entry)
