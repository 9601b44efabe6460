"""A server that plays a recorded body: pieces and pauses, where a script cannot say it."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

Piece = bytes | float
"""Bytes to send at once, or seconds to wait."""


@dataclass(frozen=True)
class Tape:
    """One HTTP answer, chunked, its body as it is told in time."""

    pieces: Sequence[Piece]
    status: int = 200
    content_type: str | None = "text/event-stream"

    @property
    def body(self) -> bytes:
        return b"".join(piece for piece in self.pieces if isinstance(piece, bytes))


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        if not self._read_request():
            return
        tape: Tape = self.server.tape  # type: ignore[attr-defined]
        kind = f"content-type: {tape.content_type}\r\n" if tape.content_type else ""
        head = f"HTTP/1.1 {tape.status} Told\r\n{kind}transfer-encoding: chunked\r\n"
        try:
            self.wfile.write(f"{head}connection: close\r\n\r\n".encode())
            for piece in tape.pieces:
                if isinstance(piece, bytes):
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                else:
                    time.sleep(piece)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the client left

    def _read_request(self) -> bool:
        size = 0
        while line := self.rfile.readline():
            name, _, value = line.lower().partition(b":")
            if name == b"content-length":
                size = int(value)
            if line == b"\r\n":
                self.rfile.read(size)
                return True
        return False


class TapeServer(socketserver.ThreadingTCPServer):
    """Answers every request with the tape that was put in last."""

    allow_reuse_address = True
    daemon_threads = True
    tape = Tape(())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running_tape() -> Iterator[TapeServer]:
    with TapeServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="tape")
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
