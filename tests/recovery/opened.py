"""One call that a bookkeeper has open, reserved and told nothing of yet."""

from lastchunk.bookkeeper import Bookkeeper, Caller
from lastchunk.metered_call import MeteredCall
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import read_body

BODY = b'{"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
TEXT = b'data: {"choices": [{"index": 0, "delta": {"content": "one two three"}}]}\n\n'


def open_call(books: Bookkeeper) -> MeteredCall:
    body = read_body(BODY)
    assert body is not None
    call = books.open(
        Dialect.CHAT,
        BODY,
        body,
        upstream="api.openai.com",
        path="/v1/chat/completions",
        caller=Caller("default", "python"),
    )
    call.reserved.result(10)
    return call
