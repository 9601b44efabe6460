"""Plays cells in groups: those of one door, ledger and kind of fault share their processes."""

from __future__ import annotations

import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from lastchunk.bookkeeper import CHECKPOINT_SECONDS
from lastchunk.errors import LastchunkError, LedgerUnavailable
from lastchunk.ledger import CallFilter, CallRecord, Reader, verify
from lastchunk.ledger.audit import Verification
from lastchunk.ledger.throwaway import throwaway_schema
from lastchunk.pricing.book import PriceBook
from lastchunk.simulator import BilledCall
from lastchunk.stage.servers import Place, StageFailed, simulated_provider, true_bill, under_way
from lastchunk.torture.caller import AT_ONCE
from lastchunk.torture.doors import OpenDoor
from lastchunk.torture.ear import Report
from lastchunk.torture.faults import HELD_SECONDS, HOLDS, SILENCE_SECONDS, PlannedCall, plan_call
from lastchunk.torture.judge import Broken, Evidence, Promise, Verdict, endings_of, judge
from lastchunk.torture.matrix import Cell, Door, Fault, Moment, Store
from lastchunk.torture.outage import OUTAGE_SECONDS, CutServer, LockedFile, Outage

SETTINGS = {"when_ledger_down": "pass"}
"""The settings of every process that is played with; none of the user's own."""

ARRIVAL_SECONDS = 240.0
"""How long calls may take to come to their moment: a busy machine starts processes slowly."""

KNOWN_SECONDS = 30.0
"""How long the ledger may take to know of it. What it does not know by then breaks a promise."""

STILL_SECONDS = 2 * CHECKPOINT_SECONDS
"""Bytes that came before it are written down after so long, if nobody is behind."""

_NEVER_THERE = f"not all calls came to their moment within {ARRIVAL_SECONDS:.0f} s"

RANDOM_SECONDS = 1.0
"""After that, a signal comes within so long."""

REPLAY_SECONDS = 15.0
"""How long a door has after the ledger is back to write down what it kept, before it is closed."""

_POLL_SECONDS = 0.2


class Kind(StrEnum):
    """What is done to a whole group."""

    NOTHING = "nothing"
    SIGTERM = "sigterm"
    SIGKILL = "sigkill"
    OUTAGE = "outage"


_KINDS = {
    Fault.SIGTERM: Kind.SIGTERM,
    Fault.SIGKILL: Kind.SIGKILL,
    Fault.LEDGER_AWAY: Kind.OUTAGE,
}


@dataclass(frozen=True, slots=True)
class Run:
    """What is played. `postgres` is the URL of a server on which schemas may be made."""

    cells: Sequence[Cell]
    seed: int
    calls: int
    jobs: int
    postgres: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """Calls that share a door, a ledger and what happens to them."""

    door: Door
    store: Store
    kind: Kind
    calls: tuple[PlannedCall, ...]


@dataclass(slots=True)
class Found:
    """What a group left behind, by the calls' tags."""

    reports: dict[str, Report] = field(default_factory=dict)
    rows: dict[str, list[CallRecord]] = field(default_factory=dict)
    billed: dict[str, list[BilledCall]] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    """Calls of which the ledger did not know in time what it must."""
    verification: Verification | None = None
    failure: str | None = None


def play(run: Run, played: Callable[[int], None]) -> list[Verdict]:
    """Play all cells; `played` is told how many calls are newly over.

    A group that cannot be played breaks the promises of its cells; it raises nothing.
    """
    groups = groups_of(run)
    with ThreadPoolExecutor(run.jobs, "torture") as pool:
        bare = [pool.submit(_bare, run, group, played) for group in bare_groups_of(run)]
        found = [(group, pool.submit(_found, run, group, played)) for group in groups]
        heard = _by_kin(bare)
        verdicts = [
            verdict for group, future in found for verdict in _judged(group, future.result(), heard)
        ]
    order = {cell: place for place, cell in enumerate(run.cells)}
    return sorted(verdicts, key=lambda verdict: order[verdict.cell])


def calls_in(run: Run) -> int:
    """How many calls `play` makes, those of bare clients included."""
    return sum(len(group.calls) for group in (*groups_of(run), *bare_groups_of(run)))


def groups_of(run: Run) -> list[Group]:
    """The cells' calls by who plays them; first those that wait for a long time."""
    calls: dict[tuple[Kind, Door, Store], list[PlannedCall]] = defaultdict(list)
    for cell in run.cells:
        kind = _KINDS.get(cell.fault, Kind.NOTHING)
        calls[kind, cell.door, cell.ledger] += [
            plan_call(cell, number, run.seed) for number in range(run.calls)
        ]
    order = (Kind.OUTAGE, Kind.NOTHING, Kind.SIGKILL, Kind.SIGTERM)
    found = [Group(door, store, kind, tuple(each)) for (kind, door, store), each in calls.items()]
    return sorted(found, key=lambda group: order.index(group.kind))


