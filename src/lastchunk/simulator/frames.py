"""The frames of an answer and what each of them means for the bill."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

from lastchunk.simulator.provider_counts import Counts, Json, usage_json
from lastchunk.simulator.script import Framing
from lastchunk.simulator.turn import Call

FrameKind = Literal["opening", "output", "silent", "finish", "usage", "done", "aside"]

_ENDS: dict[Framing, bytes] = {"lf": b"\n\n", "crlf": b"\r\n\r\n", "tight": b"\n\n"}
_LINES: dict[Framing, bytes] = {"lf": b"\n", "crlf": b"\r\n", "tight": b"\n"}
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
# Padding is cut from one long string: a draw for every letter would be most of a frame's cost.
_PADDING = "".join(random.Random("padding").choices(_LETTERS, k=4096))
_LONGEST_PADDING = 16


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes for the wire (none while the model only thinks) and the counts once they are out.

    `generated` and `delivered` are running totals of tokens, `ended` of end-of-turn tokens;
    `usage` says that the final usage is told here.
    """

    data: bytes
    kind: FrameKind
    generated: int
    delivered: int
    ended: int = 0
    usage: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole answer to a call, before anything goes wrong with it."""

    call: Call
    frames: tuple[Frame, ...]
    ids: tuple[int, ...]
    thought: bytes  # one byte an id: 1 if it was reasoning
    content_type: str

    def counts(self, generated: int, ended: int) -> Counts:
        """Tokens used once `generated` ids are out; only a finished turn has its constants."""
        prompt = self.call.prompt_tokens
        return Counts(
            prompt=prompt,
            cached=min(self.call.script.reported_cached, prompt),
            output=generated + ended,
            reasoning=self.thought[:generated].count(1),
        )

    def usage(self) -> Json:
        """The usage of the whole answer."""
        counts = self.counts(len(self.ids), self.call.end_of_turn)
        return usage_json(counts, self.call.endpoint, self.call.model)


class FrameWriter:
    """Collects frames, keeping the running counts."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.frames: list[Frame] = []
        self.ids: list[int] = []
        self.thought = bytearray()
        self.delivered = 0
        self.ended = 0
        self._framing = call.script.framing
        self._rng = call.rng("obfuscation")

    def think(self, ids: Iterable[int]) -> None:
        """Hidden reasoning: time and tokens pass, nothing is sent."""
        self._generate(ids, thought=True)
        self._append(b"", "silent")

    def spend(self, ids: Iterable[int], *, thought: bool = False) -> None:
        """Tokens of the next frame; they count as delivered with it."""
        before = len(self.ids)
        self._generate(ids, thought=thought)
        self.delivered += len(self.ids) - before

    def end(self, tokens: int) -> None:
        """A choice has ended: its end-of-turn tokens are out with the next frame."""
        self.ended += tokens

    def silent(self) -> None:
        self._append(b"", "silent")

    def send(
        self, payload: Json, kind: FrameKind, *, event: str | None = None, usage: bool = False
    ) -> None:
        self._append(sse(msgspec.json.encode(payload), self._framing, event), kind, usage)

    def send_raw(self, data: bytes, kind: FrameKind) -> None:
        self._append(sse(data, self._framing, None), kind)

    def counts(self) -> Counts:
        """Tokens used so far."""
        call = self.call
        return Counts(
            prompt=call.prompt_tokens,
            cached=min(call.script.reported_cached, call.prompt_tokens),
            output=len(self.ids) + self.ended,
            reasoning=self.thought.count(1),
        )

    def full_counts(self) -> Counts:
        counts = self.counts()
        output = sum(choice.tokens for choice in self.call.choices) + self.call.end_of_turn
        reasoning = sum(choice.reasoning for choice in self.call.choices)
        return Counts(counts.prompt, counts.cached, output, reasoning)

    def padding(self) -> str:
        """Random padding of a random length, as providers add to hide token lengths."""
        return obfuscation(self._rng)

    def plan(self, content_type: str = "text/event-stream; charset=utf-8") -> Plan:
        frames = with_keep_alives(self.frames, self.call.script.keep_alive_every)
        return Plan(self.call, frames, tuple(self.ids), bytes(self.thought), content_type)

    def _generate(self, ids: Iterable[int], *, thought: bool) -> None:
        before = len(self.ids)
        self.ids.extend(ids)
        self.thought.extend((b"\1" if thought else b"\0") * (len(self.ids) - before))

    def _append(self, data: bytes, kind: FrameKind, usage: bool = False) -> None:
        frame = Frame(data, kind, len(self.ids), self.delivered, self.ended, usage)
        self.frames.append(frame)


def sse(payload: bytes, framing: Framing, event: str | None) -> bytes:
    """One server-sent event in the framing that the script wants."""
    colon = b":" if framing == "tight" else b": "
    head = b"event" + colon + event.encode() + _LINES[framing] if event else b""
    return head + b"data" + colon + payload + _ENDS[framing]


def with_keep_alives(frames: list[Frame], every: int) -> tuple[Frame, ...]:
    """A comment, and an empty line on its own, before each k-th frame."""
    if every < 1:
        return tuple(frames)
    woven: list[Frame] = []
    last = Frame(b"", "aside", 0, 0)
    for number, frame in enumerate(frames, start=1):
        if number % every == 0:
            comment = b": keep-alive\n\n\n"
            woven.append(Frame(comment, "aside", last.generated, last.delivered, last.ended))
        woven.append(frame)
        last = frame
    return tuple(woven)


def obfuscation(rng: random.Random) -> str:
    place = int(rng.random() * (len(_PADDING) - _LONGEST_PADDING))
    return _PADDING[place : place + 1 + place % _LONGEST_PADDING]


def logprob_entries(ids: Iterable[int], bytes_of: dict[int, bytes]) -> list[Json]:
    """One entry a token, as `logprobs.content` has them."""
    return [
        {
            "token": bytes_of[token].decode(errors="backslashreplace"),
            "logprob": -0.125 - (token % 7) / 16,
            "bytes": list(bytes_of[token]),
            "top_logprobs": [],
        }
        for token in ids
    ]
