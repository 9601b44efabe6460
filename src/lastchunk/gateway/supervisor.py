"""The parent of several gateway processes: it starts them, watches them, and does nothing else.

`lastchunk serve --workers N` becomes this program, which imports the standard library alone: it is
small, and nothing that a request can reach runs in it. A worker is the command it was started with,
run again with `LASTCHUNK_WORKER` in its environment (see `worker.py`), so that a rolling restart
also brings a new version of the code or the settings into service.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

LISTEN_BACKLOG = 1024
"""Connections that may wait in a slot while its worker is started again, about a second."""

STEADY_SECONDS = 10.0
"""A worker that lived longer was not in a crash loop: its slot starts at once again."""

FIRST_PAUSE_SECONDS = 0.5
"""The pause after a second crash in a row; it doubles with each further one."""

LONGEST_PAUSE_SECONDS = 30.0

KILL_SECONDS = 30.0
"""How long after the stop deadline a worker may take to write what it has, before it is killed."""

CHECK_OPTION = "--check"
"""With it the workers' command checks its settings and rules, and ends."""

EXIT_FAILED = 1
EXIT_REFUSED = 2

log = logging.getLogger("lastchunk.supervisor")


@dataclass(slots=True)
class Worker:
    """One process, from its start to its end."""

    number: int
    process: subprocess.Popen[bytes]
    ready: int
    """The pipe on which it says that it accepts; -1 when that is read."""
    started: float
    serves: bool = False
    leaves: bool = False
    """It was told to stop."""


@dataclass(slots=True)
class Slot:
    """A place for one worker, with listening sockets that outlive it.

    No connection is refused or lost while its worker is replaced: it waits in the sockets' queue.
    """

    number: int
    sockets: list[socket.socket]
    current: Worker | None = None
    coming: Worker | None = None
    """Takes over from `current` as soon as it accepts."""
    crashes: int = 0
    due: float | None = None
    """When to start the next one; None while there is nothing to start."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and at which address. Times in seconds."""

    workers: int
    host: str
    port: int
    stop_seconds: float
    command: list[str]
    logs_json: bool = False
    """Log lines as JSON objects, as the workers' are."""


