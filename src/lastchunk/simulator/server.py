"""The HTTP face of the simulated provider: routes, refusals, and one handler for every call."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from lastchunk.simulator import refusals
from lastchunk.simulator.answer import (
    Visit,
    as_scripted,
    bill_for,
    ended_by_itself,
    plan_answer,
    seed_of,
)
from lastchunk.simulator.bill import Bill, billed_json
from lastchunk.simulator.embeddings import embeddings_answer, models_answer
from lastchunk.simulator.faults import Outgoing, misbehave
from lastchunk.simulator.frames import Plan
from lastchunk.simulator.provider_counts import Endpoint, Json
from lastchunk.simulator.refusals import Refusal
from lastchunk.simulator.script import BadScript, Fault, Script, draw_script, read_script
from lastchunk.simulator.sending import ClientGone, Sender, close, reset
from lastchunk.simulator.turn import take_up

# A waiting reader holds a thread, and the server's end waits for it.
LONGEST_BILL_WAIT_S = 10.0
MAX_REQUEST_BYTES = 64 * 1024 * 1024
_ENDPOINTS: tuple[Endpoint, ...] = ("chat/completions", "completions", "responses", "embeddings")


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request, read."""

    request: web.Request
    number: int
    endpoint: Endpoint
    body: Json
    script: Script
    seed: str
    visit: Visit
    attempt: int

    @property
    def fault(self) -> Fault | None:
        """The script's fault, until its count of attempts is used up."""
        fault = self.script.fault
        if fault is None or fault.count is None or self.attempt < fault.count:
            return fault
        return None


