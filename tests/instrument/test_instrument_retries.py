"""The SDK's own retries, and ours: each attempt is a row, under one call."""

import asyncio
import logging
import time
from typing import Any

import httpx2
import openai
import pytest
from in_process import CHAT, MODEL, STREAMED, Corner, assert_reported

from lastchunk import Ending
from lastchunk.ledger.store import Store
from lastchunk.simulator import Fault, Script


def test_each_attempt_of_the_sdk_is_a_row_under_the_first(corner: Corner) -> None:
    script = Script(fault=Fault("http_500", count=2))
    client = corner.client(script, max_retries=2)
    assert list(client.chat.completions.create(**STREAMED))
    client.chat.completions.create(**CHAT, extra_headers={"x-sim": "{}"})
    first, second, third, other = corner.rows(4)
    assert first.call.attempt_of is None
    assert second.call.attempt_of == third.call.attempt_of == first.call_id
    assert other.call.attempt_of is None
    for row in (first, second):
        assert row.settlement is not None
        assert row.settlement.ending == Ending.UPSTREAM_FAILED
        assert row.settlement.cost is not None
        assert row.settlement.cost.low == 0
    for row, billed in zip((third, other), corner.billed(4)[2:], strict=True):
        assert_reported(row, billed)


def test_attempts_that_the_upstream_reset_may_each_be_billed(corner: Corner) -> None:
    fault = Fault("rst_before_headers", count=1)
    script = Script(output_tokens=30, reaction_tokens=5, fault=fault)

    async def main() -> None:
        async with corner.async_client(script, max_retries=1) as client:
            assert [chunk async for chunk in await client.chat.completions.create(**STREAMED)]

    asyncio.run(main())
    first, second = corner.rows(2)
    assert second.call.attempt_of == first.call_id
    assert first.settlement is not None
    assert first.settlement.ending == Ending.UPSTREAM_CUT
    output = first.settlement.usage.output_tokens
    assert output is not None
    lost, told = corner.billed(2)
    assert lost.output_tokens > 0
    assert output.low == 0
    assert_reported(second, told)


def test_calls_side_by_side_keep_their_own_attempts(corner: Corner) -> None:
    script = Script(fault=Fault("http_429", count=1))

    async def one(client: openai.AsyncOpenAI, number: int) -> None:
        request = STREAMED | {"messages": [{"role": "user", "content": f"hello {number}"}]}
        assert [chunk async for chunk in await client.chat.completions.create(**request)]

    async def main() -> None:
        async with corner.async_client(script, max_retries=1) as client:
            await asyncio.gather(*(one(client, number) for number in range(5)))

    asyncio.run(main())
    rows = corner.rows(10)
    roots = {row.call_id for row in rows if row.call.attempt_of is None}
    assert len(roots) == 5
    assert {row.call.attempt_of for row in rows} == roots | {None}
    for row in rows:
        assert row.settlement is not None
        refused = row.call_id in roots
        assert row.settlement.ending == (Ending.REFUSED if refused else Ending.COMPLETED)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_an_upstream_that_refuses_to_be_asked_is_asked_once(
    corner: Corner, asynchronous: bool
) -> None:
    """Remembered for this upstream and model: the second call is one row."""
    script = Script(fault=Fault("reject_stream_options"))
    request = STREAMED | {"model": "gpt-4.1" if asynchronous else "gpt-4.1-mini"}
    if asynchronous:

        async def main() -> None:
            async with corner.async_client(script) as client:
                for _ in range(2):
                    stream = await client.chat.completions.create(**request)
                    assert all([chunk.choices async for chunk in stream])

        asyncio.run(main())
    else:
        client = corner.client(script)
        for _ in range(2):
            assert all([c.choices for c in client.chat.completions.create(**request)])  # noqa: C419
    first, second, third = corner.rows(3)
    endings = [row.settlement.ending for row in (first, second, third) if row.settlement]
    assert endings == [Ending.REFUSED, Ending.COMPLETED, Ending.COMPLETED]
    assert second.call.attempt_of == first.call_id
    assert third.call.attempt_of is None
    assert [billed.include_usage for billed in corner.billed(3)][1:] == [False, False]


def test_another_400_is_the_callers_own(corner: Corner) -> None:
    client = corner.client()
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(**(STREAMED | {"model": "missing-model"}))
    assert raised.value.response.json()["error"]["message"]
    row = corner.row()
    assert row.settlement is not None
    assert row.settlement.ending == Ending.REFUSED
    assert row.settlement.nothing_used


def test_a_failing_meter_does_the_stream_no_harm_and_says_no_content(
    corner: Corner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("secret words of the caller")

    monkeypatch.setattr("lastchunk.meter.meter.Meter.receive", fail)
    client = corner.client()
    with caplog.at_level(logging.DEBUG, "lastchunk"):
        chunks = list(client.chat.completions.create(**STREAMED))
        row = corner.row()
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert row.settlement is not None
    assert "meter_failed" in row.settlement.observation.faults
    assert "secret" not in caplog.text
    assert "secret" not in repr(row)


def test_a_bookkeeper_that_fails_lets_the_call_pass(
    corner: Corner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("secret words of the caller")

    client = corner.client()
    monkeypatch.setattr("lastchunk.bookkeeper.Bookkeeper.open", fail)
    assert list(client.chat.completions.create(**STREAMED))
    assert "a call is not metered: ValueError" in caplog.text
    assert "secret" not in caplog.text
    corner.rows(0)


def test_nothing_leaves_before_the_reservation_is_durable(
    corner: Corner, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_at_sending: list[int] = []
    write = Store.write

    def write_slowly(store: Store, items: Any) -> Any:
        time.sleep(0.2)
        return write(store, items)

    monkeypatch.setattr(Store, "write", write_slowly)

    def look(request: httpx2.Request) -> None:
        rows_at_sending.append(len(corner.open_rows()))

    http = httpx2.Client(event_hooks={"request": [look]})
    client = corner.client(http_client=http)
    client.chat.completions.create(model=MODEL, messages=CHAT["messages"])
    assert rows_at_sending == [1]
    corner.row()
