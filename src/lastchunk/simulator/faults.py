"""What goes wrong with an answer: frames in, fewer or other frames out, and how the body ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from lastchunk.simulator.frames import Frame, Plan, sse
from lastchunk.simulator.provider_counts import Json
from lastchunk.simulator.responses import response_json
from lastchunk.simulator.script import Fault

BodyEnd = Literal["clean", "fin", "eof", "rst", "stall", "hold"]

BROKEN_MODEL = "The simulated model broke off in the middle of its answer."
GARBAGE = b'{"id":"chatcmpl-broken","choices":[{"index":0,"delta":{"content":"los'


_ALSO_WITHOUT_A_STREAM = ("fin", "eof", "rst", "stall", "hold_after_done")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The frames that are really sent, and how the body ends after them.

    A frame that is cut in two keeps its `generated` (it was spent), but not its `delivered`.
    """

    frames: tuple[Frame, ...]
    end: BodyEnd = "clean"
    seconds: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(frame.data for frame in self.frames)


def misbehave(plan: Plan, fault: Fault | None) -> Outgoing:
    """Apply the part of `fault` that shows in the body; what comes before headers does not."""
    if fault is None or (not plan.call.streamed and fault.kind not in _ALSO_WITHOUT_A_STREAM):
        return Outgoing(plan.frames)
    frames = plan.frames
    match fault.kind:
        case "fin" | "eof" | "rst" | "stall":
            return Outgoing(cut(frames, position(plan, fault.at)), fault.kind, fault.seconds)
        case "error_event" | "response_failed":
            kept = cut(frames, position(plan, fault.at), whole=True)
            return Outgoing((*kept, _error_frame(plan, kept, fault)))
        case "garbage":
            kept = cut(frames, position(plan, fault.at), whole=True)
            broken = sse(GARBAGE, plan.call.script.framing, None)
            return Outgoing((*kept, _aside(kept, broken), *frames[len(kept) :]))
        case "no_done":
            terminal = "finish" if plan.call.endpoint == "responses" else "done"
            return Outgoing(tuple(frame for frame in frames if frame.kind != terminal))
        case "hold_after_done":
            return Outgoing(frames, "hold", fault.seconds)
        case _:
            return Outgoing(frames)


def cut(frames: Sequence[Frame], offset: int, *, whole: bool = False) -> tuple[Frame, ...]:
    """The frames of the first `offset` bytes; the last one in part, or `whole`."""
    kept: list[Frame] = []
    size = 0
    for frame in frames:
        if size >= offset:
            break
        size += len(frame.data)
        if size > offset and not whole:
            before = kept[-1] if kept else Frame(b"", "aside", 0, 0)
            part = frame.data[: offset - size]
            frame = Frame(part, "aside", frame.generated, before.delivered, before.ended)
        kept.append(frame)
    return tuple(kept)


def position(plan: Plan, at: int | str) -> int:
    """The byte offset of a moment of the body."""
    frames = plan.frames
    ends = _ends(frames)
    total = ends[-1] if ends else 0
    if isinstance(at, int):
        return min(at, total)
    outputs = [i for i, frame in enumerate(frames) if frame.kind == "output"]
    match at:
        case "headers":
            return 0
        case "first_chunk":
            return ends[outputs[0]] if outputs else ends[0]
        case "mid":
            return ends[outputs[(len(outputs) - 1) // 2]] if outputs else total // 2
        case "mid_frame":
            middle = outputs[len(outputs) // 2] if outputs else len(frames) // 2
            return ends[middle] - len(frames[middle].data) // 2
        case "after_finish" | "after_usage":
            return ends[_said_all(plan, usage_too=at == "after_usage")]
        case "after_done":
            return total
    wanted = int(at.removeprefix("tokens:"))
    return next((e for e, f in zip(ends, frames, strict=True) if f.delivered >= wanted), total)


def _said_all(plan: Plan, *, usage_too: bool) -> int:
    """The frame after which all is said but the usage, or with `usage_too` the usage as well."""
    frames = plan.frames
    told = [i for i, frame in enumerate(frames) if frame.usage]
    if usage_too and told:
        return told[-1]
    finishes = [i for i, frame in enumerate(frames) if frame.kind == "finish"]
    if not finishes:
        return len(frames) - 1
    # The terminal event of a response tells finish and usage at once: stay before it.
    return max(finishes[-1] - 1, 0) if plan.call.endpoint == "responses" else finishes[-1]


def _ends(frames: Sequence[Frame]) -> list[int]:
    ends: list[int] = []
    size = 0
    for frame in frames:
        size += len(frame.data)
        ends.append(size)
    return ends


def _aside(kept: Sequence[Frame], data: bytes) -> Frame:
    if not kept:
        return Frame(data, "aside", 0, 0)
    return dataclasses.replace(kept[-1], data=data, kind="aside", usage=False)


def _error_frame(plan: Plan, kept: Sequence[Frame], fault: Fault) -> Frame:
    call = plan.call
    framing = call.script.framing
    error: Json = {"message": BROKEN_MODEL, "type": "server_error", "param": None, "code": None}
    if call.endpoint != "responses":
        return _aside(kept, sse(msgspec.json.encode({"error": error}), framing, None))
    number = sum(frame.data != b"" for frame in kept)
    told = {"code": "server_error", "message": BROKEN_MODEL}
    if fault.kind == "error_event":
        payload: Json = {"type": "error", **told, "param": None, "sequence_number": number}
        return _aside(kept, sse(msgspec.json.encode(payload), framing, "error"))
    response = response_json(call, "failed", [], None) | {"error": told}
    payload = {"type": "response.failed", "response": response, "sequence_number": number}
    return _aside(kept, sse(msgspec.json.encode(payload), framing, "response.failed"))
