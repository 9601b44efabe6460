"""Which clients can be instrumented, and what stays theirs."""

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
from in_process import CHAT, MODEL, STREAMED, Corner, assert_reported

import lastchunk
from lastchunk.ledger import Reader
from lastchunk.simulator import Script


def test_the_same_client_comes_back_and_twice_is_once(corner: Corner) -> None:
    client = openai.OpenAI(**corner.options())
    corner.stack.enter_context(client)
    assert corner.metered(client) is client
    assert type(client) is openai.OpenAI
    assert corner.metered(client) is client
    assert corner.metered(client._client) is client._client
    client.chat.completions.create(**CHAT)
    assert_reported(corner.row(), corner.billed()[0])


def test_a_client_that_is_no_longer_instrumented_is_as_before(corner: Corner) -> None:
    client = corner.client()
    before = dict(vars(openai.OpenAI(**corner.options())._client))
    assert lastchunk.uninstrument(client) is client
    assert vars(client._client).keys() == before.keys()
    client.chat.completions.create(**CHAT)
    corner.billed()
    corner.rows(0)
    lastchunk.uninstrument(client)
    corner.metered(client).chat.completions.create(**CHAT)
    assert_reported(corner.row(), corner.billed(2)[1])


def test_another_tools_send_is_kept(corner: Corner) -> None:
    client = openai.OpenAI(**corner.options())
    corner.stack.enter_context(client)
    seen: list[Any] = []
    original = client._client.send

    def send(request: Any, **options: Any) -> Any:
        seen.append(request)
        return original(request, **options)

    client._client.send = send  # type: ignore[method-assign]
    corner.metered(client).chat.completions.create(**CHAT)
    assert len(seen) == 1
    lastchunk.uninstrument(client)
    assert client._client.send is send
    assert_reported(corner.row(), corner.billed()[0])


def test_a_send_that_was_replaced_after_ours_is_not_thrown_away(corner: Corner) -> None:
    client = corner.client()
    ours = client._client.send
    client._client.send = lambda *a, **k: ours(*a, **k)  # type: ignore[method-assign]
    with pytest.raises(lastchunk.NotInstrumentable, match="another tool has replaced"):
        lastchunk.uninstrument(client)
    client._client.send = ours  # type: ignore[method-assign]
    lastchunk.uninstrument(client)
    assert "send" not in vars(client._client)


@pytest.mark.parametrize("thing", [object(), "gpt-4o", None, os, openai.OpenAI])
def test_what_is_no_client_is_refused_by_name(thing: Any) -> None:
    with pytest.raises(lastchunk.NotInstrumentable, match="is no client that lastchunk knows"):
        lastchunk.instrument(thing)


def test_copies_share_the_metering(corner: Corner) -> None:
    client = corner.client().with_options(timeout=20.0)
    client.chat.completions.create(**CHAT)
    assert_reported(corner.row(), corner.billed()[0])


def test_azure_clients(corner: Corner) -> None:
    def azure(kind: Any) -> Any:
        options = corner.options(Script(azure=True)) | {"api_version": "2024-10-21"}
        del options["base_url"]
        return corner.metered(kind(azure_endpoint=corner.sim.url, **options))

    with azure(openai.AzureOpenAI) as client:
        assert isinstance(client, openai.AzureOpenAI)
        assert client.chat.completions.create(**STREAMED).response.read()
        client.chat.completions.create(**CHAT)

    async def main() -> None:
        async with azure(openai.AsyncAzureOpenAI) as client:
            stream = await client.chat.completions.create(**STREAMED)
            assert any([chunk.choices async for chunk in stream])

    asyncio.run(main())
    for row, billed in zip(corner.rows(3), corner.billed(3), strict=True):
        assert row.call.request.model == MODEL
        assert_reported(row, billed)


