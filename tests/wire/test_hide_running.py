"""Running usage is taken out of each chunk, whatever the cutting, and nothing else with it."""

import contextlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lastchunk.wire.hide_running import RunningUsageHider

USAGE: dict[str, Any] = {"prompt_tokens": 5, "total_tokens": 12, "completion_tokens": 7}
DETAILED = USAGE | {
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": None,
}
NEWLINES = [b"\n", b"\r\n", b"\r"]
CUTS = st.lists(st.integers(0, 1500), max_size=12)

texts = st.sampled_from(
    [
        "hi",
        "",
        'say "usage":{"a":1} so',
        '","usage":{"prompt_tokens":1}}',
        "日本 🦊",
        "}}\\",
        "data: x",
    ]
)


@st.composite
def chunks(draw: st.DrawFn) -> dict[str, Any]:
    """A chunk of any server, its keys in any order, with or without usage at each place."""
    choice: dict[str, Any] = {"index": 0, "delta": {"content": draw(texts)}, "finish_reason": None}
    if draw(st.booleans()):
        choice["usage"] = draw(st.sampled_from([USAGE, None]))  # not the chunk's own
    if draw(st.booleans()):
        choice["delta"] = {"tool_calls": [{"index": 0, "function": {"arguments": draw(texts)}}]}
    chunk: dict[str, Any] = {"id": "c", "model": "m"}
    chunk["choices"] = draw(st.sampled_from([[choice], [choice], [choice, choice], []]))
    told = draw(st.sampled_from(["no", "null", USAGE, DETAILED, {}, {"note": "a } b"}]))
    if told != "no":
        chunk["usage"] = None if told == "null" else told
    names = draw(st.permutations(list(chunk)))
    return {name: chunk[name] for name in names}


def written(chunk: dict[str, Any], spaced: bool) -> bytes:
    if spaced:
        return json.dumps(chunk).encode()
    return json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode()


def wanted_of(chunk: dict[str, Any], *, caller_asked: bool) -> dict[str, Any] | None:
    """The reference: parsed, changed, to be written again."""
    if chunk.get("usage") is None:
        return chunk
    if not chunk["choices"]:
        return chunk if caller_asked else None
    if caller_asked:
        return {name: None if name == "usage" else value for name, value in chunk.items()}
    return {name: value for name, value in chunk.items() if name != "usage"}


def hidden(pieces: list[bytes], **options: Any) -> bytes:
    hider = RunningUsageHider(**options)
    return b"".join([*(hider.feed(piece) for piece in pieces), hider.rest()])


@given(
    st.lists(chunks(), max_size=6), st.booleans(), st.booleans(), st.sampled_from(NEWLINES), CUTS
)
@example([{"choices": [{"usage": USAGE}], "usage": USAGE}], False, False, b"\n", [40, 41])
def test_exactly_the_running_usage_is_taken_out(found, spaced, caller_asked, newline, places):
    frames = [b"data: " + written(chunk, spaced) for chunk in found]
    shown = [wanted_of(chunk, caller_asked=caller_asked) for chunk in found]
    body = b"".join(frame + 2 * newline for frame in [*frames, b"data: [DONE]"])
    wanted = [b"data: " + written(c, spaced) for c in shown if c is not None] + [b"data: [DONE]"]
    marks = sorted({min(place, len(body)) for place in places} | {0, len(body)})
    pieces = [body[a:b] for a, b in itertools.pairwise(marks)]
    got = hidden([body], caller_asked=caller_asked)
    assert hidden(pieces, caller_asked=caller_asked) == got
    assert hidden([body[i : i + 1] for i in range(len(body))], caller_asked=caller_asked) == got
    # The white space around a comma that goes with its member is the one thing left open.
    assert [without_space(f) for f in got.split(2 * newline)[:-1]] == [
        without_space(f) for f in wanted
    ]


def without_space(frame: bytes) -> Any:
    data = frame.removeprefix(b"data: ")
    return data if data == b"[DONE]" else (list(json.loads(data)), json.loads(data))


TIGHT = b'{"id":"c","choices":[{"index":0,"delta":{"content":"x"}}]%s}'


@pytest.mark.parametrize(
    ("before", "after", "null"),
    [
        (b'{"choices":[{}],"usage":{"a":1}}', b'{"choices":[{}]}',
         b'{"choices":[{}],"usage":null}'),
        (b'{"usage":{"a":1},"choices":[{}]}', b'{"choices":[{}]}',
         b'{"usage":null,"choices":[{}]}'),
        (b'{"choices":[{}] , "usage" : {"a": 1} , "b":1.50}', b'{"choices":[{}]  , "b":1.50}',
         b'{"choices":[{}] , "usage" : null , "b":1.50}'),
        (b'{"choices":[{"usage":{"a":1}}],"usage":{"a":1},"z":"\\u0041"}',
         b'{"choices":[{"usage":{"a":1}}],"z":"\\u0041"}',
         b'{"choices":[{"usage":{"a":1}}],"usage":null,"z":"\\u0041"}'),
    ],
)  # fmt: skip
def test_every_other_byte_stays(before, after, null):
    assert hidden([b"data: " + before + b"\n\n"], caller_asked=False) == b"data: " + after + b"\n\n"
    assert hidden([b"data: " + before + b"\n\n"], caller_asked=True) == b"data: " + null + b"\n\n"


@given(st.binary(max_size=300), st.integers(1, 9))
def test_what_is_no_stream_passes_untouched(body, size):
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    assert hidden(pieces, caller_asked=False) == body


@pytest.mark.parametrize("caller_asked", [True, False])
def test_a_body_that_breaks_off_never_shows_a_whole_running_usage(caller_asked):
    said = b"data: " + TIGHT % b"" + b"\n\n"
    running = b"data: " + TIGHT % (b',"usage":' + json.dumps(USAGE).encode()) + b"\n\n"
    for end in range(len(said) + len(running) + 1):
        shown = hidden([(said + running)[:end]], caller_asked=caller_asked)
        for line in shown.splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                assert json.loads(line.removeprefix(b"data: ")).get("usage") is None


@pytest.mark.parametrize(
    ("told", "noticed"),
    [
        ([b',"usage":{"a":1}', b',"usage":{"a":2}'], [True]),
        ([b"", b',"usage":{"a":2}'], [True]),
        ([b"", b""], []),
        ([b',"usage":null', None], [False]),
        ([b',"usage":{"a":1}', None], [True]),
    ],
)
def test_whether_the_server_tells_running_usage_is_noticed_once(told, noticed):
    heard: list[bool] = []
    hider = RunningUsageHider(caller_asked=False, noticed=heard.append)
    for usage in told:
        frame = b'{"choices":[],"usage":{"a":9}}' if usage is None else TIGHT % usage
        hider.feed(b"data: " + frame + b"\n\n")
    assert heard == noticed
