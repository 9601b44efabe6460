"""The Responses API: its events in their order, and the whole answer in one piece."""

from __future__ import annotations

from lastchunk.simulator.chat import zeroed
from lastchunk.simulator.frames import FrameKind, FrameWriter, Plan, logprob_entries
from lastchunk.simulator.provider_counts import Json, usage_json
from lastchunk.simulator.text import Step, vocabulary_of, write_text
from lastchunk.simulator.turn import Call, Part

# A summary is other text than the reasoning that was billed, and much shorter.
SUMMARY_TOKENS = 12


def responses_plan(call: Call) -> Plan:
    """All frames of a streamed response; there is no [DONE]."""
    return _ResponseStream(call).plan()


class _ResponseStream:
    def __init__(self, call: Call) -> None:
        self.call = call
        self.writer = FrameWriter(call)
        self.number = 0
        self.output: list[Json] = []

    def plan(self) -> Plan:
        call = self.call
        for event in ("created", "in_progress"):
            response = response_json(call, "in_progress", [], None)
            self._event(f"response.{event}", {"response": response}, "opening")
        for part in call.choices[0].parts:
            self._part(part)
        whole = call.choices[0].finish_reason != "length"
        status = "completed" if whole else "incomplete"
        usage = terminal_usage(self.writer)
        response = response_json(call, status, self.output, usage)
        told = usage is not None
        self._event(f"response.{status}", {"response": response}, "finish", usage=told)
        return self.writer.plan()

    def _event(
        self, name: str, fields: Json, kind: FrameKind = "aside", *, usage: bool = False
    ) -> None:
        payload = {"type": name, **fields, "sequence_number": self.number}
        self.number += 1
        self.writer.send(payload, kind, event=name, usage=usage)

    def _delta(self, name: str, fields: Json, step: Step) -> None:
        if not step.text:
            self.writer.silent()
            return
        padding = {"obfuscation": self.writer.padding()} if self.call.obfuscated else {}
        self._event(name, {**fields, "delta": step.text, **padding}, "output")

    def _part(self, part: Part) -> None:
        match part.kind:
            case "thought" | "shown_thought":
                self._reasoning(part)
            case "text" | "refusal":
                self._message(part)
            case _:
                self._call(part)

    def _item(self, name: str, item: Json) -> None:
        fields = {"output_index": len(self.output), "item": item}
        kind: FrameKind = "opening" if name == "added" else "aside"
        self._event(f"response.output_item.{name}", fields, kind)
        if name == "done":
            self.output.append(item)

    def _place(self, part: Part, **index: int) -> Json:
        return {"item_id": part.item_id, "output_index": len(self.output), **index}

    def _reasoning(self, part: Part) -> None:
        item: Json = {"id": part.item_id, "type": "reasoning", "summary": []}
        self._item("added", item)
        if part.kind == "shown_thought" and self.call.script.reasoning_shown == "reasoning_text":
            place = self._place(part, content_index=0)
            for step in part.steps:
                self.writer.spend(step.ids, thought=True)
                self._delta("response.reasoning_text.delta", place, step)
            self._event("response.reasoning_text.done", {**place, "text": part.text})
            item = {**item, "content": [{"type": "reasoning_text", "text": part.text}]}
            self._item("done", item)
            return
        for step in part.steps:
            self.writer.think(step.ids)
        if self.call.script.reasoning_shown != "hidden":
            item = {**item, "summary": [{"type": "summary_text", "text": self._summary(part)}]}
        self._item("done", item)

    def _summary(self, part: Part) -> str:
        """Tell a summary of the reasoning; its words are nowhere in the billed tokens."""
        text = summary_text(self.call)
        place = self._place(part, summary_index=0)
        name = "response.reasoning_summary_part"
        self._event(f"{name}.added", {**place, "part": {"type": "summary_text", "text": ""}})
        for word in text.split(" "):
            step = Step(f" {word}", ())
            self._delta("response.reasoning_summary_text.delta", place, step)
        self._event("response.reasoning_summary_text.done", {**place, "text": f" {text}"})
        self._event(f"{name}.done", {**place, "part": {"type": "summary_text", "text": f" {text}"}})
        return f" {text}"

    def _message(self, part: Part) -> None:
        refusal = part.kind == "refusal"
        place = self._place(part, content_index=0)
        self._item("added", message_item(self.call, part, "in_progress", empty=True))
        empty = content_json(self.call, part, empty=True)
        self._event("response.content_part.added", {**place, "part": empty})
        name = "response.refusal" if refusal else "response.output_text"
        for step in part.steps:
            self.writer.spend(step.ids)
            logprobs = {} if refusal else {"logprobs": logprobs_of(self.call, step.ids)}
            self._delta(f"{name}.delta", {**place, **logprobs}, step)
        self._end_after(part)
        told = {"refusal": part.text} if refusal else {"text": part.text, "logprobs": []}
        self._event(f"{name}.done", {**place, **told})
        whole = content_json(self.call, part)
        self._event("response.content_part.done", {**place, "part": whole})
        self._item("done", message_item(self.call, part, self._status()))

    def _call(self, part: Part) -> None:
        custom = part.kind == "custom"
        place = self._place(part)
        self.writer.spend(part.opening)
        self._item("added", call_item(part, "in_progress", empty=True))
        name = "response.custom_tool_call_input" if custom else "response.function_call_arguments"
        for step in part.steps:
            self.writer.spend(step.ids)
            self._delta(f"{name}.delta", place, step)
        self._end_after(part)
        told = {"input": part.text} if custom else {"arguments": part.text, "name": part.name}
        self._event(f"{name}.done", {**place, **told})
        self._item("done", call_item(part, self._status()))

    def _end_after(self, part: Part) -> None:
        choice = self.call.choices[0]
        if part is choice.parts[-1]:
            self.writer.end(choice.end_of_turn)

    def _status(self) -> str:
        return "incomplete" if self.call.choices[0].finish_reason == "length" else "completed"