def bare_groups_of(run: Run) -> list[Group]:
    """The same calls for clients that nobody meters: each once, sync and async as needed."""
    kin: dict[tuple[object, ...], PlannedCall] = {}
    for cell in run.cells:
        if cell.fault not in HOLDS:
            for number in range(run.calls):
                call = plan_call(cell, number, run.seed)
                kin.setdefault(_kin(call), call)
    groups = []
    for door in (Door.SYNC, Door.ASYNC):
        calls = tuple(call for call in kin.values() if _bare_door(call.cell) is door)
        if calls:
            groups.append(Group(door, Store.SQLITE, Kind.NOTHING, calls))
    return groups


def _bare_door(cell: Cell) -> Door:
    return Door.SYNC if cell.door is Door.SYNC else Door.ASYNC


def _kin(call: PlannedCall) -> tuple[object, ...]:
    """What calls have in common that a bare client would live through in the same way."""
    cell = call.cell
    return cell.fault, cell.dialect, cell.moment, _bare_door(cell), call.number


def _by_kin(bare: Sequence[Future[list[tuple[PlannedCall, Report]]]]) -> dict[object, Report]:
    return {_kin(call): report for each in bare for call, report in each.result()}


def _bare(
    run: Run, group: Group, played: Callable[[int], None]
) -> list[tuple[PlannedCall, Report]]:
    with tempfile.TemporaryDirectory(prefix="lastchunk-torture-") as folder:
        place = Place(Path(folder), SETTINGS)
        with simulated_provider(run.seed) as provider:
            door = OpenDoor(group.door, provider, None, place, lambda _: played(1))
            caller = door.call(group.calls, run.seed)
            caller.go()
            caller.wait()
            door.close()
            return [
                (call, caller.reports[call.tag])
                for call in group.calls
                if call.tag in caller.reports
            ]


def _found(run: Run, group: Group, played: Callable[[int], None]) -> Found:
    """One group from end to end, with everything of its own."""
    found = Found()
    reported = 0

    def told(_: Report) -> None:
        nonlocal reported
        reported += 1
        played(1)

    try:
        with tempfile.TemporaryDirectory(prefix="lastchunk-torture-") as folder:
            place = Place(Path(folder), SETTINGS)
            with (
                _ledger(group.store, place, run.postgres) as ledger,
                simulated_provider(run.seed) as provider,
            ):
                _play(run, group, provider, ledger, place, told, found)
                _collect(ledger, provider, found)
    except (LastchunkError, OSError) as error:
        found.failure = str(error)
    played(len(group.calls) - reported)
    return found


@contextmanager
def _ledger(store: Store, place: Place, postgres: str | None) -> Iterator[str]:
    if store is Store.SQLITE:
        yield str(place.folder / "ledger.db")
        return
    assert postgres is not None
    with throwaway_schema(postgres) as url:
        yield url


def _play(
    run: Run,
    group: Group,
    provider: str,
    ledger: str,
    place: Place,
    told: Callable[[Report], None],
    found: Found,
) -> None:
    rng = random.Random(f"{run.seed}:{group.kind}:{group.door}:{group.store}")
    outage = _outage(group, ledger)
    door = OpenDoor(
        group.door,
        provider,
        ledger if outage is None else outage.url,
        place,
        told,
        silence_seconds=SILENCE_SECONDS if group.kind is Kind.NOTHING else HELD_SECONDS,
    )
    at_once = AT_ONCE if group.kind is Kind.NOTHING else None
    try:
        found.reports = door.call(group.calls, run.seed, at_once=at_once).reports
        if group.kind in (Kind.SIGTERM, Kind.SIGKILL):
            found.late = _wait_for_the_moment(group, provider, ledger)
            time.sleep(rng.uniform(0, RANDOM_SECONDS))
        _strike(group, door, outage, ledger)
    except BaseException:
        door.abandon()
        raise


def _strike(group: Group, door: OpenDoor, outage: Outage | None, ledger: str) -> None:
    """What is done to the whole group, and the end of its processes."""
    match group.kind:
        case Kind.NOTHING:
            assert door.caller is not None
            door.caller.wait()
            door.close()
        case Kind.SIGTERM:
            door.terminate()
        case Kind.SIGKILL:
            door.kill()
            door.restart()
        case Kind.OUTAGE:
            assert outage is not None
            _take_the_ledger_away(outage, door, group, ledger)


def _outage(group: Group, ledger: str) -> Outage | None:
    if group.kind is not Kind.OUTAGE:
        return None
    return LockedFile(ledger) if group.store is Store.SQLITE else CutServer(ledger)


def _take_the_ledger_away(outage: Outage, door: OpenDoor, group: Group, ledger: str) -> None:
    """Every call is at its moment when the ledger goes; it comes back when all are over."""
    caller = door.caller
    assert caller is not None
    if not _until(lambda: len(caller.reached) == len(group.calls), ARRIVAL_SECONDS):
        raise StageFailed(_NEVER_THERE)
    with outage.away():
        began = time.monotonic()
        caller.go()
        caller.wait()
        time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - began)))
    _until(lambda: _all_settled(ledger, len(group.calls)), REPLAY_SECONDS)
    door.close()
    door.restart()