@pytest.fixture
def default_client(corner: Corner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(openai, "api_key", "sk-test")
    monkeypatch.setattr(openai, "base_url", corner.sim.base_url)
    monkeypatch.setattr(openai, "default_headers", corner.headers())
    openai._reset_client()  # type: ignore[attr-defined]
    yield openai
    openai._load_client().close()  # type: ignore[attr-defined]
    openai._reset_client()  # type: ignore[attr-defined]


def test_the_modules_own_default_client(corner: Corner, default_client: Any) -> None:
    assert corner.metered(default_client) is openai
    chunks = list(openai.chat.completions.create(**STREAMED))
    assert all(chunk.choices for chunk in chunks)
    assert_reported(corner.row(), corner.billed()[0])


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_an_http_client_given_by_the_user(corner: Corner, package: Any) -> None:
    http = package.Client(headers={"x-mine": "1"})
    client = corner.client(http_client=http)
    assert client._client is http
    assert all(chunk.choices for chunk in client.chat.completions.create(**STREAMED))
    client.chat.completions.create(**CHAT)
    with client.chat.completions.with_streaming_response.create(**STREAMED) as response:
        assert isinstance(response.http_response, package.Response)
    for row, billed in zip(corner.rows(3)[:2], corner.billed(3)[:2], strict=True):
        assert_reported(row, billed)


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_an_async_http_client_given_by_the_user(corner: Corner, package: Any) -> None:
    async def main() -> None:
        async with corner.async_client(http_client=package.AsyncClient()) as client:
            stream = await client.chat.completions.create(**STREAMED)
            assert all([chunk.choices async for chunk in stream])
            await client.chat.completions.create(**CHAT)

    asyncio.run(main())
    for row, billed in zip(corner.rows(2), corner.billed(2), strict=True):
        assert_reported(row, billed)


def test_the_aiohttp_transport(corner: Corner) -> None:
    async def main() -> None:
        async with corner.async_client(http_client=openai.DefaultAioHttpClient()) as client:
            stream = await client.chat.completions.create(**STREAMED)
            assert all([chunk.choices async for chunk in stream])
            await client.responses.create(model=MODEL, input="hello")

    asyncio.run(main())
    for row, billed in zip(corner.rows(2), corner.billed(2), strict=True):
        assert_reported(row, billed)


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_an_http_client_without_any_sdk(corner: Corner, package: Any) -> None:
    http = corner.stack.enter_context(package.Client(base_url=corner.sim.base_url))
    corner.metered(http)
    answer = http.post("/chat/completions", json=CHAT, headers=corner.headers())
    assert answer.json()["usage"]
    with http.stream(
        "POST", "/chat/completions", json=STREAMED, headers=corner.headers()
    ) as response:
        lines = list(response.iter_lines())
    assert "data: [DONE]" in lines
    assert not any('"choices":[]' in line for line in lines)
    for row, billed in zip(corner.rows(2), corner.billed(2), strict=True):
        assert_reported(row, billed)


def test_hooks_proxies_mounts_and_transports_stay_as_they_were(corner: Corner) -> None:
    requests: list[Any] = []
    responses: list[Any] = []

    def sign(request: httpx2.Request) -> None:
        request.headers["x-signed"] = "yes"
        requests.append(request)

    transport = httpx2.HTTPTransport()
    http = httpx2.Client(
        event_hooks={"request": [sign], "response": [responses.append]},
        mounts={"http://127.0.0.1": transport},
    )
    client = corner.client(http_client=http)
    raw = client.chat.completions.with_raw_response.create(**STREAMED)
    assert all(chunk.choices for chunk in raw.parse())
    assert http.event_hooks == {"request": [sign], "response": [responses.append]}
    assert transport in http._mounts.values()
    assert len(requests) == len(responses) == 1
    assert raw.http_request.headers["x-signed"] == "yes"
    assert_reported(corner.row(), corner.billed()[0])


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_the_answer_knows_its_own_request_headers_and_time(corner: Corner, package: Any) -> None:
    http = corner.metered(corner.stack.enter_context(package.Client()))
    url = f"{corner.sim.base_url}/chat/completions"
    request = http.build_request("POST", url, json=STREAMED, headers=corner.headers())
    before = (request.content, dict(request.headers))
    answer = http.send(request, stream=True)
    answer.read()
    assert answer.request is request
    assert (request.content, dict(request.headers)) == before
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.elapsed.total_seconds() > 0
    assert answer.num_bytes_downloaded == len(answer.content)
    assert_reported(corner.row(), corner.billed()[0])


def test_a_response_hook_that_reads_the_answer_hides_nothing_from_the_meter(corner: Corner) -> None:
    http = httpx2.Client(event_hooks={"response": [lambda response: response.read()]})
    client = corner.client(http_client=http)
    assert client.chat.completions.create(**CHAT).choices
    assert all(chunk.choices for chunk in client.chat.completions.create(**STREAMED))
    for row, billed in zip(corner.rows(2), corner.billed(2), strict=True):
        assert_reported(row, billed)


def test_a_response_hook_that_refuses_an_error_leaves_a_released_row(corner: Corner) -> None:
    http = httpx2.Client(event_hooks={"response": [lambda r: r.raise_for_status()]})
    client = corner.client(http_client=http)
    with pytest.raises(httpx2.HTTPStatusError):
        client.chat.completions.create(**(CHAT | {"model": "missing-model"}))
    row = corner.row()
    assert row.settlement is not None
    assert row.settlement.ending == lastchunk.Ending.REFUSED
    assert row.settlement.nothing_used


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_transport_made_for_tests_is_metered_as_any_other(corner: Corner, package: Any) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    told = {"id": "x", "object": "chat.completion", "created": 0, "model": MODEL, "usage": usage}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}}
    transport = package.MockTransport(
        lambda _: package.Response(200, json=told | {"choices": [choice]})
    )
    client = corner.client(http_client=package.Client(transport=transport))
    answer = client.chat.completions.create(**CHAT)
    assert answer.choices[0].message.content == "a"
    row = corner.row()
    assert row.settlement is not None
    assert row.settlement.usage.output_tokens == lastchunk.Quantity.reported(5)


