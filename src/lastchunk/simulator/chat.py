"""Chat completions: the chunks of a stream, and the whole answer in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from lastchunk.simulator.frames import FrameKind, FrameWriter, Plan, logprob_entries
from lastchunk.simulator.provider_counts import Json, usage_json
from lastchunk.simulator.text import Step, vocabulary_of
from lastchunk.simulator.turn import CALLS, Call, Choice, Part

SAFE: Json = {
    name: {"filtered": False, "severity": "safe"}
    for name in ("hate", "self_harm", "sexual", "violence")
}
FILTERED_PROMPT: list[Json] = [
    {
        "prompt_index": 0,
        "content_filter_results": {**SAFE, "jailbreak": {"filtered": False, "detected": False}},
    }
]
# An asynchronous filter reports once in so many chunks, after the text has gone out.
CHUNKS_PER_FILTER_FRAME = 10


def chat_plan(call: Call) -> Plan:
    """All frames of a streamed chat completion."""
    return _ChatStream(call).plan()


class _ChatStream:
    def __init__(self, call: Call) -> None:
        self.call = call
        self.style = call.script.usage_style
        self.writer = FrameWriter(call)
        self.vocabulary = vocabulary_of(call.model)
        self.head: Json = {
            "id": call.response_id,
            "object": "chat.completion.chunk",
            "created": call.created,
            "model": call.served_model,
            "service_tier": call.script.service_tier,
            "system_fingerprint": fingerprint(call),
        }
        self.sent = 0

    def plan(self) -> Plan:
        if self.call.script.azure:
            self._prompt_filter()
        speeches = [_Speech(self, choice, i) for i, choice in enumerate(self.call.choices)]
        # Choices talk in turns, one chunk each, as n > 1 does on the wire.
        for _ in zip_longest(*(speech.run() for speech in speeches)):
            pass
        self._usage_chunk()
        self.writer.send_raw(b"[DONE]", "done")
        return self.writer.plan()

    def chunk(
        self,
        choices: list[Json],
        kind: FrameKind,
        extra: Json | None = None,
        *,
        final: bool = False,
    ) -> None:
        """One chunk; `final` marks that the call's final usage is in it."""
        payload = {**self.head, "choices": choices}
        if self.call.running_usage:
            payload["usage"] = self._usage(so_far=True)
        elif self.call.include_usage and self.style not in ("on_finish_chunk", "x_groq"):
            payload["usage"] = None
        if self.style == "x_groq" and not self.sent:
            payload["x_groq"] = self._groq_id()
        payload |= extra or {}
        if self.call.obfuscated:
            payload["obfuscation"] = self.writer.padding()
        self.sent += 1
        self.writer.send(payload, kind, usage=final)
        if self.call.script.azure_async_filter and self.sent % CHUNKS_PER_FILTER_FRAME == 0:
            self._filter_frame()

    def finish_extra(self, last: bool) -> Json | None:
        """What a finish chunk says about usage, by style; only the last choice's does."""
        if not last:
            return None
        match self.style:
            case "on_finish_chunk" | "twice":
                return {"usage": self._usage()}
            case "x_groq":
                return {"x_groq": {**self._groq_id(), "usage": self._usage()}}
            case _:
                return None

    def finish_is_final(self, last: bool) -> bool:
        return last and self.style in ("on_finish_chunk", "twice", "x_groq", "choice_usage")

    def choice_usage(self, last: bool) -> Json:
        return {"usage": self._usage()} if last and self.style == "choice_usage" else {}

    def _groq_id(self) -> Json:
        return {"id": f"req_{self.call.response_id.rpartition('-')[2]}"}

    def _usage_chunk(self) -> None:
        asked = self.call.include_usage and self.style in ("standard", "zero", "x_groq")
        if asked or self.style in ("twice", "running"):
            self.chunk([], "usage", {"usage": self._usage()}, final=True)

    def _usage(self, *, so_far: bool = False) -> Json:
        counts = self.writer.counts() if so_far else self.writer.full_counts()
        usage = usage_json(counts, "chat/completions", self.call.model)
        return zeroed(usage) if self.style == "zero" else usage

    def _prompt_filter(self) -> None:
        head = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
        self.writer.send({**head, "prompt_filter_results": FILTERED_PROMPT}, "opening")

    def _filter_frame(self) -> None:
        offsets = {"check_offset": self.sent, "start_offset": 0, "end_offset": self.sent * 4}
        choice = {
            "index": 0,
            "finish_reason": None,
            "content_filter_results": SAFE,
            "content_filter_offsets": offsets,
        }
        head = {"id": "", "object": "", "created": 0, "model": ""}
        self.writer.send({**head, "choices": [choice]}, "aside")


