"""A bare HTTP client for these tests: it sees how a body ends, which real clients hide."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any, Literal

from lastchunk.simulator import Script, Simulator, write_script

CHAT: dict[str, Any] = {
    "model": "gpt-4o",
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [{"role": "user", "content": "hello"}],
}
RESPONSES: dict[str, Any] = {"model": "gpt-4o", "stream": True, "input": "hello"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    terminated: bool  # the last, empty HTTP chunk came
    ended: Literal["fin", "rst", "timeout"]

    @property
    def events(self) -> list[dict[str, Any]]:
        return events(self.body)


def events(body: bytes) -> list[dict[str, Any]]:
    """The data of each event, [DONE] left out."""
    lines = body.decode().splitlines()
    data = [line[5:].strip() for line in lines if line.startswith("data:")]
    return [json.loads(text) for text in data if text != "[DONE]"]


def connect(
    sim: Simulator,
    body: dict[str, Any] | bytes,
    *,
    script: Script | None = None,
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    timeout: float = 10.0,
) -> socket.socket:
    """Send a request and hand back the socket, unread."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"host": "sim", "content-length": str(len(payload)), **(headers or {})}
    if script is not None:
        fields["x-sim"] = write_script(script)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    connection = socket.create_connection(("127.0.0.1", sim.port), timeout=timeout)
    connection.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + payload)
    return connection


def ask(
    sim: Simulator,
    body: dict[str, Any] | bytes,
    *,
    script: Script | None = None,
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    timeout: float = 10.0,
) -> Answer:
    """Send a request and read until the server ends the connection or falls silent."""
    fields = {"connection": "close", **(headers or {})}
    with connect(
        sim, body, script=script, path=path, headers=fields, timeout=timeout
    ) as connection:
        raw, ended = read_to_end(connection)
    head, _, rest = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    status = int(lines[0].split(" ")[1]) if lines[0] else 0
    pairs = (line.partition(": ") for line in lines[1:])
    told = {name.lower(): value for name, _, value in pairs}
    chunked = told.get("transfer-encoding") == "chunked"
    data, terminated = dechunk(rest) if chunked else (rest, True)
    return Answer(status, told, data, terminated, ended)


def read_to_end(connection: socket.socket) -> tuple[bytes, Literal["fin", "rst", "timeout"]]:
    raw = b""
    try:
        while piece := connection.recv(65_536):
            raw += piece
    except TimeoutError:
        return raw, "timeout"
    except ConnectionResetError:
        return raw, "rst"
    return raw, "fin"


def dechunk(raw: bytes) -> tuple[bytes, bool]:
    data = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return data, True
        data, raw = data + raw[:length], raw[length + 2 :]
    return data, False
