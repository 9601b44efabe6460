"""One streamed call over a bare socket: thousands of them at once cost a client little."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lastchunk.simulator import Script, write_script

BEGINNING_BYTES = 2_048
TAIL_BYTES = 2_048
"""What is kept of an answer: its head, and the last frames."""

DONE = b"data: [DONE]"

_PIECE_BYTES = 65_536


@dataclass(slots=True, eq=False)
class Reply:
    """What has come of an answer so far."""

    beginning: bytes = b""
    tail: bytes = b""

    def hear(self, piece: bytes) -> None:
        if len(self.beginning) < BEGINNING_BYTES:
            self.beginning += piece[:BEGINNING_BYTES]
        self.tail = (self.tail + piece)[-TAIL_BYTES:]

    @property
    def status(self) -> int | None:
        """None: not even the first line came."""
        line = self.beginning.partition(b"\r\n")[0].split(b" ")
        return int(line[1]) if len(line) > 1 and line[1].isdigit() else None

    @property
    def is_whole(self) -> bool:
        return DONE in self.tail


def request_of(body: Mapping[str, Any], script: Script, headers: Mapping[str, str]) -> bytes:
    """A POST to chat/completions on a connection of its own."""
    raw = json.dumps(body).encode()
    given = {"host": "gateway", "connection": "close", "x-sim": write_script(script), **headers}
    given["content-length"] = str(len(raw))
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + raw


async def ask(port: int, request: bytes, reply: Reply, *, until: bytes = DONE) -> None:
    """Read the answer until its end, or until `until` was read; then close, as on cancellation.

    Raises OSError where the connection is refused or breaks.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        while piece := await reader.read(_PIECE_BYTES):
            reply.hear(piece)
            if until in reply.tail:
                return
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def raise_file_limit(files: int) -> None:
    """So many files may be open in this process and those that it starts, as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files if hard == resource.RLIM_INFINITY else min(files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
