"""One sending of one request: opened before it leaves, ended whatever becomes of it.

What `send` does is the same for sync and async clients and for httpx and httpx2; it is all here.
Only waiting and reading, which are not the same, are in `sending` and `streams`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from lastchunk.asking import Question
from lastchunk.bookkeeper import Bookkeeper
from lastchunk.errors import LastchunkError, LedgerUnavailable
from lastchunk.exactness import is_exact_account
from lastchunk.instrument.labels import current_caller, is_exact_here, tell_watches
from lastchunk.instrument.process import asking, bookkeeper_for
from lastchunk.meter.ending import Stop
from lastchunk.metered_call import MeteredCall
from lastchunk.settings import Settings
from lastchunk.settlement.facts import Settlement
from lastchunk.startup import spool_options
from lastchunk.wire.dialect import dialect_of
from lastchunk.wire.request import Body, read_body
from lastchunk.wire.whole import ask_for_whole, wants_usage_chunk

CALL_ID_HEADER = "x-lastchunk-call-id"

log = logging.getLogger("lastchunk")

_last_attempt: ContextVar[tuple[bytes, str] | None] = ContextVar("lastchunk_attempt", default=None)
"""Fingerprint and call id of this context's latest first attempt: retries follow in the same."""

_NOT_CONNECTED = {
    "ConnectError",
    "ConnectTimeout",
    "PoolTimeout",
    "ProxyError",
    "UnsupportedProtocol",
}
_TIMED_OUT = {"ReadTimeout", "WriteTimeout"}

_CHANGED_HEADERS = ("content-length", "transfer-encoding", "accept-encoding")
"""What differs in the request that asks for usage."""


