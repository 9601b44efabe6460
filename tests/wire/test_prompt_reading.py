"""Request bodies read as prompts: one form for all dialects, named unknowns, no content shown."""

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastchunk.wire.dialect import Dialect
from lastchunk.wire.prompt import Prompt, ToolChoice, read_prompt
from lastchunk.wire.prompt_images import header_size, pixel_size


def chat(**body: Any) -> Prompt:
    return read_prompt(Dialect.CHAT, body)


def responses(**body: Any) -> Prompt:
    return read_prompt(Dialect.RESPONSES, body)


def test_a_chat_and_a_responses_round_read_alike() -> None:
    asked = chat(
        messages=[
            {"role": "user", "content": "How long?"},
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "function": {"name": "measure", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "90 m"},
        ]
    )
    answered = responses(
        input=[
            {"role": "user", "content": "How long?"},
            {"type": "function_call", "call_id": "c", "name": "measure", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "90 m"},
        ]
    )
    assert asked == answered
    assert asked.turns[2].answers == "measure"
    assert asked.unknowns == ()


@pytest.mark.parametrize(
    ("choice", "read", "name"),
    [
        ("none", ToolChoice.NONE, ""),
        ("required", ToolChoice.REQUIRED, ""),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice.FORCED, "f"),
        ({"type": "function", "name": "f"}, ToolChoice.FORCED, "f"),
        ({"name": "f"}, ToolChoice.FORCED, "f"),
        (None, ToolChoice.AUTO, ""),
    ],
)
def test_a_tool_choice_is_read_in_every_spelling(
    choice: object, read: ToolChoice, name: str
) -> None:
    prompt = chat(tool_choice=choice)
    assert (prompt.tool_choice, prompt.forced_name) == (read, name)


@pytest.mark.parametrize(
    ("body", "unknown"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt_template"),
        ({"tools": [{"type": "file_search"}]}, "builtin_tool:file_search"),
        ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "encrypted_reasoning"),
        ({"input": [{"type": "some new item"}]}, "item:some_new_item"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "file"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "audio"),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "part:hologram"),
        ({"input": [{"role": "user", "content": 7}]}, "content"),
    ],
)
def test_what_cannot_be_derived_is_named(body: dict[str, object], unknown: str) -> None:
    assert read_prompt(Dialect.RESPONSES, body).unknowns == (unknown,)


def test_the_number_and_the_length_of_names_are_bounded() -> None:
    prompt = responses(tools=[{"type": f"tool {n} " + "x" * 500} for n in range(1000)])
    assert len(prompt.unknowns) <= 32
    assert max(map(len, prompt.unknowns)) <= 48


def test_a_prompt_does_not_show_its_content() -> None:
    prompt = chat(messages=[{"role": "user", "content": "a secret of state"}])
    for value in (prompt, prompt.turns, prompt.turns[0]):
        assert "secret" not in repr(value)
        assert "secret" not in str(value)


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)


def jpeg(width: int, height: int, thumbnail: int = 0) -> bytes:
    profile = b"\xff\xe1" + struct.pack(">H", thumbnail + 2) + b"\xff\xc0" * (thumbnail // 2)
    frame = b"\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + b"\x03" * 10
    return b"\xff\xd8" + profile + frame


def webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF\x00\x00\x00\x00WEBP" + kind + struct.pack("<I", len(body)) + body


HEADERS = [
    (png(640, 480), (640, 480)),
    (b"GIF89a" + struct.pack("<HH", 32, 16), (32, 16)),
    (jpeg(300, 200), (300, 200)),
    (jpeg(300, 200, thumbnail=40_000), (300, 200)),
    (webp(b"VP8X", b"\x00" * 4 + b"\x7f\x02\x00" + b"\xdf\x01\x00"), (640, 480)),
    (webp(b"VP8L", b"\x2f" + struct.pack("<I", 99 | 49 << 14)), (100, 50)),
    (webp(b"VP8 ", b"\x00" * 3 + b"\x9d\x01\x2a" + struct.pack("<HH", 70, 80)), (70, 80)),
    (png(0, 480), None),
    (png(2**31, 480), None),
    (b"not an image", None),
    (b"", None),
]


@pytest.mark.parametrize(("data", "size"), HEADERS)
def test_a_header_tells_the_size(data: bytes, size: tuple[int, int] | None) -> None:
    assert header_size(data) == size


def test_the_bytes_decide_and_not_the_media_type() -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(png(8, 9)).decode()
    assert pixel_size(url) == (8, 9)
    part = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    prompt = chat(messages=[{"role": "user", "content": [part]}])
    picture = prompt.turns[0].pictures[0]
    assert (picture.width, picture.height, picture.detail) == (8, 9, "low")
    assert prompt.unknowns == ()


@pytest.mark.parametrize(
    ("url", "unknown"),
    [
        ("https://example.com/a.png", "image_by_url"),
        ("data:image/png;base64,%%%", "image_unreadable"),
        ("", "image_by_id"),
    ],
)
def test_an_image_without_a_size_is_named(url: str, unknown: str) -> None:
    part = {"type": "input_image", "image_url": url}
    prompt = responses(input=[{"role": "user", "content": [part]}])
    assert prompt.unknowns == (unknown,)


@given(st.binary(max_size=200), st.sampled_from([png(4, 4), jpeg(4, 4), b"RIFF\0\0\0\0WEBPVP8 "]))
def test_any_bytes_have_a_size_or_none(tail: bytes, head: bytes) -> None:
    for data in (tail, head[: len(tail)] + tail, head + tail):
        size = header_size(data)
        assert size is None or all(side > 0 for side in size)
