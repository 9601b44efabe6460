"""Copying a ledger: every row, proven; interrupted at any step; refused where it would do harm."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from ledger_facts import NOON, Stopwatch, disarm, execute, make_call, make_correction
from ledger_facts import make_settlement as settlement_of
from test_lessons import PACE, lesson

from lastchunk.errors import CopyRefused, LedgerUnavailable
from lastchunk.ledger import Ledger, Reader, copying, verify
from lastchunk.ledger import database as database_module
from lastchunk.ledger import differences as differences_module
from lastchunk.ledger.copying import Copied, copy_ledger
from lastchunk.ledger.database import parse_url, writing_engine
from lastchunk.ledger.differences import differences
from lastchunk.ledger.tables import SCHEMA_VERSION, VERSION_TABLE, entries, metadata, tags
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost
from lastchunk.usage import Usage

SCRIPT = str(Path(__file__).parent / "writing_process.py")
NO_PID = 2**22 + 1
"""Larger than any process id of Linux."""


def fill(url: str, clock: Stopwatch, calls: int = 40) -> None:
    """Calls of every kind, some of them left open by a process that died of it."""
    with Ledger.open(url, clock=clock) as ledger:
        for number in range(calls):
            call = make_call(account=f"team/{number % 3}", tags=(("feature", f"ü{number}\0"),))
            ledger.reserve(call)
            ending = number % 4
            if ending == 0:
                ledger.settle(call, settlement_of(call), NOON + number)
                ledger.correct(make_correction(call, cost=Cost(1, 2, 3)))
            elif ending == 1:
                free = {"usage": Usage(), "ending": Ending.NEVER_SENT}
                ledger.settle(call, settlement_of(call, 0, **free), NOON + number)
            elif ending == 2:
                ledger.settle(call, settlement_of(call, None), NOON + number)
            else:
                ledger.checkpoint([(call.call_id, Observation(frames=number))])
        ledger.learn([lesson(number) for number in range(7)])
        ledger.learn([PACE]).result()
        ledger.lessons()
    execute(url, f"UPDATE processes SET ended_ms = NULL, pid = {NO_PID}")
    fill_what_is_empty(url)


def fill_what_is_empty(url: str) -> None:
    """A made-up row in each table that calls leave empty, whatever tables there will be."""
    engine = writing_engine(parse_url(url))
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            if connection.execute(sa.select(table).limit(1)).first() is None:
                row = {c.name: "x" if isinstance(c.type, sa.Text) else 0 for c in table.columns}
                connection.execute(sa.insert(table).values(row))


def content(url: str) -> dict[str, list[Any]]:
    """Every row of every table, and nothing of our own code in between."""
    engine = writing_engine(parse_url(url))
    with engine.connect() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
            for table in metadata.sorted_tables
        }


def version_of(url: str) -> str:
    engine = writing_engine(parse_url(url))
    with engine.connect() as connection:
        version: str = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return version


CROSSING = pytest.mark.parametrize(
    "two_urls", [("sqlite", "postgresql"), ("postgresql", "sqlite")], indirect=True, ids="-to-".join
)
"""Where the databases' own ways matter but not every pair of them."""


def copy(two_urls: tuple[str, str], **options: Any) -> Copied:
    return copy_ledger(*two_urls, now_ms=NOON, **options)


def written(copied: Copied) -> dict[str, int]:
    return {table.name: table.written for table in copied.tables if table.written}


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences_module, "PAGE", 16)


@pytest.fixture
def filled(two_urls: tuple[str, str], clock: Stopwatch) -> tuple[str, str]:
    """A ledger with something in every table, and an empty place."""
    fill(two_urls[0], clock)
    return two_urls


def test_every_row_of_every_table_is_in_the_copy(filled: tuple[str, str]) -> None:
    source, target = filled
    before = content(source)
    assert all(before.values()), "each table has rows to copy"
    copied = copy(filled)
    assert content(source) == before
    assert content(target) == before
    assert written(copied) == {name: len(rows) for name, rows in before.items()}
    assert copied.verification == verify(source) == verify(target)