def stop_of(error: BaseException) -> Stop:
    """Why reading stopped, by the name of the error: httpx and httpx2 share names, not classes."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _NOT_CONNECTED:
        return Stop.NOT_CONNECTED
    if names & _TIMED_OUT:
        return Stop.TIMED_OUT
    if "TransportError" in names or "StreamError" in names:
        return Stop.CONNECTION_BROKE
    return Stop.CALLER_LEFT


class Attempt:
    """A request that is metered: `request` is what to send, `call` its account."""

    def __init__(
        self,
        request: Any,
        call: MeteredCall,
        *,
        plain: Any,
        body: bytes,
        parsed: Body,
        question: Question | None,
    ) -> None:
        self.request = request
        self.plain = plain
        self.call = call
        self.question = question
        """What we asked for, which is to be hidden from the caller."""
        self._body = body
        self._parsed = parsed

    @property
    def is_exact(self) -> bool:
        """The whole answer is asked for, to be replayed."""
        return self.call.call.request.exact

    @property
    def wants_usage_chunk(self) -> bool:
        """The caller of this stream asked for the usage chunk."""
        return wants_usage_chunk(self.call.call.request.dialect, self._parsed)

    def asking_less(self, metering: Metering, told: bytes) -> Attempt | None:
        """The next attempt, after the upstream refused to be asked so for usage."""
        assert self.question is not None
        asking.refused(self.call.call.request, self.question, told)
        root = self.call.call.attempt_of or self.call.call_id
        return metering.begin(self.plain, self._body, self._parsed, attempt_of=root)

    def give_back_request(self, response: Any) -> None:
        """The caller finds its own request in the answer, with what its hooks have added."""
        if self.request is self.plain or response.request is not self.request:
            return
        own = {name: self.plain.headers.get(name) for name in _CHANGED_HEADERS}
        self.plain.headers = self.request.headers
        for name, value in own.items():
            if value is None:
                self.plain.headers.pop(name, None)
            else:
                self.plain.headers[name] = value
        response.request = self.plain


class Metering:
    """What one instrumented client is metered with."""

    def __init__(self, settings: Settings, on_settled: Callable[[Settlement], None] | None) -> None:
        self.settings = settings
        self.spool = spool_options(settings)
        self._on_settled = on_settled

    def bookkeeper(self) -> Bookkeeper:
        """Looked up for each call: a forked child has another one."""
        return bookkeeper_for(self.settings)

    def attempt(self, request: Any) -> Attempt | None:
        """The request as one to be metered; None where it is not, or cannot be."""
        if dialect_of(request.method, request.url.path) is None:
            return None
        try:
            body: bytes = request.content
        except Exception:  # httpx's RequestNotRead: the body is a stream, or in parts
            body = b""
        parsed = read_body(body)
        if parsed is None:
            log.warning("a request to %s is not metered: no JSON object", request.url.path)
            return None
        return self.begin(request, body, parsed, attempt_of=_retried(request, body))

    def begin(
        self, request: Any, body: bytes, parsed: Body, *, attempt_of: str | None
    ) -> Attempt | None:
        """The call opened; None where that fails.

        Raises LedgerUnavailable where calls are refused while the ledger is away.
        """
        try:
            return self._begin(request, body, parsed, attempt_of)
        except LastchunkError as error:  # our failure is not the caller's, unless so set
            if isinstance(error, LedgerUnavailable) and not self.spool.passes:
                raise
            log.error("a call is not metered: %s", error)
        except Exception as error:  # as above
            log.error("a call is not metered: %s", type(error).__name__)
        return None

    def _begin(self, request: Any, body: bytes, parsed: Body, attempt_of: str | None) -> Attempt:
        url = request.url
        dialect = dialect_of(request.method, url.path)
        assert dialect is not None
        caller = current_caller(self.settings.account)
        whole, told = self._whole(caller.account, body, parsed)
        call = self.bookkeeper().open(
            dialect,
            whole or body,
            told,
            upstream=url.netloc.decode("ascii", "replace"),
            path=url.path,
            caller=caller,
            attempt_of=attempt_of,
            exact=whole is not None,
        )
        tell_watches(call)
        if self._on_settled is not None:
            call.settled.add_done_callback(self._tell)
        if attempt_of is None:
            _last_attempt.set((_fingerprint(request, body), call.call_id))
        question = None
        if whole is None:
            running = self.settings.running_usage
            question = asking.ask(call.call.request, body, parsed, running=running)
        asked = whole if question is None else question.body
        sent = request if asked is None else _with_content(request, asked)
        return Attempt(sent, call, plain=request, body=body, parsed=parsed, question=question)

    def _whole(self, account: str, body: bytes, parsed: Body) -> tuple[bytes | None, Body]:
        """In exact mode the body that asks for the whole answer; and the body that is sent."""
        if not (is_exact_here() or is_exact_account(account, self.settings.exact_accounts)):
            return None, parsed
        whole = ask_for_whole(body, parsed)
        told = None if whole is None else read_body(whole)
        return (None, parsed) if told is None else (whole, told)

    def _tell(self, settled: Any) -> None:
        assert self._on_settled is not None
        if settled.cancelled() or settled.exception() is not None:
            return
        try:
            self._on_settled(settled.result())
        except Exception as error:  # the user's callback must not stop the accountant
            log.error("on_settled raised %s", type(error).__name__)


def _retried(request: Any, body: bytes) -> str | None:
    """The first attempt's id where this is the SDK's own retry of it."""
    if request.headers.get("x-stainless-retry-count", "0") == "0":
        return None
    last = _last_attempt.get()
    return last[1] if last is not None and last[0] == _fingerprint(request, body) else None


def _fingerprint(request: Any, body: bytes) -> bytes:
    return hashlib.blake2b(str(request.url).encode() + b"\n" + body, digest_size=16).digest()


def _with_content(request: Any, content: bytes) -> Any:
    """The same request with another body, and no compressed answer: a frame is to be taken out."""
    headers = [
        (name, value)
        for name, value in request.headers.raw
        if name.lower().decode("latin-1") not in _CHANGED_HEADERS
    ]
    headers.append((b"accept-encoding", b"identity"))
    return type(request)(
        request.method,
        request.url,
        headers=headers,
        content=content,
        extensions=request.extensions,
    )
