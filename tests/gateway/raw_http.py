"""Bare sockets on both sides of the gateway: what was really sent, and how a body really ended."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

SECONDS = 10.0


@dataclass(frozen=True)
class Heard:
    """A request or an answer as it came over the wire."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool = True
    """The body ended as its framing says."""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def header(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])


class Reading:
    """Reads HTTP messages from one socket, strictly."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.waiting = b""

    def more(self) -> bool:
        try:
            piece = self.connection.recv(65_536)
        except ConnectionResetError:
            return False
        self.waiting += piece
        return bool(piece)

    def head(self) -> tuple[str, list[tuple[str, str]]] | None:
        while b"\r\n\r\n" not in self.waiting:
            if not self.more():
                return None
        head, _, self.waiting = self.waiting.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        pairs = [field.partition(":") for field in fields]
        return line, [(name, value.strip()) for name, _, value in pairs]

    def message(self, *, is_answer: bool = False, bodiless: bool = False) -> Heard | None:
        """The next message, or None at the end of the connection."""
        if (head := self.head()) is None:
            return None
        line, headers = head
        told = {name.lower(): value for name, value in headers}
        if is_answer and line.split(" ")[1] in ("100", "204", "304"):
            bodiless = True
        if bodiless:
            return Heard(line, headers, b"")
        if told.get("transfer-encoding", "").lower() == "chunked":
            return Heard(line, headers, *self._chunked())
        if "content-length" in told:
            return Heard(line, headers, *self._sized(int(told["content-length"])))
        if not is_answer:
            return Heard(line, headers, b"")
        while self.more():
            pass
        body, self.waiting = self.waiting, b""
        return Heard(line, headers, body)

    def _sized(self, size: int) -> tuple[bytes, bool]:
        pieces, missing = [], size
        while missing and (self.waiting or self.more()):
            piece, self.waiting = self.waiting[:missing], self.waiting[missing:]
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces), not missing

    def _chunked(self) -> tuple[bytes, bool]:
        body = bytearray()
        while True:
            while b"\r\n" not in self.waiting:
                if not self.more():
                    return bytes(body), False
            size, _, self.waiting = self.waiting.partition(b"\r\n")
            length = int(size.split(b";")[0], 16)
            piece, whole = self._sized(length + 2)
            body += piece[:length]
            if not whole:
                return bytes(body), False
            if not length:
                return bytes(body), True


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request_bytes(
    method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> bytes:
    """A request; of a body its length is told, unless the headers tell something else."""
    told = {"Host": "gateway.test"} | (headers or {})
    names = {name.lower() for name in told}
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        told["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")


def exchange(
    port: int,
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Heard:
    """One request on a connection of its own, and its answer."""
    return exchange_raw(port, request_bytes(method, target, headers, body), method == "HEAD")


def exchange_raw(port: int, request: bytes, bodiless: bool = False) -> Heard:
    with connect(port) as connection:
        connection.sendall(request)
        answer = Reading(connection).message(is_answer=True, bodiless=bodiless)
    assert answer is not None
    return answer


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    """Pieces as HTTP chunks."""
    told = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return told + (b"0\r\n\r\n" if end else b"")


def answer_bytes(
    body: bytes = b"", status: str = "200 OK", headers: list[tuple[str, str]] | None = None
) -> bytes:
    """An answer with its length told, unless it is chunked."""
    told = list(headers or [])
    names = {name.lower() for name, _ in told}
    if not names & {"content-length", "transfer-encoding"}:
        told.append(("Content-Length", str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in told)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body


EVENT_STREAM = [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")]


def stream_head(*more: tuple[str, str]) -> bytes:
    return answer_bytes(b"", headers=[*EVENT_STREAM, *more])


def reset(connection: socket.socket) -> None:
    """RST: what closing a socket sends whose linger time is zero."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


Answering = Callable[[socket.socket, Heard], Any]


@dataclass
class RawUpstream:
    """A provider made of bytes: `answer` writes to the socket whatever it likes."""

    answer: Answering
    heard: list[Heard] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    """Set when the gateway has closed a connection."""
    listener: socket.socket = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reading = Reading(connection)
            while (heard := reading.message()) is not None:
                self.heard.append(heard)
                if self.answer(connection, heard) is False:
                    break
        self.gone.set()


@contextmanager
def raw_upstream(answer: Answering | bytes) -> Iterator[RawUpstream]:
    if isinstance(answer, bytes):
        told = answer
        upstream = RawUpstream(lambda connection, _: connection.sendall(told))
    else:
        upstream = RawUpstream(answer)
    upstream.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    threading.Thread(target=upstream._accept, daemon=True).start()
    try:
        yield upstream
    finally:
        upstream.listener.close()