def test_the_copy_is_a_ledger_to_go_on_with(filled: tuple[str, str], clock: Stopwatch) -> None:
    source, target = filled
    copy(filled)
    with Ledger.open(target, clock=clock) as ledger:
        left = {orphan.call.call_id for orphan in ledger.orphans(NOON)}
        assert len(left) == 10
        call = make_call()
        ledger.reserve(call)
        assert ledger.settle(call, settlement_of(call), NOON).result()
        ledger.learn([lesson(99)]).result()
        assert [row.seen_ms for row in ledger.lessons().residuals] == [*range(7), 99]
    with Reader.open(target) as reader:
        newest = max(entry.seq for entry in reader.call(call.call_id).entries)
    assert newest == max(row[0] for row in content(source)["entries"]) + 2
    assert verify(target).is_clean


@CROSSING
def test_run_again_it_copies_only_what_is_new(filled: tuple[str, str], clock: Stopwatch) -> None:
    source, target = filled
    copy(filled)
    assert written(copy(filled)) == {}
    call = make_call()
    with Ledger.open(source, clock=clock) as ledger:
        ledger.reserve(call)
        ledger.settle(call, settlement_of(call), NOON).result()
    assert written(copy(filled)) == {"entries": 2, "tags": 1, "processes": 1, "balances": 1}
    assert content(target) == content(source)


class Interruption:
    """Ctrl-C at the k-th step."""

    def __init__(self, k: int) -> None:
        self.left = k

    def __call__(self, step: str, done: int, of: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@CROSSING
def test_interrupted_at_any_step_it_goes_on_and_nobody_opens_a_part(
    two_urls: tuple[str, str], clock: Stopwatch
) -> None:
    """Each run is interrupted later than the one before."""
    source, target = two_urls
    fill(source, clock, calls=8)
    parts = 0
    for k in accumulate(count(1)):  # sparser and sparser
        try:
            copy(two_urls, progress=Interruption(k))
            break
        except KeyboardInterrupt:
            parts += _is_refused_as_a_part(target, clock)
    assert parts > 3
    assert content(target) == content(source)
    with Ledger.open(target, clock=clock) as ledger:
        assert len(ledger.orphans(NOON)) == 2


def _is_refused_as_a_part(target: str, clock: Stopwatch) -> bool:
    """Whether there is a part; what was not begun may be opened, and is an empty ledger."""
    try:
        verify(target)
    except LedgerUnavailable as error:
        if "no ledger" in str(error):
            return False
        for open_it in (lambda: Ledger.open(target, clock=clock), lambda: Reader.open(target)):
            with pytest.raises(LedgerUnavailable, match=r"not whole: .*run it again"):
                open_it()
        return True
    return False


@CROSSING
def test_killed_in_the_middle_it_goes_on(two_urls: tuple[str, str], clock: Stopwatch) -> None:
    source, target = two_urls
    fill(source, clock, calls=200)
    code = (
        "import os, sys; from lastchunk.ledger import copying, differences\n"
        "differences.PAGE = 16\n"
        "def die(step, done, of):\n"
        "    if step == 'copying entries' and done > 200: os.kill(os.getpid(), 9)\n"
        f"copying.copy_ledger(*sys.argv[1:], now_ms={NOON}, progress=die)"
    )
    killed = subprocess.run([sys.executable, "-c", code, source, target])
    assert killed.returncode == -signal.SIGKILL
    assert version_of(target) == f"copying {SCHEMA_VERSION}"
    done = written(copy(two_urls))
    assert 0 < done["entries"] < len(content(source)["entries"]) - 150
    assert content(target) == content(source)


@CROSSING
def test_a_living_process_keeps_its_ledger_from_being_copied(
    filled: tuple[str, str], clock: Stopwatch
) -> None:
    source, target = filled
    with Ledger.open(source, clock=clock):
        with pytest.raises(CopyRefused, match=rf"^FROM, .* process {os.getpid()} on .*stop what"):
            copy(filled)
    copy(filled)
    with Ledger.open(target, clock=clock) as ledger:
        with pytest.raises(CopyRefused, match=rf"^TO, .* process {os.getpid()} on .*stop what"):
            copy(filled)
        assert ledger.reserve(make_call()).result() is None


@CROSSING
def test_a_target_with_entries_of_its_own_is_left_as_it_is(
    filled: tuple[str, str], clock: Stopwatch
) -> None:
    _, target = filled
    fill(target, clock, calls=3)
    before = content(target)
    with pytest.raises(CopyRefused, match=r"entries that are not the source's .*give another TO"):
        copy(filled)
    assert content(target) == before
    with Ledger.open(target, clock=clock) as ledger:
        assert ledger.reserve(make_call()).result() is None


@CROSSING
def test_a_target_that_went_on_by_itself_is_left_as_it_is(
    filled: tuple[str, str], clock: Stopwatch
) -> None:
    _, target = filled
    copy(filled)
    with Ledger.open(target, clock=clock) as ledger:
        ledger.reserve(make_call()).result()
    before = content(target)
    with pytest.raises(CopyRefused, match="entries that are not the source's"):
        copy(filled)
    assert content(target) == before
    assert version_of(target) == SCHEMA_VERSION


@CROSSING
def test_a_copied_row_that_was_changed_since_is_found(filled: tuple[str, str]) -> None:
    _, target = filled
    copy(filled)
    disarm(target)
    execute(target, "UPDATE entries SET recorded_ms = recorded_ms + 1 WHERE seq = 33")
    with pytest.raises(CopyRefused, match=r"entries that are not the source's \(seq 33\)"):
        copy(filled)


@CROSSING
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET detail = '{}' WHERE seq = 7",
        "UPDATE entries SET cost_best_nano = 501, cost_high_nano = 501 WHERE kind = 'settled'"
        " AND cost_low_nano = 500",
        "DELETE FROM entries WHERE seq = 7",
        "UPDATE balances SET held = held + 1",
    ],
)
def test_a_damaged_source_is_named_and_not_copied(filled: tuple[str, str], damage: str) -> None:
    source, target = filled
    disarm(source)
    execute(source, damage)
    with pytest.raises(CopyRefused, match=r"does not verify .* the first \w+ of .*restore"):
        copy(filled)
    assert not Path(target).exists() or not content(target)["entries"]


