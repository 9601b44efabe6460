"""A spool: one file of one process that takes entries while the ledger is away.

    lastchunk-spool 1 00000000000004d2       how many bytes were acknowledged to their callers
    00c0ffee 000004d2 {"owner": …}           the process, so that others can tell it is dead
    …                                        entries in their order

Its owner holds a lock on the file, which the system takes back when the owner dies, however that
happens. Who gets the lock then may carry the entries into the ledger, and removes the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from lastchunk.ledger.database import parse_url
from lastchunk.ledger.in_flight import Process
from lastchunk.ledger.spool_lines import Damage, Line, read_lines, write_line

if sys.platform != "win32":
    import fcntl

HAS_LOCKS = sys.platform != "win32"
"""Without file locks nobody can tell a dead process's spool: there is none then."""

SPOOL_SECONDS = 0.5
"""What a sync of the spool's disk may take on top of the wait for the ledger."""

SUFFIX = ".spool"
_MAGIC = b"lastchunk-spool "
_VERSION = b"1 "
_MARK_AT = len(_MAGIC + _VERSION)
_HEADER = _MARK_AT + 17
"""Length of the first line: a mark of sixteen digits and a line feed after what is fixed."""

UNBORN_SECONDS = 60.0
"""A file that is still being made after so long has no maker any more. A younger one may be in
the moment between being made and being locked."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SpoolOptions:
    """What a ledger does while it is away.

    `passes`: new calls are spooled and go on; else they are refused. `max_bytes` is the bound of
    one process's spool. `wait_seconds` is how long the ledger may keep a call waiting before it
    counts as away.
    """

    folder: Path
    passes: bool
    max_bytes: int
    wait_seconds: float

    @property
    def most_seconds(self) -> float:
        """The longest that a reservation takes, the spool's own disk included, unless it hangs."""
        return 2 * self.wait_seconds + SPOOL_SECONDS


def default_folder(ledger: str) -> Path:
    """Beside a SQLite ledger, else where this user's programs keep their state.

    `ledger` is a path or URL. Raises LedgerUnavailable for what is neither.
    """
    url = parse_url(ledger)
    if url.get_backend_name() == "sqlite":
        return Path(f"{url.database}-spool")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "lastchunk" / "spool"


def ledger_key(url: sa.URL) -> str:
    """Tells the spools of several ledgers in one folder apart; the same for any user name."""
    named = sa.URL.create(
        url.get_backend_name(), host=url.host, port=url.port, database=url.database, query=url.query
    )
    return hashlib.blake2b(named.render_as_string().encode(), digest_size=6).hexdigest()


class SpoolFile:
    """A spool whose lock is ours. Appended to by one thread, read by one other."""

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self.path = path
        self.size = size
        """Bytes that are durable: header, owner and acknowledged entries."""
        self._descriptor = descriptor

    @classmethod
    def create(cls, folder: Path, key: str, owner: Process) -> SpoolFile:
        """A new, empty one. Raises OSError where it cannot be written."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{key}.{owner.process_id}{SUFFIX}"
        hidden = path.with_suffix(".new")
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            made = cls(path, descriptor, 0)
            if not _lock(descriptor):
                raise OSError(f"{hidden} is locked by another process")
            made._write(_MAGIC + _VERSION + b"%016x\n" % 0, 0)
            made.size = _HEADER
            made.append([write_line(Line(owner=owner))])
            # Only now it can be found: nobody ever finds it without its lock.
            os.rename(hidden, path)
            _sync_folder(folder)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(hidden)
            raise
        return made

    @classmethod
    def take_over(cls, path: Path) -> SpoolFile | None:
        """A spool whose owner is dead; None where it lives, or somebody else was quicker."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if not _lock(descriptor) or os.fstat(descriptor).st_nlink == 0:
            os.close(descriptor)
            return None
        return cls(path, descriptor, os.fstat(descriptor).st_size)

    @property
    def start(self) -> int:
        """Where the lines begin."""
        return _HEADER

    @property
    def process_id(self) -> str:
        """The owner's, by the file's name."""
        return self.path.name.removesuffix(SUFFIX).partition(".")[2]

    @property
    def is_of_another_version(self) -> bool:
        head = os.pread(self._descriptor, _MARK_AT, 0)
        return head.startswith(_MAGIC) and head[len(_MAGIC) :] != _VERSION

    def acknowledged(self) -> int | None:
        """How many bytes were acknowledged when it was last written to; None: unreadable."""
        head = os.pread(self._descriptor, _HEADER, 0)
        try:
            return int(head[_MARK_AT : _HEADER - 1], 16) if head.startswith(_MAGIC) else None
        except ValueError:
            return None

    def append(self, lines: Sequence[bytes]) -> None:
        """Durable when it returns. Raises OSError, and then holds what it held before."""
        data = b"".join(lines)
        try:
            self._write(data, self.size)
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)
        # Not synced: it outlives the process, and after a power cut too low a mark is harmless.
        self._write(b"%016x" % self.size, _MARK_AT)

    def lines(self, offset: int) -> Generator[tuple[int, Line | Damage]]:
        """From an offset to the end as it stands now, each with the offset after it."""
        end = self.size
        if offset >= end:
            return
        with open(os.dup(self._descriptor), "rb") as reader:
            reader.seek(offset)
            for after, found in read_lines(reader, offset):
                yield after, found
                if after >= end:  # what follows is not acknowledged yet
                    return

    def set_aside(self, data: bytes) -> Path:
        """Keeps bytes that cannot be read, or entries that no ledger takes, in a file beside."""
        aside = self.path.with_suffix(".damaged")
        with open(aside, "ab") as kept:
            kept.write(data)
        return aside

    def remove(self) -> None:
        """All of it is in the ledger."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Gives the lock back: the next process may take it over."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written


def ownerless(folder: Path, key: str) -> Iterator[SpoolFile]:
    """The spools of dead processes for this ledger, locked for the caller, the oldest first."""
    if not HAS_LOCKS:
        return
    for unborn in folder.glob(f"{key}.*.new"):  # its maker died before it held anything
        if _age_seconds(unborn) > UNBORN_SECONDS and (found := SpoolFile.take_over(unborn)):
            found.remove()
    for path in sorted(folder.glob(f"{key}.*{SUFFIX}")):
        try:
            if (found := SpoolFile.take_over(path)) is not None:
                yield found
        except OSError as error:
            logger.error("the spool %s cannot be opened: %s", path, error)


def _age_seconds(path: Path) -> float:
    """Since it was last written; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
