"""Every await of the gateway is cut once: exactly one row, no open call, nothing left behind."""

import asyncio
import socket
import time
from typing import Any

import pytest
from cutting import Cutter
from gateway_stage import ASKED, CHAT, STREAMED, Behind, Stage, body_of, sse, until
from raw_http import (
    Heard,
    Reading,
    answer_bytes,
    chunked,
    connect,
    raw_upstream,
    request_bytes,
    stream_head,
)

from lastchunk.gateway.relay import Relay
from lastchunk.ledger import CallFilter, CallRecord
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.usage import Basis

TEXT = sse({"choices": [{"index": 0, "delta": {"content": "one two three "}}]})
FINISH = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 12}})
DONE = b"data: [DONE]\n\n"
WHOLE = body_of(
    {
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 12},
    }
)
PAUSE_SECONDS = 0.01
MOST_WAITS = 200


def stream_slowly(connection: socket.socket, _: Heard) -> None:
    connection.sendall(stream_head())
    for frame in (TEXT, TEXT, FINISH, USAGE, DONE):
        time.sleep(PAUSE_SECONDS)
        connection.sendall(chunked(frame, end=False))
    time.sleep(PAUSE_SECONDS)
    connection.sendall(chunked())


def refuse_to_be_asked(connection: socket.socket, heard: Heard) -> None:
    if b"stream_options" not in heard.body:
        stream_slowly(connection, heard)
        return
    error = b'{"error":{"message":"unknown field: stream_options"}}'
    length = [("Content-Length", str(len(error)))]
    connection.sendall(answer_bytes(error[:20], "400 Bad Request", length))
    time.sleep(PAUSE_SECONDS)
    connection.sendall(error[20:])


def answer_whole(connection: socket.socket, _: Heard) -> None:
    time.sleep(PAUSE_SECONDS)
    connection.sendall(answer_bytes(WHOLE[:30], headers=[("Content-Length", str(len(WHOLE)))]))
    time.sleep(PAUSE_SECONDS)
    connection.sendall(WHOLE[30:])


@pytest.mark.parametrize(
    ("answer", "body", "rows"),
    [
        (stream_slowly, STREAMED, 1),
        (stream_slowly, ASKED, 1),
        (answer_whole, CHAT, 1),
        (refuse_to_be_asked, STREAMED, 2),
    ],
    ids=["hidden usage", "asked for usage", "whole", "refused to tell"],
)
def test_a_cut_at_any_await_leaves_one_row_and_nothing_else(
    behind: Behind, monkeypatch: pytest.MonkeyPatch, answer: Any, body: dict[str, Any], rows: int
) -> None:
    original, cutter = Relay.handle, Cutter(None)

    async def handle(self: Relay, incoming: Any) -> Any:
        return await cutter.run(original(self, incoming))

    monkeypatch.setattr(Relay, "handle", handle)
    with raw_upstream(answer) as upstream:
        for k in range(1, MOST_WAITS):
            stage = behind(upstream.url, grace_seconds=1.0)
            cutter, upstream.heard[:] = Cutter(k), []
            told = one_call(stage, body)
            until(lambda stage=stage: is_at_rest(stage), f"at rest after a cut at await {k}")  # type: ignore[misc]
            check(settled_rows(stage, rows), upstream.heard, k)
            stage.gateway.stop()
            assert stage.gateway.tasks_left == set(), f"tasks left by a cut at await {k}"
            if not cutter.was_cut:
                break
        assert not cutter.was_cut
        assert cutter.waits >= 3
    assert told is not None
    assert told.whole
    last = settled_rows(stage, rows)[-1]
    assert last.settlement is not None
    assert last.settlement.ending is Ending.COMPLETED


def one_call(stage: Stage, body: dict[str, Any]) -> Heard | None:
    with connect(stage.gateway.port) as connection:
        raw = request_bytes("POST", "/v1/chat/completions", stage.headers, body_of(body))
        connection.sendall(raw)
        return Reading(connection).message(is_answer=True)


def is_at_rest(stage: Stage) -> bool:
    """No call is open, no connection to the upstream in use, no grace read under way."""
    gateway = stage.gateway.gateway

    def rests() -> bool:
        upstream = gateway._rulebook.rules.routes[0].upstream
        return not (upstream.in_use or gateway._relay._left._grace_reads)

    return bool(stage.gateway.call(rests)) and stage.gateway.bookkeeper.open_calls() == 0


def settled_rows(stage: Stage, most: int) -> list[CallRecord]:
    """All rows of this stage, which is at rest; a call cut early has made fewer attempts."""
    found = list(stage.reader.calls(CallFilter(account=stage.name)))
    assert 1 <= len(found) <= most
    return stage.rows(len(found))


def check(rows: list[CallRecord], heard: list[Heard], k: int) -> None:
    """What was written fits what was seen, and nothing was sent that is not written."""
    assert len(rows) >= len(heard), k
    for row in rows:
        told = row.settlement
        assert told is not None, k
        seen, output = told.observation, told.usage.output_tokens
        match told.ending:
            case Ending.COMPLETED:
                assert seen.reported is not None, k
                assert output.best == 12, k
                assert output.basis is Basis.REPORTED, k
            case Ending.NEVER_SENT:
                assert told.nothing_used, k
                assert len(heard) < len(rows), k
            case Ending.REFUSED:
                assert seen.status == 400, k
            case Ending.CALLER_LEFT:
                assert output.basis is wanted_basis(seen), k
            case other:
                raise AssertionError(f"{other} after a cut at await {k}")


def wanted_basis(seen: Observation) -> Basis:
    return Basis.ASSUMED if seen.first_token_ms is None else Basis.COUNTED


def test_the_cutter_cuts() -> None:
    """A guard is shown to fail once: what waits thrice is cut thrice."""
    reached: list[int] = []

    async def work() -> str:
        for number in range(3):
            reached.append(number)
            await asyncio.sleep(0)
        return "done"

    async def main(k: int) -> str:
        return str(await Cutter(k).run(work()))

    for k in (1, 2, 3):
        reached.clear()
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(main(k))
        assert reached == list(range(k))
    assert asyncio.run(main(4)) == "done"
