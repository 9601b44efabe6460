"""Recorded exchanges, read one line at a time: a file larger than memory is no problem."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, cast

import msgspec

from lastchunk.wire.dialect import Dialect

MAX_LINE_BYTES = 256 * 1024 * 1024
"""A longer line is passed over: no provider takes a request that large."""

REMEMBERED_REQUESTS = 1_000_000
"""Hashes kept to know a repeated request, about 100 MB of them; beyond, the oldest is forgotten."""


AZURE_HOST = "recorded.openai.azure.com"
"""Stands for the host of an Azure recording: its own name is a customer's, and is taken out."""


class Endpoint(StrEnum):
    """What was called, as the recording's path names it."""

    CHAT = "chat"
    RESPONSES = "responses"
    INPUT_TOKENS = "input_tokens"
    """`/responses/input_tokens`: the prompt side only."""
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"

    @property
    def dialect(self) -> Dialect:
        """How its prompt is read; embeddings as a legacy prompt: plain text without a frame."""
        if self in (Endpoint.RESPONSES, Endpoint.INPUT_TOKENS):
            return Dialect.RESPONSES
        return Dialect.CHAT if self is Endpoint.CHAT else Dialect.COMPLETIONS

    @property
    def answers(self) -> bool:
        """Whether there is an output to count."""
        return self in (Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.COMPLETIONS)


class Skipped(StrEnum):
    """Why a line was not judged."""

    MALFORMED = "malformed"
    REPEATED = "repeated request"
    ENDPOINT = "another API"
    FAILED = "refused or failed"
    REQUEST = "no request"
    USAGE = "no usage"


@dataclass(frozen=True, slots=True, repr=False)
class Exchange:
    """One recorded request with its answer and the provider's own usage. Holds content.

    `provider` is the recorder's name for who answered, or the host; `upstream` the host by which
    live calls would know it; `served` the model that the answer names, as noted. `created_at` is
    the answer's own time in Unix seconds, None if it has none.
    """

    endpoint: Endpoint
    provider: str
    upstream: str
    path: str
    served: str | None
    status: int
    content_type: str
    request: Mapping[str, object]
    request_bytes: int
    answer: bytes
    usage: Mapping[str, object]
    created_at: int | None

    @property
    def created_ms(self) -> int | None:
        """The answer's own time in Unix milliseconds, None if it has none."""
        return None if self.created_at is None else self.created_at * 1000


@dataclass(frozen=True, slots=True)
class Line:
    """Where a line stands. `bytes_read` of the file on disk, compressed as it is."""

    path: Path
    number: int
    bytes_read: int


_ENDS: tuple[tuple[str, Endpoint], ...] = (
    ("/chat/completions", Endpoint.CHAT),
    ("/responses/input_tokens", Endpoint.INPUT_TOKENS),
    ("/responses", Endpoint.RESPONSES),
    ("/completions", Endpoint.COMPLETIONS),
    ("/embeddings", Endpoint.EMBEDDINGS),
)


def read_lines(path: Path) -> Iterator[tuple[Line, bytes | None]]:
    """The lines of a plain or gzipped file that are not empty; None for one that is too long.

    Raises OSError where the file cannot be read, EOFError where it is cut short.
    """
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        lines = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if zipped else raw
        number = 0
        while line := lines.readline(MAX_LINE_BYTES):
            number += 1
            place = Line(path, number, raw.tell())
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                while (rest := lines.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield place, None
            elif line.strip():
                yield place, line


def read_exchange(line: bytes) -> Exchange | Skipped:
    """One line of the corpus format; never raises. Fields that are not needed may be missing."""
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Skipped.MALFORMED
    if not isinstance(fields, dict):
        return Skipped.MALFORMED
    endpoint = _endpoint(fields)
    if endpoint is None:
        return Skipped.ENDPOINT
    request, usage = fields.get("request"), fields.get("usage")
    provider = _text(fields.get("provider")) or _text(fields.get("host"))
    path = _text(fields.get("path"))
    is_azure = provider == "azure" or path.startswith("/openai/deployments/")
    status = fields.get("status")
    if not isinstance(status, int):
        status = 200
    if not 200 <= status < 300:
        return Skipped.FAILED
    if not isinstance(request, dict) or not request:
        return Skipped.REQUEST
    return Exchange(
        endpoint=endpoint,
        provider=provider,
        upstream=AZURE_HOST if is_azure else _upstream(_text(fields.get("host")) or provider),
        path=path,
        served=_text(fields.get("response_model")) or None,
        status=status,
        content_type=_text(fields.get("content_type")),
        request=request,
        request_bytes=len(line),
        answer=_text(fields.get("body")).encode("utf-8", "replace"),
        usage=usage if isinstance(usage, dict) else {},
        created_at=_created_at(fields.get("body")),
    )


_HOSTS = {
    "copilot": "api.githubcopilot.com",
    "openai": "api.openai.com",
    "openrouter": "openrouter.ai",
}
"""Who answered by the recorder's name, where a recording does not keep the host."""


def _upstream(host: str) -> str:
    return _HOSTS.get(host, host)


def _endpoint(fields: Mapping[str, object]) -> Endpoint | None:
    for key in ("path", "endpoint"):
        path = _text(fields.get(key)).partition("?")[0].rstrip("/")
        for end, endpoint in _ENDS:
            if path.endswith(end) or path == end[1:]:
                return endpoint
    return None


_CREATED = re.compile(r'"created(?:_at)?":\s*(\d{9,10})\b')
_HEAD_CHARACTERS = 1024 * 1024


def _created_at(body: object) -> int | None:
    found = _CREATED.search(_text(body)[:_HEAD_CHARACTERS])
    return int(found[1]) if found else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


class Requests:
    """Remembers which requests were judged, by a hash of request and endpoint."""

    def __init__(self, most: int = REMEMBERED_REQUESTS) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._most = most

    def is_new(self, exchange: Exchange) -> bool:
        """Whether no judged exchange had this request; it is remembered from now on."""
        asked = msgspec.json.encode(exchange.request)
        where = f"{exchange.endpoint} {exchange.upstream}\0".encode("utf-8", "replace")
        digest = hashlib.blake2b(where + asked, digest_size=12).digest()
        if digest in self._known:
            return False
        self._known[digest] = None
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return True
