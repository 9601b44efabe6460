"""What a batch of submissions will write, and what becomes of each: decided before any SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, assert_never

from lastchunk.errors import CallNotFound, EntryConflict, LedgerError
from lastchunk.ledger.balances import Balance, change_by
from lastchunk.ledger.detail import encode
from lastchunk.ledger.entries import (
    ADJUSTMENT,
    NOTHING_YET,
    Correction,
    Entry,
    EntryKind,
    Standing,
    content_hash,
    corrected_entry,
    is_better,
    standing_after,
)
from lastchunk.ledger.in_flight import Process
from lastchunk.ledger.lessons import LessonRow
from lastchunk.ledger.vigil import Vigil
from lastchunk.ledger.windows import (
    NO_HOLDS,
    Holds,
    Window,
    WindowSums,
    hold_change,
    window_change,
)


class BalanceView(Protocol):
    """The balances as they stand inside the writing transaction, this batch's own included."""

    def of(self, account: str) -> Balance:
        """The balance of one account."""
        ...

    def under(self, prefix: str) -> Balance:
        """The sum of an account and of all under it: `team` includes `team/ann`."""
        ...

    def window(self, window: Window) -> WindowSums:
        """The sums of the calls that an account path opened in a span of time."""
        ...


Admit: TypeAlias = Callable[[BalanceView], Any]
"""Says None to admit a reservation, anything else to refuse it. Must be quick: others wait."""


@dataclass(frozen=True, slots=True)
class Reservation:
    entry: Entry
    tags: tuple[tuple[str, str], ...]
    admit: Admit | None = None
    holds: Holds = NO_HOLDS


@dataclass(frozen=True, slots=True)
class Resolution:
    entry: Entry


@dataclass(frozen=True, slots=True)
class Amendment:
    correction: Correction
    process_id: str
    if_better: bool = False
    """Only where it is better known than what the call stands at."""
    if_corrected: int | None = None
    """Only while the call has been corrected so many times: what was read before still stands."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of open calls, as JSON by call id."""

    seen: Mapping[str, str]
    seen_ms: int


@dataclass(frozen=True, slots=True)
class Rehold:
    """What open calls hold in the windows from now on, by call id."""

    holds: Mapping[str, Holds]


@dataclass(frozen=True, slots=True)
class Extension:
    """An open call that wants to hold more; the outcome is None, or why it must not."""

    call_id: str
    holds: Holds
    admit: Admit


@dataclass(frozen=True, slots=True)
class Heartbeat:
    process: Process
    beat_ms: int
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Learned:
    """Lessons of finished calls."""

    rows: tuple[LessonRow, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """Whether another process died. Its outcome is what the vigil finds in the transaction."""

    vigil: Vigil


Item: TypeAlias = (
    Reservation
    | Resolution
    | Amendment
    | Sighting
    | Rehold
    | Extension
    | Heartbeat
    | Learned
    | Look
)


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
    holds: Holds = NO_HOLDS
    resolved_hash: str | None = None
    corrections: dict[str, str] = field(default_factory=dict)
    reserved: Entry | None = None
    standing: Standing = NOTHING_YET


class Balances(BalanceView, Protocol):
    """A view that the plan keeps up to date."""

    def change(self, account: str, change: Balance) -> None: ...

    def change_windows(self, account: str, opened_ms: int, change: WindowSums) -> None: ...


class Plan:
    """Grows item by item, in the order of submission."""

    def __init__(self, known: dict[str, KnownCall], balances: Balances) -> None:
        self.entries: list[Entry] = []
        self.tags: list[tuple[str, str, str]] = []
        self.opened: dict[str, tuple[str, Holds]] = {}
        """Process and holds by the id of a call that this batch opens."""
        self.holds: dict[str, Holds] = {}
        """New holds of calls that were open before this batch."""
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
                case Rehold():
                    for call_id, holds in item.holds.items():
                        self._hold(call_id, holds)
                    return None
                case Extension():
                    return self._extend(item)
                case Heartbeat():
                    self.beats.append(item)
                    return None
                case Learned():
                    self.lessons.extend(item.rows)
                    return None
                case Look():
                    return None  # the store looks when all else is written
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
        refusal = None if item.admit is None else self._asked(item.admit)
        if refusal is not None:
            return refusal
        known.reserved_hash, known.reserved = entry.content_hash, entry
        known.account, known.held_nano = entry.account, entry.held_nano
        known.opened_ms, known.holds = entry.opened_ms, item.holds
        self.tags.extend((entry.call_id, key, value) for key, value in dict.fromkeys(item.tags))
        self.opened[entry.call_id] = (entry.process_id, item.holds)
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
            self.holds.pop(entry.call_id, None)
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
        if item.if_better and any(one.startswith(ADJUSTMENT) for one in known.corrections):
            correction = replace(correction, charge=None)  # what the operator charges stands
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
        if item.if_better and not is_better(correction, known.standing):
            return False
        if item.if_corrected not in (None, len(known.corrections)):
            return False
        entry = corrected_entry(known.reserved, known.standing, correction, item.process_id)
        known.corrections[correction.correction_id] = new_hash
        self._write(known, entry)
        return True

    def _asked(self, admit: Admit) -> Any:
        try:
            return admit(self._balances)
        except Exception as error:  # someone else's code: only its own call may suffer
            return Failed(error)

    def _extend(self, item: Extension) -> Any:
        refusal = self._asked(item.admit)
        if refusal is None:
            self._hold(item.call_id, item.holds)
        return refusal

    def _hold(self, call_id: str, holds: Holds) -> None:
        """A call that is resolved, or unknown, is left alone: nobody waits for an answer."""
        known = self._known.get(call_id)
        if known is None or known.reserved_hash is None or known.resolved_hash is not None:
            return
        change = hold_change(known.holds, holds)
        self._balances.change_windows(known.account, known.opened_ms, change)
        known.holds = holds
        if call_id in self.opened:
            self.opened[call_id] = (self.opened[call_id][0], holds)
        else:
            self.holds[call_id] = holds

    def _reserved(self, call_id: str) -> KnownCall:
        known = self._known.get(call_id)
        if known is None or known.reserved_hash is None:
            raise CallNotFound(f"call {call_id} was never reserved: reserve it first")
        return known

    def _write(self, known: KnownCall, entry: Entry) -> None:
        self._balances.change(entry.account, change_by(entry, known.standing))
        change = window_change(entry, known.holds)
        self._balances.change_windows(entry.account, entry.opened_ms, change)
        if entry.kind is not EntryKind.RESERVED:
            known.standing = standing_after(known.standing, entry)
        self.entries.append(entry)