class Supervisor:
    """Runs workers until it is told to stop."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._listener = Listener(plan.host, plan.port)
        self._slots = [Slot(number + 1, []) for number in range(plan.workers)]
        self._workers: list[Worker] = []
        self._rolling: list[Slot] = []
        self._check: subprocess.Popen[bytes] | None = None
        """Looks at the rules before anything is rolled."""
        self._checks_again = False
        self._selector = selectors.DefaultSelector()
        self._numbers = tempfile.TemporaryDirectory(prefix="lastchunk-metrics-")
        """Where workers keep their metrics: those of dead ones are still summed up."""
        self._lifeline = os.pipe()  # its writing end closes with this process, whatever ends it
        self._kill_at: float | None = None
        self._status = 0
        self._served = False
        """All workers have accepted once."""

    def run(self) -> int:
        """The exit status: 0 where every worker ended in order."""
        self._catch_signals()
        self._slots[0].due = 0.0  # alone: what is wrong for all is said once
        try:
            self._start_due()
            while self._workers or self._kill_at is None:
                for key, _ in self._selector.select(self._patience()):
                    key.data()
                self._reap()
                self._hear_check()
                self._kill_late()
                self._start_due()
        finally:
            self._listener.close()
            self._numbers.cleanup()
        if self._status == 0 and self._served:
            _say("stopped; every row is written")
        return self._status

    # Signals.

    def _catch_signals(self) -> None:
        reading, writing = socket.socketpair()
        for end in (reading, writing):
            end.setblocking(False)
        self._signals, self._signals_in = reading, writing
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the byte on the socket is what is acted on
        self._selector.register(reading, selectors.EVENT_READ, self._signalled)

    def _signalled(self) -> None:
        for number in self._signals.recv(4096):
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif number == signal.SIGHUP and self._kill_at is None:
                self._check_rules()

    def _stop(self) -> None:
        """The first time as they are; the second time in a hurry."""
        hurries = self._kill_at is not None
        until = time.monotonic() + KILL_SECONDS + (0.0 if hurries else self._plan.stop_seconds)
        self._kill_at = until if self._kill_at is None else min(self._kill_at, until)
        self._listener.close()
        for slot in self._slots:
            slot.sockets, slot.due = [], None
        for worker in self._workers:
            if hurries or not worker.leaves:  # one that leaves already may be past hearing it
                _send(worker, signal.SIGINT if hurries else signal.SIGTERM)
            worker.leaves = True

    def _check_rules(self) -> None:
        """The workers' command says whether the rules can be used, with the line that cannot."""
        if self._check is not None:
            self._checks_again = True  # what is asked for now may not be what it reads
            return
        self._check = subprocess.Popen(
            [*self._plan.command, CHECK_OPTION],
            executable=sys.executable,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,
        )

    def _hear_check(self) -> None:
        if self._check is None or (status := self._check.poll()) is None:
            return
        self._check = None
        if self._kill_at is not None:
            return
        if self._checks_again:
            self._checks_again = False
            self._check_rules()
        elif status == 0:
            self._roll()
        else:
            log.error("the rules cannot be used (see above): no worker is replaced")

    def _roll(self) -> None:
        log.info("starting the workers again, one by one")
        begins = not self._rolling
        self._rolling = list(self._slots)
        if begins:
            self._roll_on()

    def _roll_on(self) -> None:
        """Start the next successor; the one before it accepts already."""
        while self._rolling:
            slot = self._rolling[0]
            if slot.coming is not None:
                return
            if slot.current is not None and slot.current.serves:
                slot.coming = self._start(slot)
                return
            self._rolling.pop(0)  # it is being started anew as it is

    # Workers.

    def _start_due(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.due is None or slot.due > now:
                continue
            slot.due = None
            try:
                slot.sockets = slot.sockets or self._listener.open()
            except OSError as error:
                self._cannot_listen(slot, error)
                continue
            slot.current = self._start(slot)

    def _cannot_listen(self, slot: Slot, error: OSError) -> None:
        where = f"{self._plan.host}:{self._plan.port}: {error.strerror or error}"
        if not self._served:
            print(f"Error: cannot listen on {where}", file=sys.stderr, flush=True)
            self._status = EXIT_REFUSED
            self._stop()
            return
        slot.due = time.monotonic() + LONGEST_PAUSE_SECONDS
        log.error("worker %d cannot listen on %s", slot.number, where)

    def _start(self, slot: Slot) -> Worker:
        listening = [one.fileno() for one in slot.sockets]
        ready, told = os.pipe()
        place = {"number": slot.number, "of": self._plan.workers, "listening": listening}
        place |= {"lifeline": self._lifeline[0], "ready": told}
        process = subprocess.Popen(
            self._plan.command,
            executable=sys.executable,
            stdin=subprocess.DEVNULL,
            pass_fds=(*listening, self._lifeline[0], told),
            process_group=0,  # a terminal's Ctrl-C is for the parent, which tells each worker once
            env=os.environ
            | {
                "LASTCHUNK_WORKER": json.dumps(place),
                "PROMETHEUS_MULTIPROC_DIR": self._numbers.name,
            },
        )
        os.close(told)
        worker = Worker(slot.number, process, ready, time.monotonic())
        self._workers.append(worker)
        self._selector.register(ready, selectors.EVENT_READ, lambda: self._hear(slot, worker))
        return worker

    def _hear(self, slot: Slot, worker: Worker) -> None:
        """It accepts, or its end of the pipe was closed by its end."""
        told = os.read(worker.ready, 65_536)
        self._forget_pipe(worker)
        if not told or worker.leaves:
            return
        worker.serves = True
        if slot.coming is worker:
            before, slot.current, slot.coming = slot.current, worker, None
            if before is not None:
                before.leaves = True
                _send(before, signal.SIGHUP)
        if self._served:
            log.info("worker %d serves, as process %d", slot.number, worker.process.pid)
        else:
            self._say_started(json.loads(told))
        if self._rolling and self._rolling[0] is slot:
            self._rolling.pop(0)
            self._roll_on()

    def _say_started(self, told: dict[str, str]) -> None:
        for slot in self._slots:
            if slot.current is None and slot.due is None:
                slot.due = 0.0
        if all(slot.current is not None and slot.current.serves for slot in self._slots):
            self._served = True
            _say(f"lastchunk serves {told['upstream']} at {told['url']}")
            _say(f"ledger: {told['ledger']}")
            _say(f"{len(self._slots)} workers; point clients at {told['url']}/v1")
            _say("stop with Ctrl-C, start the workers again one by one with SIGHUP")

    def _forget_pipe(self, worker: Worker) -> None:
        if worker.ready >= 0:
            self._selector.unregister(worker.ready)
            os.close(worker.ready)
            worker.ready = -1

    def _reap(self) -> None:
        for worker in list(self._workers):
            if worker.process.poll() is not None:
                self._workers.remove(worker)
                self._forget_pipe(worker)
                self._forget_gauges(worker)
                self._ended(self._slots[worker.number - 1], worker)

    def _forget_gauges(self, worker: Worker) -> None:
        """What was true of it while it lived; its counters stay. As prometheus_client names them"""
        for file in Path(self._numbers.name).glob(f"gauge_live*_{worker.process.pid}.db"):
            file.unlink(missing_ok=True)

    def _ended(self, slot: Slot, worker: Worker) -> None:
        how = _how_it_ended(worker)
        if worker.leaves:
            if worker.process.returncode != 0 and worker.serves:
                log.error("%s while it stopped", how)
                self._status = self._status or EXIT_FAILED
        elif slot.coming is worker:
            slot.coming = None
            self._rolling.clear()
            log.error("%s before it served: the one before it goes on, no other is replaced", how)
        elif not self._served and slot.number == 1 and not worker.serves:
            self._status = max(worker.process.returncode, 0) or EXIT_FAILED
            self._stop()  # it has said why
        else:
            self._start_again(slot, worker, how)

    def _start_again(self, slot: Slot, worker: Worker, how: str) -> None:
        now = time.monotonic()
        slot.current = None
        if slot.coming is not None:  # its successor is on its way
            slot.current, slot.coming = slot.coming, None
            log.error("%s: its successor is on its way", how)
            return
        slot.crashes = slot.crashes + 1 if now - worker.started < STEADY_SECONDS else 1
        pause = pause_after(slot.crashes)
        slot.due = now + pause
        if pause:
            # What is new goes to the others meanwhile, instead of waiting in this slot's queue.
            self._listener.give_back(slot.sockets)
            slot.sockets = []
            again = f"{slot.crashes} times in a row: see what it said above"
            log.error("%s, %s; it starts again in %.1f s", how, again, pause)
        else:
            log.error("%s: its open calls are settled by the others; it starts again now", how)

    # Time.

    def _patience(self) -> float | None:
        moments = [slot.due for slot in self._slots if slot.due is not None]
        if self._kill_at is not None:
            moments.append(self._kill_at)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _kill_late(self) -> None:
        if self._kill_at is None or time.monotonic() < self._kill_at:
            return
        for worker in self._workers:
            log.error("worker %d does not end: killing it", worker.number)
            _send(worker, signal.SIGKILL)
        self._kill_at = time.monotonic() + KILL_SECONDS


class Listener:
    """The address. Each slot has sockets of its own where the kernel spreads what comes over them.

    On Linux that is SO_REUSEPORT: each new connection goes to one of them by a hash of its
    addresses, evenly. On one socket for all whoever wakes first takes what is there, and the same
    ones wake first. Elsewhere sockets of one port are not balanced, and all share one.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._spreads = sys.platform == "linux"
        self._open: list[socket.socket] = []
        self._is_checked = False

    def open(self) -> list[socket.socket]:
        """Listening sockets for one slot, one for each address of the host. Raises OSError."""
        if self._open and not self._spreads:
            return self._open
        addresses = self._addresses()
        if self._spreads and self._port and not self._is_checked:
            for family, address in addresses:
                _bound(family, address, shared=False).close()  # another program's would be shared
        self._is_checked = True
        sockets: list[socket.socket] = []
        for family, (host, _, *rest) in addresses:
            sockets.append(_bound(family, (host, self._port, *rest), shared=self._spreads))
            self._port = sockets[-1].getsockname()[1]
            sockets[-1].listen(LISTEN_BACKLOG)
        self._open.extend(sockets)
        return sockets

    def give_back(self, sockets: list[socket.socket]) -> None:
        """Close what one slot had, where the others have their own."""
        for one in sockets if self._spreads else ():
            self._open.remove(one)
            one.close()

    def close(self) -> None:
        while self._open:
            self._open.pop().close()

    def _addresses(self) -> list[tuple[int, tuple[object, ...]]]:
        found = socket.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
        if not shared:
            one.listen(1)  # only this tells a port that others share
    except OSError:
        one.close()
        raise
    return one


class JsonLines(logging.Formatter):
    """One JSON object a line, in the form of the workers'."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told = {"time": at, "level": record.levelname, "logger": record.name}
        return json.dumps(told | {"message": record.getMessage()})


def pause_after(crashes: int) -> float:
    """Seconds to wait after so many crashes in a row: none after the first."""
    if crashes < 2:
        return 0.0
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(crashes - 2, 16), LONGEST_PAUSE_SECONDS)


def _how_it_ended(worker: Worker) -> str:
    code = worker.process.returncode
    lived = time.monotonic() - worker.started
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return f"worker {worker.number} (pid {worker.process.pid}) {ended} after {lived:.1f} s"


def _send(worker: Worker, number: signal.Signals) -> None:
    if worker.process.poll() is None:
        worker.process.send_signal(number)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Run as a program: the plan as JSON, then the workers' command."""
    plan = Plan(**json.loads(sys.argv[1]), command=sys.argv[2:])
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if plan.logs_json else form)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.exit(Supervisor(plan).run())


if __name__ == "__main__":
    main()
