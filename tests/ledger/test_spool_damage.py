"""A spool file that was cut or changed: what can be read is carried, the rest is set aside."""

import logging
import os
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_facts import NOON, Stopwatch, make_call, make_correction, make_settlement
from outages import held, options, until_back

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import CallFilter, Ledger, Reader, verify
from lastchunk.ledger.entries import reserved_entry, settled_entry
from lastchunk.ledger.plan import Amendment, Item, Reservation, Resolution
from lastchunk.ledger.spool import SpoolFile
from lastchunk.ledger.spool_lines import Damage, line_of, read_lines, write_line

CALLS = 6


@dataclass
class Left:
    """A spool that a process left behind: `CALLS` reservations, each followed by its end."""

    folder: Path
    name: str
    data: bytes
    calls: list[str]

    def put(self, folder: Path, data: bytes) -> Path:
        folder.mkdir()
        path = folder / self.name
        path.write_bytes(data)
        return path

    def lines(self) -> list[tuple[int, int]]:
        """Where the entries' lines begin and end: after the header and the owner."""
        ends = [at + 1 for at, byte in enumerate(self.data) if byte == ord("\n")]
        return list(pairwise(ends[1:]))


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("left")
    url = str(folder / "ledger.db")
    ledger = Ledger.open(url, clock=Stopwatch(), spool=options(folder / "spool"))
    calls = [make_call() for _ in range(CALLS)]
    with held(url):
        for call in calls:
            ledger.reserve(call)
            ledger.settle(call, make_settlement(call), NOON)
        ledger.close()
    (path,) = (folder / "spool").glob("*.spool")
    return Left(folder, path.name, path.read_bytes(), [call.call_id for call in calls])


def adopt(left: Left, folder: Path, data: bytes) -> tuple[dict[str, int], list[str]]:
    """Entries by call, and the files left, after a ledger was opened over such a spool.

    The ledger is where the spool's own was, so that its name fits; it is made anew each time.
    """
    for found in left.folder.glob("ledger.db*"):
        if found.is_file():
            found.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    left.put(folder, data)
    url = str(left.folder / "ledger.db")
    Ledger.open(url, clock=Stopwatch(), spool=options(folder)).close()
    assert verify(url).discrepancies == ()
    with Reader.open(url) as reader:
        found_calls = {row.call_id: len(row.entries) for row in reader.calls(CallFilter())}
    return found_calls, sorted(path.suffix for path in folder.iterdir())


def test_a_whole_spool_is_carried_and_gone(left: Left, tmp_path: Path) -> None:
    told, files = adopt(left, tmp_path / "s", left.data)
    assert told == dict.fromkeys(left.calls, 2)
    assert files == []