class Provider:
    """Answers requests and keeps the bill. `script` None draws one for each call from `seed`."""

    def __init__(self, script: Script | None, seed: int) -> None:
        self.bill = Bill()
        self._default = script
        self._seed = seed
        self._numbers = itertools.count(1)
        self._queued: deque[Script] = deque()
        self._attempts: dict[str, int] = {}
        self._lock = threading.Lock()
        self.stopping = False

    def queue(self, *scripts: Script) -> None:
        with self._lock:
            self._queued.extend(scripts)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get("/_bill", self._bill)
        app.router.add_delete("/_bill", self._reset_bill)
        app.router.add_get("/_bill/{call}", self._billed_call)
        app.router.add_get("/_open", self._open)
        app.router.add_route("*", "/{path:.*}", self._any)
        return app

    # --- the bill over HTTP ---

    async def _bill(self, request: web.Request) -> web.Response:
        """All calls; `?wait_s=2` waits so long for those that are still open."""
        if wait := request.query.get("wait_s"):
            seconds = min(float(wait), LONGEST_BILL_WAIT_S)
            await asyncio.to_thread(self.bill.wait_until_settled, seconds)
        return _json(self.bill.as_json())

    async def _open(self, request: web.Request) -> web.Response:
        return _json(self.bill.under_way())

    async def _reset_bill(self, request: web.Request) -> web.Response:
        self.bill.clear()
        return web.Response(status=204)

    async def _billed_call(self, request: web.Request) -> web.Response:
        wanted = request.match_info["call"]
        for call in self.bill.calls():
            if wanted in (str(call.call), call.response_id):
                return _json(billed_json(call))
        return _refused(refusals.not_found(request.path))

    # --- calls ---

    async def _any(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if request.method == "GET" and path.endswith("/models"):
            return _json(models_answer())
        endpoint = next((e for e in _ENDPOINTS if path.endswith(f"/{e}")), None)
        if endpoint is None or request.method != "POST":
            return _refused(refusals.not_found(f"{request.method} {request.path}"))
        with self.bill.open_call(_tag(request)):
            return await self._call(request, endpoint)

    async def _call(self, request: web.Request, endpoint: Endpoint) -> web.StreamResponse:
        raw = await request.read()
        number = next(self._numbers)
        try:
            asked = self._read(request, endpoint, raw, number)
            fault = asked.fault
            if fault is not None and (refusal := refusals.by_fault(fault, asked.body)):
                raise refusal
            if refusal := refusals.by_script(asked.script, asked.body):
                raise refusal
            if endpoint == "embeddings":
                return self._embeddings(asked)
            plan = _plan(asked)
        except Refusal as refusal:
            return self._refuse(refusal, number, endpoint, _visit(request))
        outgoing = misbehave(plan, fault)
        if fault is not None and fault.kind in ("rst_before_headers", "stall_before_headers"):
            return await self._silence(asked, fault, plan, outgoing)
        return await self._answer(asked, plan, outgoing)

    def _read(self, request: web.Request, endpoint: Endpoint, raw: bytes, number: int) -> _Asked:
        """The request as the provider understands it; raises Refusal."""
        try:
            body = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            raise refusals.malformed() from None
        if not isinstance(body, dict):
            raise refusals.malformed()
        if "model" not in body and (deployment := _deployment(request.path)):
            body["model"] = deployment
        if not body.get("model"):
            raise refusals.no_model()
        if body["model"] == "missing-model":
            raise refusals.unknown_model(body["model"])
        try:
            script = as_scripted(self._script(request, number))
        except BadScript as error:
            raise refusals.bad_script(str(error)) from None
        seed = seed_of(self._seed, body)
        visit = _visit(request)
        counted = script.fault is not None and script.fault.count is not None
        attempt = self._attempt(request, f"{visit.tag}:{seed}") if counted else 0
        return _Asked(request, number, endpoint, body, script, seed, visit, attempt)

    def _script(self, request: web.Request, number: int) -> Script:
        default = self._default
        if header := request.headers.get("x-sim"):
            return read_script(header, default or Script())
        with self._lock:
            if self._queued:
                return self._queued.popleft()
        return default if default is not None else draw_script(self._seed, number)

    def _attempt(self, request: web.Request, key: str) -> int:
        """How many attempts of this call came before; SDKs say so, others are counted here."""
        told = request.headers.get("x-stainless-retry-count", "")
        if told.isdigit():
            return int(told)
        before = self._attempts.get(key, 0)
        self._attempts[key] = before + 1
        return before

    def _refuse(
        self, refusal: Refusal, number: int, endpoint: Endpoint, visit: Visit
    ) -> web.Response:
        self.bill.add(refusals.unbilled(refusal, number, endpoint, visit))
        return _refused(refusal)

    async def _silence(
        self, asked: _Asked, fault: Fault, plan: Plan, outgoing: Outgoing
    ) -> web.StreamResponse:
        """The provider took the request up (and bills it), but no header ever leaves."""
        try:
            if fault.kind == "stall_before_headers":
                self.bill.held(asked.visit.tag)
                await asyncio.sleep(fault.seconds)
                close(asked.request)
            else:
                await reset(asked.request)
        finally:
            ended = f"fault:{fault.kind}"
            self.bill.add(bill_for(plan, outgoing, 0, partly=False, ended=ended, visit=asked.visit))
        return web.Response(status=503)  # never seen: the connection is gone

    def _embeddings(self, asked: _Asked) -> web.Response:
        body, billed = embeddings_answer(asked.number, asked.body, asked.script, asked.visit)
        self.bill.add(billed)
        return _json(body)

    async def _answer(self, asked: _Asked, plan: Plan, outgoing: Outgoing) -> web.StreamResponse:
        gzip = _wants_gzip(asked)
        response = _open_response(asked, plan, gzip=gzip)
        hold = partial(self.bill.held, asked.visit.tag)
        sender = Sender(asked.request, response, asked.script, gzip=gzip, hold=hold)
        ended = "client_gone"
        try:
            if not plan.call.streamed:
                await sender.think(len(plan.ids))
            await response.prepare(asked.request)
            await sender.send(outgoing, streamed=plan.call.streamed)
            ended = ended_by_itself(plan, outgoing)
        except (ClientGone, ConnectionError):
            pass
        except asyncio.CancelledError:
            if sender.progress.sent == len(outgoing.frames):
                ended = ended_by_itself(plan, outgoing)  # it left a stall, or after the end
            elif self.stopping:
                ended = "shutdown"
            raise
        finally:
            progress = sender.progress
            self.bill.add(
                bill_for(
                    plan,
                    outgoing,
                    progress.sent,
                    partly=progress.partly,
                    ended=ended,
                    visit=asked.visit,
                )
            )
        return response


def _plan(asked: _Asked) -> Plan:
    try:
        call = take_up(
            number=asked.number,
            endpoint=asked.endpoint,
            body=asked.body,
            script=asked.script,
            seed=asked.seed,
            created=int(asked.visit.at),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The body is JSON, but not of the API's shape: the client's fault, and told as such.
        raise refusals.unreadable(repr(error)) from error
    return plan_answer(call)


def _visit(request: web.Request) -> Visit:
    told = request.headers.get("x-stainless-retry-count", "0")
    retries = int(told) if told.isdigit() else 0
    return Visit(time.time(), retries, _tag(request))


def _tag(request: web.Request) -> str | None:
    return request.headers.get("x-sim-tag")


def _deployment(path: str) -> str | None:
    """The model in an Azure path: /openai/deployments/{model}/..."""
    steps = path.split("/")
    if "deployments" in steps[:-1]:
        return steps[steps.index("deployments") + 1]
    return None


def _wants_gzip(asked: _Asked) -> bool:
    match asked.script.gzip:
        case "no":
            return False
        case "forced":
            return True
        case "accepted":
            return "gzip" in asked.request.headers.get("accept-encoding", "")


def _open_response(asked: _Asked, plan: Plan, *, gzip: bool) -> web.StreamResponse:
    headers = {
        "content-type": plan.content_type,
        "x-request-id": f"req_{asked.number:032x}",
        "x-sim-call": str(asked.number),
        "openai-version": "2020-10-01",
        "openai-processing-ms": "7",
    }
    if gzip:
        headers["content-encoding"] = "gzip"
    if plan.call.streamed:
        headers["cache-control"] = "no-cache"
    response = web.StreamResponse(headers=headers)
    if plan.call.streamed or gzip:
        response.enable_chunked_encoding()
    else:  # of the whole answer: a fault that cuts it must be felt as a cut
        response.content_length = sum(len(frame.data) for frame in plan.frames)
    return response


def _json(body: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _refused(refusal: Refusal) -> web.Response:
    return web.Response(
        status=refusal.status,
        body=msgspec.json.encode({"error": refusal.error}),
        content_type="application/json",
        headers=refusal.headers,
    )
