"""Chunks that pass by the parser: whatever their framing and wherever they are cut, one body."""

import asyncio
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lastchunk.gateway.leg_connection import LegConnection, content_of

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

# What a chunk's framing looks like may stand in its content as well.
contents = st.lists(
    st.sampled_from([b"data: {}\n\n", b"\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"a", b"x" * 300]),
    min_size=1,
    max_size=4,
).map(b"".join)
sizes = st.sampled_from([b"%x", b"%X", b"0%x", b"%x;name=value", b"000%x"])
chunks = st.lists(st.tuples(contents, sizes), min_size=1, max_size=8)


class Wire(asyncio.Transport):
    """Takes what is written and sends nothing."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        pass

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def framed(content: bytes, size: bytes = b"%x") -> bytes:
    return size % len(content) + b"\r\n" + content + b"\r\n"


def poured(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes | None]], bool]:
    """What is handed on of an answer that comes in these pieces, and whether it ended in order."""
    came: list[tuple[bytes, bytes | None]] = []

    def take(piece: bytes, chunk: bytes | None) -> bool:
        came.append((piece, chunk))
        return False

    async def play() -> bool:
        ends: list[bool] = []
        connection = LegConnection(60.0, lambda _, alive: ends.append(alive))
        connection.connection_made(Wire())
        asked = asyncio.create_task(connection.exchange("POST", b"POST / HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0)
        connection.data_received(HEAD)
        answer = await asked
        pouring = asyncio.create_task(answer.content.pour(take))
        await asyncio.sleep(0)
        for piece in pieces:
            connection.data_received(piece)
        async with asyncio.timeout(5):
            return await pouring and ends == [True]

    return came, asyncio.run(play())


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


def test_a_chunk_that_comes_alone_is_handed_on_as_it_came() -> None:
    contents = [b"data: {}\n\n", b"x" * 255, b"x" * 256, b"x" * 70_000]
    came, is_whole = poured([framed(b"first"), *map(framed, contents), b"0\r\n\r\n"])
    assert is_whole
    assert came[1:] == [(content, framed(content)) for content in contents]


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
