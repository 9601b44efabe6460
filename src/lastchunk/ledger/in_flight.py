"""Whose calls are under way, and whether that process still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lastchunk.meter.observation import Observation
from lastchunk.settlement.facts import OpenCall

SILENT_MS = 60_000
"""Who looks once, and compares clocks, takes a process on another host for dead after this long
without a beat: thirty beats of two seconds leave room for clocks that differ."""

_START_FIELD = 19
"""Field 22 of /proc/<pid>/stat is the start time; the first that is counted here is field 3."""


@dataclass(frozen=True, slots=True)
class Process:
    """One opening of the ledger by one process. Unknown texts are empty.

    `start_ticks` is the process's start in clock ticks since boot: no clock jump changes it.
    """

    process_id: str
    host: str
    machine_id: str
    boot_id: str
    pid_space: str
    pid: int
    start_ticks: int | None
    started_ms: int
    beat_ms: int
    ended_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Orphan:
    """An open call whose process is dead. `seen` is what it last wrote down, None if nothing."""

    call: OpenCall
    seen: Observation | None


def this_process(process_id: str, now_ms: int) -> Process:
    """The process that runs this."""
    pid = os.getpid()
    return Process(
        process_id=process_id,
        host=socket.gethostname(),
        machine_id=_read("/etc/machine-id"),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        pid_space=_link("/proc/self/ns/pid"),
        pid=pid,
        start_ticks=start_ticks_of(pid),
        started_ms=now_ms,
        beat_ms=now_ms,
    )


def is_dead(process: Process, here: Process, now_ms: int, runs: Callable[[Process], bool]) -> bool:
    """Whether a process can write no more, as seen by the process `here`, who looks once.

    Where only silence can tell, the hosts' clocks must agree to within `SILENT_MS`.
    """
    known = known_death(process, here, runs)
    return now_ms - process.beat_ms > SILENT_MS if known is None else known


def known_death(process: Process, here: Process, runs: Callable[[Process], bool]) -> bool | None:
    """Whether a process is certainly dead or alive; None where only its silence can tell.

    Within one boot of one machine the operating system knows, and no clock is asked.
    """
    if process.ended_ms is not None:
        return True
    same_machine = process.host == here.host and process.machine_id == here.machine_id
    if same_machine and process.boot_id == here.boot_id and process.pid_space == here.pid_space:
        if runs(process):
            return False
        # Without a boot id nothing proves that the pid was looked up on the right machine.
        return True if here.boot_id else None
    same_by_number = same_machine and bool(here.machine_id)
    if same_by_number and here.boot_id and process.boot_id not in ("", here.boot_id):
        return True  # the machine was started again since
    return None


def runs_here(process: Process) -> bool:
    """Whether this machine still runs the very process, not a later one with its number."""
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is someone else's, but it is there
    if process.start_ticks is None:
        return True
    return start_ticks_of(process.pid) == process.start_ticks


def start_ticks_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot. None: it is over, or there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name, in brackets, may hold blanks
    if len(fields) <= _START_FIELD or fields[0] in ("Z", "X"):
        return None  # a zombie writes no more
    return int(fields[_START_FIELD])


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
