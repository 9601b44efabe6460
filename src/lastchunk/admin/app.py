"""The admin listener: who may ask, how much, how long, and the one shape of every error."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
from aiohttp import web

from lastchunk.admin.auth import AdminKey
from lastchunk.admin.openapi import MAX_ID_CHARS, PATH, openapi_document
from lastchunk.admin.operation import READ_SECONDS, STATUS, Asked, Operation, Problem, too_long
from lastchunk.admin.operations import OPERATIONS
from lastchunk.admin.schema import Answer, Error, ErrorAnswer
from lastchunk.admin.sources import Reload, Sources
from lastchunk.errors import CallNotFound, KeyNotFound, LedgerUnavailable, SettingsError

MAX_BODY_BYTES = 64 * 1024
"""The largest body that means anything here is a key's patterns, some 40 KB."""

LINE_BYTES = 64 * 1024
"""The longest request line: all filters at their longest, percent-encoded, take 20 KB."""

BODY_SECONDS = 10.0
"""How long a body may take to arrive."""

THREADS = 5
"""Answers in the making: one may be an audit, and a Reader has four connections."""

SLACK_SECONDS = 1.0
"""What looks at its deadline gives up by itself within this time; its own words are better."""

CLOSE_SECONDS = 1.0

log = logging.getLogger("lastchunk.admin")

_parser_log = logging.getLogger("lastchunk.admin.parser")
_parser_log.disabled = True
"""aiohttp quotes the bytes that it cannot read, and a key may be among them."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class AdminOptions:
    """Where it listens. `shares_port`: a successor may listen before this one has closed."""

    key: AdminKey
    host: str = "127.0.0.1"
    port: int = 8791
    shares_port: bool = False


class AdminServer:
    """A listener of its own: `async with AdminServer(options, sources) as admin: admin.url`."""

    def __init__(self, options: AdminOptions, sources: Sources) -> None:
        self._options = options
        self._sources = sources
        self._document = msgspec.json.encode(openapi_document())
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="admin")
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guarded])
        app.router.add_route("GET", PATH, self._openapi)
        for operation in OPERATIONS:
            app.router.add_route(operation.method, operation.path, self._handler(operation))
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_parser_log,
            shutdown_timeout=CLOSE_SECONDS,
            max_line_size=LINE_BYTES,
        )
        self.url = ""

    async def __aenter__(self) -> AdminServer:
        """Raises SettingsError where the address cannot be listened on."""
        host, port = self._options.host, self._options.port
        self._sources.run_reload = self._reloading(asyncio.get_running_loop())
        await self._runner.setup()
        try:
            shares = True if self._options.shares_port else None
            await web.TCPSite(self._runner, host, port, reuse_port=shares).start()
        except OSError as error:
            await self.__aexit__()
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror
            raise SettingsError(
                f"the admin API cannot listen on {host}:{port}: {reason}"
            ) from error
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sources.stopping.set()
        await self._runner.cleanup()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._sources.close)

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The key before all else, and every failure in one shape."""
        try:
            if request.path != PATH:
                self._check_key(request)
            response = await handler(request)
        except Problem as problem:
            response = _refused(problem)
        except web.HTTPException as error:
            response = _refused(_problem_of(error))
        except Exception as error:  # a fault of ours must not show a stack to anybody
            log.error("the admin API failed at %s: %s", request.method, type(error).__name__)
            response = _refused(Problem("failed", "The admin API itself failed: see the log."))
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _check_key(self, request: web.Request) -> None:
        given = request.headers.getall("Authorization", [])
        if len(given) != 1 or not self._options.key.opens(given[0]):
            message = "Send the admin key, and nothing else, as `Authorization: Bearer …`."
            raise Problem("unauthorized", message)

    def _handler(self, operation: Operation) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            deadline = time.monotonic() + operation.seconds
            item_id = request.match_info.get("id", "")
            if len(item_id) > MAX_ID_CHARS:
                raise Problem("not_found", "No id is so long.")
            asked = Asked(
                operation.read_query(_query(request)),
                operation.read_body(await _body(request, operation)),
                item_id,
                deadline,
            )
            return _json(await self._answer(operation, asked), operation.status)

        return handle

    async def _answer(self, operation: Operation, asked: Asked) -> Answer:
        loop = asyncio.get_running_loop()
        answering = loop.run_in_executor(self._threads, operation.respond, self._sources, asked)
        try:
            return await asyncio.wait_for(answering, operation.seconds + SLACK_SECONDS)
        except TimeoutError:
            raise too_long() from None
        except (CallNotFound, KeyNotFound) as error:
            raise Problem("not_found", str(error)) from None
        except LedgerUnavailable as error:
            log.warning("the admin API cannot read the ledger: %s", error)
            raise Problem("ledger_unavailable", str(error)) from None

    async def _openapi(self, _: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    def _reloading(self, loop: asyncio.AbstractEventLoop) -> Callable[[Reload], None]:
        def run(reload: Reload) -> None:
            async def on_the_loop() -> None:
                await reload()

            asyncio.run_coroutine_threadsafe(on_the_loop(), loop).result(READ_SECONDS)

        return run


def _query(request: web.Request) -> dict[str, str]:
    given = dict(request.query)
    if len(given) < len(request.query):
        raise Problem("invalid", "query: a parameter is given twice")
    return given


async def _body(request: web.Request, operation: Operation) -> bytes:
    if operation.body is None:
        return b""
    if request.body_exists and request.content_type != "application/json":
        raise Problem("wrong_content_type", "Send the body as `content-type: application/json`.")
    try:
        return await asyncio.wait_for(request.read(), BODY_SECONDS)
    except TimeoutError:
        message = f"The body did not arrive within {BODY_SECONDS:.0f} s."
        raise Problem("too_slow_body", message) from None


def _problem_of(error: web.HTTPException) -> Problem:
    """What aiohttp itself says no to."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        return Problem("method_not_allowed", f"There is only {allow} here.", allow=allow)
    if isinstance(error, web.HTTPNotFound):
        return Problem("not_found", f"There is nothing here: see {PATH}.")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return Problem("body_too_large", f"A body may have {MAX_BODY_BYTES:,} bytes.")
    return Problem("bad_request", error.reason)


def _refused(problem: Problem) -> web.Response:
    answer = ErrorAnswer(error=Error(code=problem.code, message=problem.message))
    response = _json(answer, STATUS[problem.code])
    if problem.code == "unauthorized":
        response.headers["WWW-Authenticate"] = 'Bearer realm="lastchunk admin"'
    if problem.allow is not None:
        response.headers["Allow"] = problem.allow
    return response


def _json(answer: Answer, status: int) -> web.Response:
    body = msgspec.json.encode(answer)
    return web.Response(body=body, status=status, content_type="application/json")
