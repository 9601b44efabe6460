"""Every await of the async hook is cut once: exactly one row, no open call, nothing left behind."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from cutting import Cutter
from gateway_stage import ASKED, CHAT, STREAMED, until
from raw_http import RawUpstream, raw_upstream
from test_gateway_cuts import (
    MOST_WAITS,
    answer_whole,
    check,
    refuse_to_be_asked,
    stream_slowly,
)

import lastchunk
from lastchunk.instrument.process import asking, bookkeeper_for
from lastchunk.ledger import CallFilter, CallRecord, Reader
from lastchunk.meter.ending import Ending
from lastchunk.settings import load_settings


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("hook") / "ledger.db"
    lastchunk.close()


async def one_call(client: openai.AsyncOpenAI, body: dict[str, Any], way: str) -> str:
    asked: dict[str, Any] = dict(body)
    if not body.get("stream"):
        whole = await client.chat.completions.create(**asked)
        return whole.choices[0].message.content or ""
    stream = await client.chat.completions.create(**asked)
    if way == "with":
        async with stream:
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


async def cut_once(ledger: Path, upstream: RawUpstream, body: Any, way: str, k: int) -> Cutter:
    """One call by a client of its own, cut at its k-th wait; what it left behind is checked."""
    before = asyncio.all_tasks()
    cutter = Cutter(k)
    async with openai.AsyncOpenAI(
        base_url=f"{upstream.url}/v1",
        api_key="sk-test",
        max_retries=0,
        default_headers={"x-run": str(k)},
    ) as client:
        lastchunk.instrument(client, ledger=str(ledger), account=f"{upstream.port}-{way}-{k}")

        async def work() -> Any:
            return await cutter.run(one_call(client, body, way))

        [outcome] = await asyncio.gather(asyncio.create_task(work()), return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError) == cutter.was_cut, (k, outcome)
        for _ in range(300):  # a grace read, or the SDK's own short drain, may be under way
            if asyncio.all_tasks() == before and not in_use(client):
                break
            await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == before, f"tasks left by a cut at wait {k}"
        assert in_use(client) == [], f"connections left in use by a cut at wait {k}"
    return cutter


def in_use(client: openai.AsyncOpenAI) -> list[Any]:
    pool = client._client._transport._pool  # type: ignore[attr-defined]
    return [one for one in pool.connections if not (one.is_idle() or one.is_closed())]


@pytest.mark.parametrize(
    ("answer", "body", "way"),
    [
        (stream_slowly, STREAMED, "plain"),
        (stream_slowly, STREAMED, "with"),
        (stream_slowly, ASKED, "plain"),
        (stream_slowly, ASKED, "with"),
        (answer_whole, CHAT, "plain"),
        (refuse_to_be_asked, STREAMED, "plain"),
        (refuse_to_be_asked, STREAMED, "with"),
    ],
)
def test_a_cut_at_any_await_leaves_one_row_and_nothing_else(
    ledger: Path, answer: Any, body: dict[str, Any], way: str
) -> None:
    with raw_upstream(answer) as upstream:
        for k in range(1, MOST_WAITS):
            upstream.heard.clear()
            asking._known.clear()  # what one run has learned the next must not know
            account = f"{upstream.port}-{way}-{k}"
            cutter = asyncio.run(cut_once(ledger, upstream, body, way, k))
            with Reader.open(str(ledger)) as reader:
                rows = settled(reader, ledger, account)
            # A busy upstream may hear what an earlier run has cut as late as now.
            heard = [one for one in upstream.heard if one.header("x-run") == str(k)]
            check(rows, heard, k)
            assert cutter.was_cut or heard
            if not cutter.was_cut:
                break
        assert not cutter.was_cut
        assert cutter.waits > 5
    assert rows[-1].settlement is not None
    assert rows[-1].settlement.ending is Ending.COMPLETED


def settled(reader: Reader, ledger: Path, account: str) -> list[CallRecord]:
    """The rows of one run: none where it was cut before a request was made."""
    bookkeeper = bookkeeper_for(load_settings(ledger=str(ledger)))
    until(lambda: bookkeeper.open_calls() == 0, f"rows of {account} settled")
    found = list(reader.calls(CallFilter(account=account), newest_first=False))
    for row in found:
        assert [entry.kind.value for entry in row.entries][1:] in (["settled"], ["released"])
    return found