def test_what_is_not_metered_passes(corner: Corner, caplog: pytest.LogCaptureFixture) -> None:
    client = corner.client()
    assert client.models.list().data
    assert client.embeddings.create(model="text-embedding-3-small", input="hello").data
    assert corner.billed()[0].status == 200
    url = f"{corner.sim.base_url}/chat/completions"
    http = client._client
    with caplog.at_level(logging.WARNING, "lastchunk"):
        assert http.post(url, files={"file": b"secret words"}).status_code == 400
        assert http.post(url, content=b"{no json: secret words").status_code == 400
        assert http.post(url, content=iter([b"secret words"])).status_code == 400
        assert http.post(url, content=b'["secret words"]').status_code == 400
    assert caplog.text.count("is not metered: no JSON object") == 4
    assert "secret" not in caplog.text
    corner.rows(0)


def test_a_ledger_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    client = openai.OpenAI(api_key="sk-test")
    with pytest.raises(lastchunk.LedgerUnavailable, match=r"a file/ledger\.db") as raised:
        lastchunk.instrument(client, ledger=str(tmp_path / "a file" / "ledger.db"))
    assert "look at" in str(raised.value)
    assert "send" not in vars(client._client)
    client.close()


def test_the_ledger_is_named_by_the_environment(
    corner: Corner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "there" / "named.db"
    monkeypatch.setenv("LASTCHUNK_LEDGER", str(path))
    monkeypatch.setenv("LASTCHUNK_ACCOUNT", corner.name)
    with openai.OpenAI(**corner.options()) as client:
        lastchunk.instrument(client).chat.completions.create(**CHAT)
    lastchunk.close()
    with Reader.open(str(path)) as reader:
        corner.reader = reader
        assert_reported(corner.row(), corner.billed()[0])


def test_a_ledger_that_fails_later_does_the_stream_no_harm(
    corner: Corner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lost.db"
    client = openai.OpenAI(**corner.options())
    with client, caplog.at_level(logging.ERROR, "lastchunk"):
        lastchunk.instrument(client, ledger=str(path))
        _break(path)
        chunks = list(client.chat.completions.create(**STREAMED))
        lastchunk.close()
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.choices for chunk in chunks)
    assert "the ledger is away" in caplog.text
    assert corner.billed()[0].ended == "completed"


def _break(ledger: Path) -> None:
    """A database that is gone for its writer: another file stands in its place."""
    for file in ledger.parent.glob(ledger.name + "*"):
        file.unlink()
    ledger.write_bytes(b"this is no database" * 100)