class _Speech:
    """One choice as chunks; a generator, so that choices can take turns."""

    def __init__(self, stream: _ChatStream, choice: Choice, index: int) -> None:
        self.stream = stream
        self.choice = choice
        self.index = index
        self.opened = False
        self.calls = 0

    def run(self) -> Iterator[None]:
        for part in self.choice.parts:
            if part.kind == "thought":
                for step in part.steps:
                    self.stream.writer.think(step.ids)
                    yield
                continue
            yield from self._part(part)
        if not self.opened:
            self._open({"role": "assistant", "content": "", "refusal": None})
            yield
        self.stream.writer.end(self.choice.end_of_turn)
        last = self.index == len(self.stream.call.choices) - 1
        choice = {**self._choice({}, None), "finish_reason": self.choice.finish_reason}
        choice |= self.stream.choice_usage(last)
        extra, final = self.stream.finish_extra(last), self.stream.finish_is_final(last)
        self.stream.chunk([choice], "finish", extra, final=final)
        yield

    def _part(self, part: Part) -> Iterator[None]:
        writer = self.stream.writer
        opened_here = self._begin(part)
        if opened_here:
            yield
        for step in part.steps:
            writer.spend(step.ids, thought=part.kind == "shown_thought")
            if not step.text:
                writer.silent()
            else:
                self._delta(self._step_delta(part, step), step, part)
            yield
        if part.kind in CALLS:
            self.calls += 1

    def _begin(self, part: Part) -> bool:
        """The chunk that opens a part: the role, and a call's id and name."""
        self.stream.writer.spend(part.opening)
        if part.kind not in CALLS:
            if self.opened:
                return False
            content = None if part.kind in ("refusal", "shown_thought") else ""
            refusal = "" if part.kind == "refusal" else None
            self._open({"role": "assistant", "content": content, "refusal": refusal})
            return True
        several = len([p for p in self.choice.shown if p.kind in CALLS]) > 1
        delta: Json = {}
        if not self.opened:
            delta = {"role": "assistant", "content": None}
            if several:  # the role comes alone before several calls
                self._open(delta)
                delta = {}
        delta |= self._call_delta(part, "", opening=True)
        self._open(delta)
        return True

    def _open(self, delta: Json) -> None:
        self.opened = True
        self.stream.chunk([self._choice(delta, None)], "opening")

    def _step_delta(self, part: Part, step: Step) -> Json:
        match part.kind:
            case "text":
                return {"content": step.text}
            case "refusal":
                return {"refusal": step.text}
            case "shown_thought":
                return {self.stream.call.script.reasoning_shown: step.text}
            case _:
                return self._call_delta(part, step.text, opening=False)

    def _call_delta(self, part: Part, text: str, *, opening: bool) -> Json:
        if part.kind == "legacy_call":
            named = {"name": part.name} if opening else {}
            return {"function_call": {**named, "arguments": text}}
        kind, field = ("custom", "input") if part.kind == "custom" else ("function", "arguments")
        call: Json = {"index": self.calls}
        if opening:
            call |= {"id": part.call_id, "type": kind, kind: {"name": part.name, field: text}}
        else:
            call[kind] = {field: text}
        return {"tool_calls": [call]}

    def _delta(self, delta: Json, step: Step, part: Part) -> None:
        logprobs: Json | None = None
        if self.stream.call.logprobs and part.kind in ("text", "refusal"):
            logprobs = logprobs_json(self.stream.call, part, [step])
        self.stream.chunk([self._choice(delta, logprobs)], "output")

    def _choice(self, delta: Json, logprobs: Json | None) -> Json:
        choice: Json = {
            "index": self.index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": None,
        }
        if self.stream.call.script.azure:
            choice["content_filter_results"] = SAFE if delta.get("content") else {}
        return choice


def logprobs_json(call: Call, part: Part, steps: list[Step]) -> Json:
    vocabulary = vocabulary_of(call.model)
    ids = [token for step in steps for token in step.ids]
    entries = logprob_entries(ids, {token: vocabulary.bytes_of(token) for token in ids})
    if part.kind == "refusal":
        return {"content": None, "refusal": entries}
    return {"content": entries, "refusal": None}


def fingerprint(call: Call) -> str:
    return f"fp_{sum(call.served_model.encode()):010x}"


def zeroed(usage: Json) -> Json:
    """The same object with every number an explicit 0."""
    return {k: zeroed(v) if isinstance(v, dict) else 0 for k, v in usage.items()}


def chat_answer(call: Call) -> Json:
    """The same answer, not streamed."""
    filtered = {"prompt_filter_results": FILTERED_PROMPT} if call.script.azure else {}
    return {
        "id": call.response_id,
        "object": "chat.completion",
        "created": call.created,
        "model": call.served_model,
        "choices": [_whole_choice(call, i, choice) for i, choice in enumerate(call.choices)],
        "service_tier": call.script.service_tier,
        "system_fingerprint": fingerprint(call),
        **filtered,
    }


def _whole_choice(call: Call, index: int, choice: Choice) -> Json:
    message: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    logprobs: Json | None = None
    for part in choice.shown:
        match part.kind:
            case "text":
                message["content"] = part.text
            case "refusal":
                message["refusal"] = part.text
            case "shown_thought":
                message[call.script.reasoning_shown] = part.text
            case "legacy_call":
                message["function_call"] = {"name": part.name, "arguments": part.text}
            case "custom":
                custom = {"name": part.name, "input": part.text}
                entry = {"id": part.call_id, "type": "custom", "custom": custom}
                message.setdefault("tool_calls", []).append(entry)
            case _:
                function = {"name": part.name, "arguments": part.text}
                entry = {"id": part.call_id, "type": "function", "function": function}
                message.setdefault("tool_calls", []).append(entry)
        if call.logprobs and part.kind in ("text", "refusal"):
            logprobs = logprobs_json(call, part, list(part.steps))
    whole: Json = {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": choice.finish_reason,
    }
    if call.script.azure:
        whole["content_filter_results"] = SAFE
    return whole
