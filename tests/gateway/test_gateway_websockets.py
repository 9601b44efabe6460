"""WebSockets pass message by message, unmetered, and the answer says so."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from gateway_stage import Behind, until
from raw_http import answer_bytes, exchange, raw_upstream
from yarl import URL

Handling = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextmanager
def upstream_of(handle: Handling) -> Iterator[str]:
    """An aiohttp server in a thread."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True)

    async def start() -> str:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(5)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


class Echo:
    """Sends back what it gets; closes with 4001 when told `close`."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.target = ""
        self.closed_with: list[int | None] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        self.target = request.raw_path
        socket = web.WebSocketResponse(protocols=("realtime",), autoping=False, max_msg_size=0)
        await socket.prepare(request)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and message.data == "close":
                    await socket.close(code=4001, message=b"enough")
                elif message.type is WSMsgType.TEXT:
                    await socket.send_str(message.data)
                elif message.type is WSMsgType.BINARY:
                    await socket.send_bytes(message.data)
                elif message.type is WSMsgType.PING:
                    await socket.pong(message.data)
        finally:
            self.closed_with.append(socket.close_code)
        return socket


def run(talk: Callable[[aiohttp.ClientSession], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with aiohttp.ClientSession() as session:
            return await asyncio.wait_for(talk(session), 10)

    return asyncio.run(main())


def test_messages_pings_and_the_close_pass_both_ways(behind: Behind) -> None:
    echo = Echo()
    with upstream_of(echo.handle) as url:
        stage = behind(url)
        target = "/v1/realtime?model=gpt-realtime&x=%2F"
        big = b"\x01" * 5_000_000

        async def talk(session: aiohttp.ClientSession) -> Any:
            headers = stage.headers | {"Authorization": "Bearer sk-1", "OpenAI-Beta": "realtime=v1"}
            async with session.ws_connect(
                URL(f"{stage.gateway.url}{target}", encoded=True),
                headers=headers,
                protocols=("other", "realtime"),
                autoping=False,
                max_msg_size=0,
            ) as socket:
                await socket.send_str("hällo")
                await socket.send_bytes(big)
                await socket.ping(b"p")
                told = [await socket.receive() for _ in range(3)]
                await socket.send_str("close")
                last = await socket.receive()
                return socket.protocol, told, (last.type, last.data, last.extra)

        protocol, told, last = run(talk)
        until(lambda: echo.closed_with, "closed at the upstream")
    assert protocol == "realtime"
    assert [message.data for message in told] == ["hällo", big, b"p"]
    assert [message.type for message in told] == [WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PONG]
    assert last == (WSMsgType.CLOSE, 4001, "enough")
    assert echo.target == target
    assert (echo.headers["authorization"], echo.headers["openai-beta"]) == (
        "Bearer sk-1",
        "realtime=v1",
    )
    assert not [name for name in echo.headers if name.startswith("x-lastchunk")]
    stage.rows(0)


@pytest.mark.parametrize("way", ["close", "abort"])
def test_a_caller_who_leaves_is_gone_for_the_upstream_too(behind: Behind, way: str) -> None:
    echo = Echo()
    with upstream_of(echo.handle) as url:
        stage = behind(url)

        async def talk(session: aiohttp.ClientSession) -> None:
            socket = await session.ws_connect(f"{stage.gateway.url}/v1/realtime")
            await socket.send_str("1")
            await socket.receive()
            if way == "close":
                await socket.close(code=4002)
            else:
                transport = socket.get_extra_info("socket")
                assert transport is not None
                socket._response.connection.transport.abort()  # type: ignore[union-attr]

        run(talk)
        until(lambda: echo.closed_with, "closed at the upstream", 2)
    assert echo.closed_with == [4002 if way == "close" else 1001]


def test_it_is_said_to_be_unmetered(behind: Behind) -> None:
    with upstream_of(Echo().handle) as url:
        stage = behind(url)

        async def talk(session: aiohttp.ClientSession) -> Any:
            async with session.ws_connect(f"{stage.gateway.url}/v1/realtime") as socket:
                return socket._response.headers.get("x-lastchunk-unmetered")

        assert run(talk) == "a websocket"
        health = json.loads(exchange(stage.gateway.port, "GET", "/healthz").body)
    assert health["unmetered_requests"] == 1


@pytest.mark.parametrize(("status", "told"), [("401 Unauthorized", 401), ("200 OK", 502)])
def test_an_upstream_that_takes_none_is_told(behind: Behind, status: str, told: int) -> None:
    offered = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with raw_upstream(answer_bytes(b"no", status)) as upstream:
        stage = behind(upstream.url)
        answer = exchange(stage.gateway.port, "GET", "/v1/realtime", offered)
        nobody = exchange(behind("http://127.0.0.1:9").gateway.port, "GET", "/v1", offered)
    assert answer.status == told
    assert json.loads(answer.body)["error"]["code"] == "upstream_refused_websocket"
    assert (nobody.status, json.loads(nobody.body)["error"]["code"]) == (
        502,
        "upstream_unreachable",
    )


def test_an_open_socket_does_not_stop_a_stop(behind: Behind) -> None:
    with upstream_of(Echo().handle) as url:
        stage = behind(url, stop_seconds=0.2)

        async def talk(session: aiohttp.ClientSession) -> Any:
            async with session.ws_connect(f"{stage.gateway.url}/v1/realtime") as socket:
                stage.gateway.ask_to_stop()
                return (await socket.receive()).type

        assert run(talk) in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        until(lambda: not stage.gateway.is_running, "stopped")
    assert stage.gateway.tasks_left == set()
