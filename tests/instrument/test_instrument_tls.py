"""What ends a stream ends it over TLS as well, where a socket is not shut down as others are."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest
from in_process import SLOW, STREAMED, Corner, assert_cut, assert_reported

from lastchunk import Basis, Ending
from lastchunk.simulator import Fault, Script
from tls_relay import CERTIFICATE, TlsRelay

PACED = Script(output_tokens=6, pacing_s=0.02, packet_bytes=61)
STALLED = Script(output_tokens=6, fault=Fault("stall", at="after_finish", seconds=20))
PACKAGES = pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])


@pytest.fixture
def secure(corner: Corner) -> Iterator[dict[str, Any]]:
    """How a client is made that speaks TLS."""
    with TlsRelay(corner.sim.port) as relay:
        yield {"base_url": f"https://127.0.0.1:{relay.port}/v1"}


def trust() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATE))


@PACKAGES
def test_sync_streams_over_tls(corner: Corner, secure: dict[str, Any], package: Any) -> None:
    client = corner.client(http_client=package.Client(verify=trust()), **secure)
    assert list(client.chat.completions.create(**STREAMED))
    paced = {"extra_headers": corner.headers(PACED)}
    with client.chat.completions.create(**STREAMED, **paced) as stream:
        next(chunk for chunk in stream if chunk.choices[0].finish_reason)
    slow = {"extra_headers": corner.headers(SLOW)}
    with client.chat.completions.create(**STREAMED, **slow) as stream:
        for _ in range(5):
            next(stream)
        time.sleep(0.5)  # what arrives meanwhile was generated as well
    whole, graced, cut = corner.rows(3)
    for row, billed in zip((whole, graced), corner.billed(3), strict=False):
        assert_reported(row, billed)
    assert_cut(cut, corner.billed(3)[2], Ending.CALLER_LEFT)
    assert cut.settlement is not None
    assert cut.settlement.usage.output_tokens is not None
    assert cut.settlement.usage.output_tokens.best > 15, "what had arrived unread is not counted"


@PACKAGES
def test_async_streams_over_tls(corner: Corner, secure: dict[str, Any], package: Any) -> None:
    async def main() -> None:
        http = package.AsyncClient(verify=trust())
        async with corner.async_client(http_client=http, **secure) as client:
            create = client.chat.completions.create
            assert [chunk async for chunk in await create(**STREAMED)]
            paced = {"extra_headers": corner.headers(PACED)}
            async with await create(**STREAMED, **paced) as stream:
                async for chunk in stream:
                    if chunk.choices[0].finish_reason:
                        break
            await asyncio.to_thread(corner.rows, 2)
            slow = {"extra_headers": corner.headers(SLOW)}
            async with await create(**STREAMED, **slow) as stream:
                for _ in range(5):
                    await anext(stream)
                await asyncio.sleep(0.5)
            await corner.billed_soon(3)

    asyncio.run(main())
    whole, graced, cut = corner.rows(3)
    for row, billed in zip((whole, graced), corner.billed(3), strict=False):
        assert_reported(row, billed)
    assert_cut(cut, corner.billed(3)[2], Ending.CALLER_LEFT)
    assert cut.settlement is not None
    assert cut.settlement.usage.output_tokens is not None
    assert cut.settlement.usage.output_tokens.best > 15, "what had arrived unread is not counted"


def test_a_stalled_upstream_is_given_up_over_tls(corner: Corner, secure: dict[str, Any]) -> None:
    http = httpx2.Client(verify=trust(), timeout=30)
    client = corner.client(STALLED, http_client=http, **secure)
    begun = time.monotonic()
    with client.chat.completions.create(**STREAMED) as stream:
        next(chunk for chunk in stream if chunk.choices[0].finish_reason)
    row = corner.row()
    assert row.settlement is not None
    assert row.settlement.usage.basis == Basis.COUNTED
    corner.billed()
    assert time.monotonic() - begun < 5


def test_a_reader_in_another_thread_is_woken_by_close(
    corner: Corner, secure: dict[str, Any]
) -> None:
    http = httpx2.Client(verify=trust(), timeout=30)
    script = Script(output_tokens=40, fault=Fault("stall", at="mid", seconds=20))
    client = corner.client(script, http_client=http, **secure)
    stream = client.chat.completions.create(**STREAMED)

    async def main() -> None:
        def read() -> None:
            with contextlib.suppress(Exception):
                list(stream)

        reading = asyncio.create_task(asyncio.to_thread(read))
        await asyncio.sleep(0.3)
        stream.close()
        await asyncio.wait_for(reading, 5)

    asyncio.run(main())
    row = corner.row()
    assert row.settlement is not None
    assert row.settlement.ending == Ending.CALLER_LEFT
