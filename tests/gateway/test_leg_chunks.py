"""Chunks that pass by the parser: whatever their framing and wherever they are cut, one body."""

import asyncio
import threading
import time
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lastchunk.gateway.bypass import Bypass, content_of
from lastchunk.gateway.leg_connection import LegConnection
from lastchunk.wire.quiet import Lane

QUIET = b"data: {}\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

# What a chunk's framing looks like may stand in its content as well.
contents = st.tuples(
    st.lists(
        st.sampled_from([b"data: {}\n\n", b"\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"x" * 300]),
        min_size=1,
        max_size=4,
    ).map(b"".join),
    st.sampled_from([b"", b"\n\n"]),  # what ends like a frame is quiet, if it holds nothing else
).map(b"".join)
sizes = st.sampled_from([b"%x", b"%X", b"0%x", b"%x;name=value", b"000%x"])
chunks = st.lists(st.tuples(contents, sizes), min_size=1, max_size=8)


class Wire(asyncio.Transport):
    """Takes what is written and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[bytes, bytes | None]] = []
        """Contents, each with its chunk where that passed by as it came."""
        self.waiting_bytes = 0
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: Any) -> None:
        self.written.append((content_of(data) or b"", data))

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def framed(content: bytes, size: bytes = b"%x") -> bytes:
    return size % len(content) + b"\r\n" + content + b"\r\n"


def calm_lane() -> Lane:
    lane = Lane(time.monotonic)
    lane.is_calm = True
    return lane


def poured(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes | None]], bool]:
    """What is handed on of an answer that comes in these pieces, and whether it ended in order."""
    caller = Wire()
    bypass = Bypass(calm_lane(), caller)

    def take(piece: bytes) -> bool:
        caller.written.append((piece, None))
        return False

    async def play() -> bool:
        ends: list[bool] = []
        connection = LegConnection(60.0, lambda _, alive: ends.append(alive))
        connection.connection_made(Wire())
        asked = asyncio.create_task(connection.exchange("POST", b"POST / HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0)
        connection.data_received(HEAD)
        answer = await asked
        pouring = asyncio.create_task(answer.content.pour(take, bypass))
        await asyncio.sleep(0)
        for piece in pieces:
            connection.data_received(piece)
        async with asyncio.timeout(5):
            return await pouring and ends == [True]

    return caller.written, asyncio.run(play())


@given(chunks, st.data())
def test_a_chunked_body_is_the_same_however_it_is_framed_and_cut(
    wanted: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    body = b"".join(framed(content, size) for content, size in wanted) + b"0\r\n\r\n"
    cuts = data.draw(st.lists(st.integers(1, len(body) - 1), max_size=12).map(sorted))
    edges = [0, *cuts, len(body)]
    pieces = [body[a:b] for a, b in pairwise(edges) if a < b]
    came, is_whole = poured(pieces)
    assert is_whole
    assert b"".join(piece for piece, _ in came) == b"".join(content for content, _ in wanted)
    for piece, chunk in came:
        assert chunk is None or chunk == framed(piece)


def test_a_quiet_chunk_that_comes_alone_is_handed_on_as_it_came() -> None:
    quiet = [b"data: {}\n\n", b"x" * 253 + b"\n\n", b"x" * 254 + b"\n\n"]
    others = [b"data: [DONE]\n\n", b"half a fra", b"x" * 70_000 + b"\n\n"]
    came, is_whole = poured([framed(b"first"), *map(framed, [*quiet, *others]), b"0\r\n\r\n"])
    assert is_whole
    assert came[1:4] == [(content, framed(content)) for content in quiet]
    assert came[4:] == [(content, None) for content in others]


def test_nothing_passes_while_anybody_has_a_word_to_say() -> None:
    def full(lane: Lane, caller: Wire) -> None:
        caller.waiting_bytes = 1

    def gone(lane: Lane, caller: Wire) -> None:
        caller.closing = True

    def stirred(lane: Lane, caller: Wire) -> None:
        lane.is_calm = False

    def closed(lane: Lane, caller: Wire) -> None:
        lane.is_closed = True

    def held_up(lane: Lane, caller: Wire) -> None:
        lane.is_held_up = True

    def looked_at(lane: Lane, caller: Wire) -> None:
        lane.look_bytes = 2 * len(QUIET)

    def unread(lane: Lane, caller: Wire) -> None:
        lane.most_bytes = 2 * len(QUIET) - 1

    for word in (full, gone, stirred, closed, held_up, looked_at, unread):
        caller, lane = Wire(), calm_lane()
        bypass = Bypass(lane, caller)
        assert bypass.pass_on(framed(QUIET))
        word(lane, caller)
        assert not bypass.pass_on(framed(QUIET)), word
        assert caller.written == [(QUIET, framed(QUIET))]
        assert (lane.pieces, lane.total_bytes) == ([QUIET], len(QUIET))


def test_what_waits_is_taken_once_whoever_brings_more_meanwhile() -> None:
    lane, taken = calm_lane(), []
    pieces = [b"%d\n\n" % number for number in range(20_000)]

    def bring() -> None:
        for piece in pieces:
            assert lane.keep(piece)

    bringing = threading.Thread(target=bring)
    bringing.start()
    while bringing.is_alive():
        taken += lane.take()
    taken += lane.take()
    assert taken == pieces
    assert lane.waiting_bytes() == 0
    assert lane.total_bytes == sum(map(len, pieces))


def test_what_is_not_exactly_one_chunk_is_left_to_the_parser() -> None:
    for data in (
        b"0\r\n\r\n",
        b"5\r\nhello",
        b"5\r\nhello\r",
        b"5\r\nhell\r\n",
        b"+5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"05\r\nhello\r\n",
        b"A\r\nhellohello\r\n",
        b"1_0\r\nhellohellohello!\r\n",
        b"5\r\nhello\r\n5\r\nhello\r\n",
        b"5;a\r\nhello\r\n",
        b"-5\r\nhello\r\n",
        b"\r\nhello\r\n",
        b"\r\n\r\n",
        b"",
    ):
        assert content_of(data) is None, data
    assert content_of(b"5\r\nhello\r\n") == b"hello"


def test_what_looks_like_a_chunk_behind_a_digit_of_its_size_is_none() -> None:
    content = b"hello\r\n" + b"y" * 14
    assert len(content) == 0x15
    whole = framed(b"first") + framed(content) + b"0\r\n\r\n"
    at = len(framed(b"first")) + 1
    pieces = [whole[:at], whole[at : at + 10], whole[at + 10 :]]
    assert content_of(pieces[1]) == b"hello"
    came, is_whole = poured(pieces)
    assert is_whole
    assert b"".join(piece for piece, _ in came) == b"first" + content