@pytest.mark.parametrize("two_urls", [("sqlite", "postgresql")], indirect=True)
def test_a_row_that_the_target_cannot_hold_is_a_named_error(
    filled: tuple[str, str], clock: Stopwatch
) -> None:
    """Only SQLite holds text in a column of numbers."""
    source, target = filled
    execute(source, "UPDATE residuals SET counted = 'many' WHERE seq = 3")
    with pytest.raises(LedgerUnavailable, match=r"cannot be written: .*many"):
        copy(filled)
    with pytest.raises(LedgerUnavailable, match="not whole"):
        Ledger.open(target, clock=clock)
    execute(source, "UPDATE residuals SET counted = 100 WHERE seq = 3")
    copy(filled)
    assert content(target) == content(source)


@CROSSING
def test_nobody_writes_to_the_source_meanwhile(
    filled: tuple[str, str], clock: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = filled
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.05)
    impatient = source + "%20-clock_timeout%3D50ms" if "postgresql" in source else source
    refused: list[str] = []

    def start_a_process(step: str, done: int, of: int) -> None:
        if step == "copying entries" and not refused:
            with pytest.raises(LedgerUnavailable) as caught:
                Ledger.open(impatient, clock=clock)
            refused.append(str(caught.value))

    copied = copy(filled, progress=start_a_process)
    assert "lock" in refused[0]
    assert copied.verification == verify(source)


