"""Running usage in process: asked for, hidden, remembered, and exact for what was delivered."""

from typing import Any

import pytest
from in_process import ASKED, STREAMED, Corner, assert_reported, assert_within, in_a_loop

import lastchunk
from lastchunk import Basis, Ending
from lastchunk.instrument.process import asking
from lastchunk.simulator import Script


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> None:
    """All tests share one upstream: what one has learned the next must not know."""
    asking._known.clear()


def assert_so_far(row: Any, delivered: int) -> None:
    assert row.settlement.ending == Ending.CALLER_LEFT
    usage = row.settlement.usage
    assert usage.input_tokens.basis == Basis.REPORTED_SO_FAR
    assert usage.output_tokens.basis == Basis.REPORTED_SO_FAR
    assert usage.output_tokens.low == usage.output_tokens.best
    assert usage.output_tokens.best >= delivered


GIVEN = Script(output_tokens=300, pacing_s=0.01, continuous_usage="given")


def test_an_interruption_is_exact_for_what_was_delivered(corner: Corner) -> None:
    client = corner.client(GIVEN)
    with client.chat.completions.create(**STREAMED) as stream:
        for number, chunk in enumerate(stream):
            assert chunk.usage is None
            assert "usage" not in chunk.model_fields_set
            if number == 20:
                break
    row, billed = corner.row(), corner.billed()[0]
    assert_so_far(row, 20)
    told = row.settlement.usage.output_tokens  # type: ignore[union-attr]
    assert told.best == billed.delivered_tokens or told.best <= billed.output_tokens  # type: ignore[union-attr]
    assert_within(row, billed)
    assert row.settlement.usage.input_tokens.best == billed.prompt_tokens  # type: ignore[union-attr]


@in_a_loop
async def test_the_same_in_a_coroutine(corner: Corner) -> None:
    async with corner.async_client(GIVEN) as client:
        stream = await client.chat.completions.create(**STREAMED)
        async with stream:
            number = 0
            async for _ in stream:
                number += 1
                if number == 20:
                    break
    billed = (await corner.billed_soon())[0]
    row = corner.row()
    assert_so_far(row, 18)
    assert_within(row, billed)


def test_who_asked_for_the_usage_chunk_gets_it_alone(corner: Corner) -> None:
    client = corner.client(Script(output_tokens=20, continuous_usage="given"))
    chunks = list(client.chat.completions.create(**ASKED))
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert all("usage" in c.model_fields_set for c in chunks)
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []
    assert_reported(corner.row(), corner.billed()[0])


def test_who_asked_for_running_usage_gets_it(corner: Corner) -> None:
    client = corner.client(Script(output_tokens=20, continuous_usage="given"))
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(client.chat.completions.create(**STREAMED, stream_options=options))
    assert all(c.usage is not None for c in chunks)
    corner.row()


def test_a_server_that_rejects_it_is_asked_for_the_usage_chunk_alone_from_then_on(
    corner: Corner,
) -> None:
    client = corner.client(Script(output_tokens=5, continuous_usage="rejected"))
    for _ in range(2):
        assert all(c.choices for c in client.chat.completions.create(**STREAMED))
    refused, first, second = corner.rows(3)
    assert refused.settlement is not None
    assert refused.settlement.ending == Ending.REFUSED
    assert first.call.attempt_of == refused.call_id
    assert second.call.attempt_of is None
    billed = corner.billed(3)
    assert [bill.status for bill in billed] == [422, 200, 200]
    assert_reported(second, billed[2])


def test_a_server_that_ignores_it_is_not_asked_again(corner: Corner) -> None:
    client = corner.client(Script(output_tokens=5))
    list(client.chat.completions.create(**STREAMED))
    (wish,) = asking._known.values()
    assert wish.name == "FINAL_USAGE"
    list(client.chat.completions.create(**STREAMED))
    for row, bill in zip(corner.rows(2), corner.billed(2), strict=True):
        assert_reported(row, bill)


def test_it_can_be_turned_off(corner: Corner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTCHUNK_RUNNING_USAGE", "false")
    client = corner.client(Script(output_tokens=5, continuous_usage="rejected"))
    list(client.chat.completions.create(**STREAMED))
    assert_reported(corner.row(), corner.billed()[0])


def test_several_choices_are_not_asked_for_it(corner: Corner) -> None:
    client = corner.client(Script(output_tokens=5, continuous_usage="rejected"))
    list(client.chat.completions.create(**STREAMED, n=2))
    assert_reported(corner.row(), corner.billed()[0])


def test_legacy_completions_too(corner: Corner) -> None:
    client = corner.client(Script(output_tokens=300, pacing_s=0.01, continuous_usage="given"))
    asked: Any = {"model": "gpt-3.5-turbo-instruct", "prompt": "hi", "stream": True}
    with lastchunk.watch(), client.completions.create(**asked) as stream:
        for number, chunk in enumerate(stream):
            assert chunk.usage is None
            if number == 20:
                break
    row = corner.row()
    assert_so_far(row, 20)
    assert_within(row, corner.billed()[0])