def terminal_usage(writer: FrameWriter) -> Json | None:
    """The usage in the terminal event; most styles are chat's and leave this one standard."""
    style = writer.call.script.usage_style
    usage = usage_json(writer.full_counts(), "responses", writer.call.model)
    if style == "missing":
        return None
    return zeroed(usage) if style == "zero" else usage


def summary_text(call: Call) -> str:
    vocabulary = vocabulary_of(call.model)
    return write_text(vocabulary, "english", SUMMARY_TOKENS, f"{call.seed}:summary")


def logprobs_of(call: Call, ids: tuple[int, ...]) -> list[Json]:
    if not call.logprobs:
        return []
    vocabulary = vocabulary_of(call.model)
    return logprob_entries(ids, {token: vocabulary.bytes_of(token) for token in ids})


def content_json(call: Call, part: Part, *, empty: bool = False) -> Json:
    text = "" if empty else part.text
    if part.kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def message_item(call: Call, part: Part, status: str, *, empty: bool = False) -> Json:
    content = [] if empty else [content_json(call, part)]
    return {
        "id": part.item_id,
        "type": "message",
        "status": status,
        "content": content,
        "role": "assistant",
    }


def call_item(part: Part, status: str, *, empty: bool = False) -> Json:
    text = "" if empty else part.text
    item: Json = {"id": part.item_id, "status": status, "call_id": part.call_id, "name": part.name}
    if part.kind == "custom":
        return {**item, "type": "custom_tool_call", "input": text}
    return {**item, "type": "function_call", "arguments": text}


def response_json(call: Call, status: str, output: list[Json], usage: Json | None) -> Json:
    """A Response object as it stands at one moment; `usage` is null until the end."""
    body = call.body
    over = status in ("completed", "incomplete", "failed")
    reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return {
        "id": call.response_id,
        "object": "response",
        "created_at": call.created,
        "status": status,
        "background": False,
        "completed_at": call.created + 1 if status == "completed" else None,
        "error": None,
        "incomplete_details": reason,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": call.served_model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": call.script.service_tier if over else "auto",
        "store": body.get("store", True),
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
        "user": None,
        "metadata": body.get("metadata") or {},
    }


def responses_answer(call: Call) -> Json:
    """The same answer, not streamed; its usage is filled in by the caller."""
    writer = FrameWriter(call)
    whole = call.choices[0].finish_reason != "length"
    status = "completed" if whole else "incomplete"
    output: list[Json] = []
    for part in call.choices[0].parts:
        match part.kind:
            case "thought":
                shown = call.script.reasoning_shown != "hidden"
                told = [{"type": "summary_text", "text": f" {summary_text(call)}"}] if shown else []
                output.append({"id": part.item_id, "type": "reasoning", "summary": told})
            case "shown_thought":
                told = [{"type": "reasoning_text", "text": part.text}]
                item = {"id": part.item_id, "type": "reasoning", "summary": [], "content": told}
                output.append(item)
            case "text" | "refusal":
                output.append(message_item(call, part, status))
            case _:
                output.append(call_item(part, status))
    return response_json(call, status, output, terminal_usage(writer))