@given(at=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_a_flipped_bit_costs_no_more_than_its_own_entry(
    left: Left, tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    first = left.lines()[0][0]
    at = first + at % (len(left.data) - first)
    changed = bytearray(left.data)
    changed[at] ^= 1 << bit
    told, files = adopt(left, left.folder / "flipped", bytes(changed))
    hit = next(n for n, (start, end) in enumerate(left.lines()) if start <= at < end)
    expected = dict.fromkeys(left.calls, 2)
    if told == expected:  # only a line feed, or the case of a digit, was hit
        return
    expected[left.calls[hit // 2]] = 1
    if hit % 2 == 0:  # without its reservation a call's end cannot be written: it is kept aside
        del expected[left.calls[hit // 2]]
    assert told == expected
    assert files == [".damaged"]


@given(length=st.integers(0, 10**9))
def test_a_spool_that_was_cut_keeps_all_before_the_cut_and_says_so(left: Left, length: int) -> None:
    first = left.lines()[0][0]
    length = first + length % (len(left.data) - first)
    told, files = adopt(left, left.folder / "cut", left.data[:length])
    whole = sum(end <= length for _, end in left.lines())
    nearly = any(end - 1 == length for _, end in left.lines())  # all but the line feed
    assert sum(told.values()) == whole + nearly
    is_between = nearly or any(end == length for _, end in left.lines()) or length == first
    assert files == ([] if is_between else [".damaged"])


def test_damage_is_said_with_what_to_do(
    left: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        adopt(left, tmp_path / "s", left.data[: len(left.data) // 2])
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "set aside in" in told
    assert ".damaged; all the rest is carried" in told
    assert "or delete it" in told
    assert "bytes shorter than it was" in told


def test_an_entry_that_was_never_acknowledged_is_dropped_silently(
    left: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torn = left.data + left.data[left.lines()[0][0] :][:100]
    with caplog.at_level(logging.ERROR):
        told, files = adopt(left, tmp_path / "s", torn)
    assert told == dict.fromkeys(left.calls, 2)
    assert files == []
    assert caplog.records == []


def test_a_spool_of_a_later_version_is_left_alone_and_named(
    left: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    later = left.data.replace(b"lastchunk-spool 1 ", b"lastchunk-spool 2 ")
    with caplog.at_level(logging.ERROR):
        told, files = adopt(left, tmp_path / "s", later)
    assert told == {}
    assert files == [".spool"]
    assert (tmp_path / "s" / left.name).read_bytes() == later
    assert "another version of lastchunk" in caplog.text


def test_a_spool_without_a_readable_head_is_carried_all_the_same(
    left: Left, tmp_path: Path
) -> None:
    start = left.lines()[0][0]
    told, _ = adopt(left, tmp_path / "s", b"\0" * (start - 1) + b"\n" + left.data[start:])
    assert told == dict.fromkeys(left.calls, 2)


def test_a_spool_whose_owner_lives_is_left_to_it(left: Left, tmp_path: Path) -> None:
    path = left.put(tmp_path / "s", left.data)
    owner = SpoolFile.take_over(path)
    assert owner is not None
    assert SpoolFile.take_over(path) is None
    owner.close()
    taken = SpoolFile.take_over(path)
    assert taken is not None
    taken.remove()
    assert not path.exists()


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_spool_folder_that_cannot_be_made_costs_no_call(
    folder: str, tmp_path: Path, clock: Stopwatch
) -> None:
    (tmp_path / "file").touch()
    url, spool = str(tmp_path / "ledger.db"), options(tmp_path / folder)
    with Ledger.open(url, clock=clock, spool=spool) as ledger:
        call = make_call()
        with held(url):
            assert isinstance(ledger.reserve(call).exception(30), LedgerUnavailable)
            settled = ledger.settle(call, make_settlement(call), NOON)
        assert settled.result(30) is True
        until_back(ledger)
    assert verify(url).calls == 1


def test_a_full_disk_leaves_the_spool_as_it_was(left: Left, tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    path = left.put(tmp_path / "s", left.data)
    file = SpoolFile.take_over(path)
    assert file is not None
    spare = os.dup(file._descriptor)
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, file._descriptor)
    with pytest.raises(OSError, match="No space left"):
        file.append([b"x"])
    os.dup2(spare, file._descriptor)
    assert file.size == len(left.data)
    assert path.read_bytes() == left.data


items = st.sampled_from(["reserved", "resolved", "corrected"])
texts = st.text(max_size=20)


@given(kind=items, account=texts, tag=texts, pieces=st.integers(1, 3))
def test_every_item_is_read_as_it_was_written(
    kind: str, account: str, tag: str, pieces: int
) -> None:
    call = make_call(account=account.encode("utf-8", "replace").decode())
    item: Item
    if kind == "reserved":
        item = Reservation(reserved_entry(call, "proc_1"), ((tag, "x"),))
    elif kind == "resolved":
        item = Resolution(settled_entry(call, make_settlement(call), NOON, "proc_1"))
    else:
        item = Amendment(make_correction(call, reason=account), "proc_1")
    written = write_line(line_of(item)) * pieces
    assert written.count(b"\n") == pieces
    read = list(read_lines(written.splitlines(keepends=True), 7))
    assert [offset for offset, _ in read][-1] == 7 + len(written)
    for _, line in read:
        assert not isinstance(line, Damage)
        assert line.item == item