def _wait_for_the_moment(group: Group, provider: str, ledger: str) -> set[str]:
    """Until every call is at its moment, and the ledger knows what it must know of it by then.

    Of streams that have begun their state, counted and no older than what the provider has sent;
    of those reported, their end. Gives back the calls of which it did not come to know in time.
    Raises StageFailed where calls do not come to their moment.
    """
    held = {call.tag for call in group.calls if not _is_over(call)}
    if not _until(lambda: held <= set(under_way(provider).held), ARRIVAL_SECONDS):
        raise StageFailed(_NEVER_THERE)
    before: dict[str, int] | None = None
    deadline = time.monotonic() + KNOWN_SECONDS
    while True:
        time.sleep(STILL_SECONDS)
        rows = _rows_by_tag(ledger)
        late = {call.tag for call in group.calls if not _is_known(call, rows.get(call.tag))}
        seen = {tag: row.seen.bytes for tag, row in rows.items() if row.seen is not None}
        # Nothing is missing, and for a while nothing was added: all that came is there.
        if (not late and seen == before) or time.monotonic() >= deadline:
            return late
        before = seen


def _rows_by_tag(ledger: str) -> dict[str, CallRecord]:
    with suppress(LedgerUnavailable), Reader.open(ledger) as reader:
        return {dict(row.call.tags).get("call", ""): row for row in reader.calls(CallFilter())}
    return {}  # nobody has made it yet


def _is_over(call: PlannedCall) -> bool:
    """Its caller has all it wants, and may have closed the connection."""
    return call.cell.moment in (Moment.USAGE, Moment.END)


def _is_known(call: PlannedCall, row: CallRecord | None) -> bool:
    if row is None:
        return False
    if _is_over(call):
        return not row.is_open
    if call.cell.moment in (Moment.MID, Moment.FINISH):
        seen = row.seen  # output has come by then; a state before that is not what came
        return seen is not None and seen.first_token_ms is not None and not seen.uncounted_frames
    return True


def _all_settled(ledger: str, calls: int) -> bool:
    with Reader.open(ledger) as reader:
        rows = list(reader.calls(CallFilter()))
    return len(rows) >= calls and not any(row.is_open for row in rows)


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return held


def _collect(ledger: str, provider: str, found: Found) -> None:
    rows, billed = defaultdict(list), defaultdict(list)
    for call in true_bill(provider):
        billed[call.tag or ""].append(call)
    with Reader.open(ledger) as reader:
        for row in reader.calls(CallFilter(), newest_first=False):
            rows[dict(row.call.tags).get("call", "")].append(row)
    found.rows, found.billed = dict(rows), dict(billed)
    found.verification = verify(ledger)


def _judged(group: Group, found: Found, bare: dict[object, Report]) -> Iterator[Verdict]:
    calls: dict[Cell, list[PlannedCall]] = defaultdict(list)
    for call in group.calls:
        calls[call.cell].append(call)
    if found.failure is not None:
        for cell, each in calls.items():
            broken = Broken(Promise.PLAYED, 0, "the cell can be played", found.failure)
            yield Verdict(cell, len(each), (), (broken,))
        return
    book = PriceBook.load(None)
    unclean = _discrepancies(group, found)
    for cell, each in calls.items():
        broken_here: list[Broken] = unclean.pop(cell, [])
        endings: list[str] = []
        for call in each:
            rows = found.rows.get(call.tag, [])
            evidence = Evidence(
                call,
                rows,
                found.billed.get(call.tag, []),
                found.reports.get(call.tag),
                bare.get(_kin(call)),
            )
            broken_here += judge(evidence, book)
            if call.tag in found.late:
                broken_here.append(_late(call))
            endings += endings_of(rows)
        yield Verdict(cell, len(each), tuple(endings), tuple(broken_here))


def _late(call: PlannedCall) -> Broken:
    within = f"what came is in the ledger within {KNOWN_SECONDS:.0f} s"
    return Broken(Promise.WRITTEN, call.number, within, "it was not, when the signal came")


def _discrepancies(group: Group, found: Found) -> dict[Cell, list[Broken]]:
    """What `verify` found, at the cell of the call that it names; else at the group's first."""
    assert found.verification is not None
    tags = {row.call_id: tag for tag, rows in found.rows.items() for row in rows}
    cells = {call.tag: call for call in group.calls}
    told: dict[Cell, list[Broken]] = defaultdict(list)
    for one in found.verification.discrepancies:
        call = cells.get(tags.get(one.subject, ""), group.calls[0])
        told[call.cell].append(
            Broken(Promise.VERIFY, call.number, "no discrepancy", f"{one.name}: {one.message}")
        )
    return told