@CROSSING
def test_two_runs_at_once_are_one_run(
    filled: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(copying, "LOCK_SECONDS", 1)
    refused: list[LedgerUnavailable] = []

    def run_it_again(step: str, done: int, of: int) -> None:
        if step == "copying entries" and not refused:
            with pytest.raises(LedgerUnavailable, match="lock") as caught:
                copy(filled)
            refused.append(caught.value)

    copy(filled, progress=run_it_again)
    assert refused
    assert content(filled[1]) == content(filled[0])


def test_one_ledger_under_two_names_is_refused(tmp_path: Path, clock: Stopwatch) -> None:
    path = tmp_path / "ledger.db"
    fill(str(path), clock, calls=1)
    (tmp_path / "link.db").symlink_to(path)
    for other in (f"sqlite:///{path}", str(tmp_path / "link.db")):
        with pytest.raises(CopyRefused, match="the same ledger"):
            copy((str(path), other))


@CROSSING
def test_a_source_that_is_none_leaves_no_target(two_urls: tuple[str, str]) -> None:
    with pytest.raises(LedgerUnavailable, match=r"there is no ledger|holds no ledger"):
        copy(two_urls)
    if not two_urls[1].startswith("postgresql"):
        assert not Path(two_urls[1]).exists()


@CROSSING
def test_what_another_version_began_is_left_to_it(filled: tuple[str, str]) -> None:
    _, target = filled
    copy(filled)
    execute(target, f"UPDATE {VERSION_TABLE} SET version_num = 'copying 0000'")
    with pytest.raises(LedgerUnavailable, match="begun by a lastchunk with schema 0000"):
        copy(filled)


@CROSSING
def test_memory_is_bounded_by_pages(filled: tuple[str, str]) -> None:
    """No query of the copy fetches more than a page and one."""
    fetched: list[int] = []
    fetch = differences_module._rows

    def counting(*arguments: Any) -> Any:
        rows = fetch(*arguments)
        fetched.append(len(rows))
        return rows

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(differences_module, "_rows", counting)
        copy(filled)
    assert 0 < max(fetched) <= differences_module.PAGE + 1


# The comparison by itself.


@pytest.fixture
def two_tables(tmp_path: Path) -> Iterator[tuple[sa.Connection, sa.Connection]]:
    engines = [sa.create_engine(f"sqlite:///{tmp_path / name}") for name in ("a", "b")]
    connections = [engine.connect() for engine in engines]
    for connection in connections:
        metadata.create_all(connection)
    yield connections[0], connections[1]
    for connection, engine in zip(connections, engines, strict=True):
        connection.close()
        engine.dispose()


@pytest.mark.parametrize("page", [1, 2, 3, 7])
def test_differences_are_those_of_the_sets(
    two_tables: tuple[sa.Connection, sa.Connection],
    monkeypatch: pytest.MonkeyPatch,
    page: int,
) -> None:
    monkeypatch.setattr(differences_module, "PAGE", page)
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}")
    table = metadata.tables["shape_keys"]
    for _ in range(60):
        sides = [
            {number: chance.choice("ab") for number in range(12) if chance.random() < share}
            for share in (chance.random(), chance.random())
        ]
        for connection, side in zip(two_tables, sides, strict=True):
            connection.execute(sa.delete(table))
            rows = [{"number": number, "key": key} for number, key in side.items()]
            if rows:
                connection.execute(sa.insert(table), rows)
        source, target = sides
        found = list(differences(*two_tables, table))
        both = source.keys() & target.keys()
        assert [row.number for one in found for row in one.missing] == sorted(
            source.keys() - target.keys()
        )
        assert sorted(row.number for one in found for row in one.foreign) == sorted(
            target.keys() - source.keys()
        )
        assert [row.number for one in found for row in one.changed] == sorted(
            number for number in both if source[number] != target[number]
        )
        assert sum(one.compared for one in found) == len(source)


def test_every_key_sorts_alike_on_both_databases() -> None:
    """Pages are stretches of the key: text is compared by its bytes."""
    for table in metadata.sorted_tables:
        assert len(table.primary_key) > 0, table.name
        for column in table.primary_key:
            if isinstance(column.type, sa.Text):
                on_postgresql = column.type.dialect_impl(sa.dialects.postgresql.dialect())
                assert on_postgresql.collation == "C", f"{table.name}.{column.name}"


def test_what_the_database_lets_nobody_change_is_appended(url: str, clock: Stopwatch) -> None:
    """A table that refuses DELETE cannot be made the source's: it must be in APPENDED."""
    Ledger.open(url, clock=clock).close()
    fill(url, clock, calls=4)
    for table in metadata.sorted_tables:
        try:
            execute(url, f"DELETE FROM {table.name}")
        except sa.exc.DBAPIError:
            assert table in copying.APPENDED
        else:
            assert table not in copying.APPENDED
    assert (entries, tags) == copying.APPENDED
