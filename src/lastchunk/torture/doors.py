"""A door with its callers: started, asked to stop, killed, started again on the same ledger."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import msgspec

from lastchunk.stage.servers import Place, Server, StageFailed, gateway_before, python
from lastchunk.torture.caller import AT_ONCE, Assignment
from lastchunk.torture.ear import Line, Report
from lastchunk.torture.faults import SILENCE_SECONDS, PlannedCall
from lastchunk.torture.matrix import Door

STOP_SECONDS = 20.0
GATEWAY_STOP_SECONDS = 1.0
"""How long the gateway lets open streams go on after SIGTERM: in the matrix they never end."""

PLAY_SECONDS = 300.0
"""How long one group of calls may take before it counts as hung."""


class Caller:
    """The process that makes calls; lines are read by a thread of their own."""

    def __init__(
        self, assignment: Assignment, place: Place, told: Callable[[Report], None]
    ) -> None:
        self.reports: dict[str, Report] = {}
        self.reached: set[str] = set()
        self.is_over: Future[None] = Future()
        self._told = told
        self._process = python("-m", "lastchunk.torture.caller", place=place, takes_input=True)
        self._write(msgspec.json.encode(assignment).decode())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self) -> None:
        """Until every call is over. Raises StageFailed where that does not come."""
        try:
            self.is_over.result(PLAY_SECONDS)
        except TimeoutError:
            self.kill()
            raise StageFailed("the callers hang") from None

    def go(self) -> None:
        """Let calls that wait at their moment go on."""
        self._write("go")

    def finish(self) -> None:
        """Have it close its books and exit."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._end()

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()
        self._end()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._end()

    def _end(self) -> None:
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_SECONDS)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for told in lines:
                line = msgspec.json.decode(told, type=Line)
                if line.reached is not None:
                    self.reached.add(line.reached)
                elif line.report is not None:
                    self.reports[line.report.call] = line.report
                    self._told(line.report)
                elif line.over:
                    self.is_over.set_result(None)
        if not self.is_over.done():
            self.is_over.set_exception(StageFailed("the process of the callers ended by itself"))


class OpenDoor:
    """One door on one ledger before one provider, and the callers that go through it.

    Without a ledger the callers are bare.
    """

    def __init__(
        self,
        door: Door,
        provider: str,
        ledger: str | None,
        place: Place,
        told: Callable[[Report], None],
        *,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._silence_seconds = silence_seconds
        self.door = door
        self.provider = provider
        self.ledger = ledger
        self._place = place
        self._told = told
        self._gateway = self._start_gateway() if door is Door.GATEWAY else None
        self.caller: Caller | None = None

    def call(
        self, calls: Sequence[PlannedCall], seed: int, *, at_once: int | None = AT_ONCE
    ) -> Caller:
        """Start making these calls."""
        through_gateway = self._gateway is not None
        assignment = Assignment(
            url=self._gateway.url if self._gateway is not None else self.provider,
            provider=self.provider,
            ledger=None if through_gateway else self.ledger,
            is_async=self.door is not Door.SYNC,
            seed=seed,
            calls=[(call.cell.name, call.number) for call in calls],
            at_once=at_once,
            through_gateway=through_gateway,
        )
        self.caller = Caller(assignment, self._place, self._told)
        return self.caller

    def close(self) -> None:
        """The end as it should be: callers first, then the gateway."""
        if self.caller is not None:
            self.caller.finish()
        if self._gateway is not None:
            self._gateway.stop(STOP_SECONDS)

    def terminate(self) -> None:
        """SIGTERM to the process that is the door."""
        assert self.caller is not None
        if self._gateway is None:
            self.caller.terminate()
            return
        self._gateway.stop(STOP_SECONDS)
        self.caller.finish()

    def kill(self) -> None:
        """SIGKILL to the process that is the door."""
        assert self.caller is not None
        if self._gateway is None:
            self.caller.kill()
            return
        self._gateway.kill()
        self.caller.finish()

    def abandon(self) -> None:
        """Leave no process behind, whatever state they are in."""
        if self.caller is not None:
            self.caller.kill()
        if self._gateway is not None and self._gateway.is_running:
            self._gateway.kill()

    def restart(self) -> None:
        """The same door once more on the same ledger, and closed: what it finds it recovers."""
        again = OpenDoor(self.door, self.provider, self.ledger, self._place, self._told)
        if again.door is not Door.GATEWAY:
            again.call((), 0).wait()
        again.close()

    def _start_gateway(self) -> Server:
        assert self.ledger is not None
        return gateway_before(
            self.provider,
            self.ledger,
            "--stop-timeout",
            str(GATEWAY_STOP_SECONDS),
            silence_seconds=self._silence_seconds,
            place=self._place,
        )
