"""A whole response as its events, in the order and with the numbers that the API gives them."""

from __future__ import annotations

from lastchunk.wire.replay_logprobs import part_pieces
from lastchunk.wire.replay_pieces import Json, frame, is_text, objects_in, pieces_of

_AT_FIRST: Json = {
    "status": "in_progress",
    "output": [],
    "usage": None,
    "error": None,
    "incomplete_details": None,
    "completed_at": None,
}
"""What a response says of itself before anything has come. Keys it does not have stay away."""

_ENDS = ("completed", "incomplete", "failed")

_ARGUMENTS: dict[str, tuple[str, str]] = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
    "mcp_call": ("arguments", "response.mcp_call_arguments"),
    "code_interpreter_call": ("code", "response.code_interpreter_call_code"),
}
"""Items with a text that comes in deltas: where it is, and the name of its events."""

_TOLD_WITH_NAME = "response.function_call_arguments"

_PROGRESS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "web_search_call": (("in_progress", "searching", "completed"), ()),
    "file_search_call": (("in_progress", "searching", "completed"), ()),
    "image_generation_call": (("in_progress", "generating", "completed"), ()),
    "mcp_list_tools": (("in_progress", "completed"), ()),
    "mcp_call": (("in_progress",), ("completed",)),
    "code_interpreter_call": (("in_progress",), ("interpreting", "completed")),
}
"""What an item tells of its progress before its text and after it."""

_PART_EVENTS: dict[str, tuple[str, str]] = {
    "output_text": ("text", "response.output_text"),
    "refusal": ("refusal", "response.refusal"),
}

_LONG_LEFT_OUT = ("result", "results", "outputs", "output")
"""What an item only has once it is done."""


def responses_frames(whole: Json) -> list[bytes] | None:
    """The stream of a response; None where it is none."""
    if not isinstance(whole.get("output"), list):
        if not whole.get("error"):
            return None
        return _Replay(whole).failed() if "status" in whole else _Replay(whole).error()
    return _Replay(whole).frames()


class _Replay:
    def __init__(self, whole: Json) -> None:
        self._whole = whole
        self._frames: list[bytes] = []

    def frames(self) -> list[bytes]:
        self._begin()
        for index, item in enumerate(objects_in(self._whole["output"])):
            self._item(index, item)
        status = self._whole.get("status", "completed")
        if status in _ENDS:
            self._event(f"response.{status}", {"response": self._whole})
        elif status != "in_progress":  # queued; there is no event for a cancelled one
            name = "queued" if status == "queued" else "incomplete"
            self._event(f"response.{name}", {"response": self._whole})
        return self._frames

    def failed(self) -> list[bytes]:
        self._begin()
        self._event("response.failed", {"response": self._whole})
        return self._frames

    def error(self) -> list[bytes]:
        error = self._whole["error"]
        told = error if isinstance(error, dict) else {"message": str(error)}
        fields = {name: told.get(name) for name in ("code", "message", "param")}
        self._event("error", fields)
        return self._frames

    def _begin(self) -> None:
        at_first = {name: _AT_FIRST.get(name, value) for name, value in self._whole.items()}
        for name in ("created", "in_progress"):
            self._event(f"response.{name}", {"response": at_first})

    def _event(self, name: str, fields: Json) -> None:
        payload = {"type": name, **fields, "sequence_number": len(self._frames)}
        self._frames.append(frame(payload, name))

    def _deltas(self, name: str, place: Json, text: str) -> None:
        for piece in pieces_of(text):
            self._event(name, {**place, "delta": piece})

    def _item(self, index: int, item: Json) -> None:
        kind = item.get("type")
        place: Json = {"item_id": item.get("id", ""), "output_index": index}
        self._event("response.output_item.added", {"output_index": index, "item": _begun(item)})
        if kind == "message":
            for number, part in enumerate(objects_in(item.get("content"))):
                self._part({**place, "content_index": number}, part)
        elif kind == "reasoning":
            self._reasoning(place, item)
        elif isinstance(kind, str):
            self._work(kind, place, item)
        self._event("response.output_item.done", {"output_index": index, "item": item})

    def _work(self, kind: str, place: Json, item: Json) -> None:
        """A call: its progress, its text, its progress after that."""
        before, after = _PROGRESS.get(kind, ((), ()))
        failed = item.get("status") == "failed" or bool(item.get("error"))
        self._progress(kind, place, before, failed=failed and not after)
        if kind in _ARGUMENTS:
            field, name = _ARGUMENTS[kind]
            text = item.get(field)
            if isinstance(text, str):
                self._deltas(f"{name}.delta", place, text)
                named = {"name": item.get("name")} if name == _TOLD_WITH_NAME else {}
                self._event(f"{name}.done", {**place, field: text, **named})
        self._progress(kind, place, after, failed=failed)

    def _progress(self, kind: str, place: Json, steps: tuple[str, ...], *, failed: bool) -> None:
        for step in steps:
            told = "failed" if failed and step == "completed" and "mcp" in kind else step
            self._event(f"response.{kind}.{told}", place)

    def _part(self, place: Json, part: Json) -> None:
        field, name = _PART_EVENTS.get(str(part.get("type")), ("", ""))
        text = part.get(field)
        if not isinstance(text, str):
            self._event("response.content_part.added", {**place, "part": part})
            self._event("response.content_part.done", {**place, "part": part})
            return
        emptied = {"annotations": [], "logprobs": [], field: ""}
        empty = {key: emptied.get(key, value) for key, value in part.items()}
        self._event("response.content_part.added", {**place, "part": empty})
        if field == "text":
            self._text(place, part, text)
        else:
            self._deltas(f"{name}.delta", place, text)
            self._event(f"{name}.done", {**place, field: text})
        self._event("response.content_part.done", {**place, "part": part})

    def _text(self, place: Json, part: Json, text: str) -> None:
        logprobs = part.get("logprobs")
        for piece, tokens in part_pieces(text, logprobs):
            self._event("response.output_text.delta", {**place, "delta": piece, "logprobs": tokens})
        for number, annotation in enumerate(objects_in(part.get("annotations"))):
            self._event(
                "response.output_text.annotation.added",
                {**place, "annotation_index": number, "annotation": annotation},
            )
        self._event(
            "response.output_text.done", {**place, "text": text, "logprobs": logprobs or []}
        )

    def _reasoning(self, place: Json, item: Json) -> None:
        for number, part in enumerate(objects_in(item.get("summary"))):
            if not is_text(text := part.get("text")):
                continue
            at = {**place, "summary_index": number}
            name = "response.reasoning_summary"
            self._event(f"{name}_part.added", {**at, "part": {**part, "text": ""}})
            self._deltas(f"{name}_text.delta", at, text)
            self._event(f"{name}_text.done", {**at, "text": text})
            self._event(f"{name}_part.done", {**at, "part": part})
        for number, part in enumerate(objects_in(item.get("content"))):
            if is_text(text := part.get("text")):
                at = {**place, "content_index": number}
                self._deltas("response.reasoning_text.delta", at, text)
                self._event("response.reasoning_text.done", {**at, "text": text})


def _begun(item: Json) -> Json:
    """An item as it is added: its texts are still to come."""
    kind = item.get("type")
    begun = {name: value for name, value in item.items() if name not in _LONG_LEFT_OUT}
    if "status" in begun:
        begun["status"] = "in_progress"
    if kind == "message":
        begun["content"] = []
    elif kind == "reasoning":
        begun.pop("content", None)
        begun.pop("encrypted_content", None)
        begun["summary"] = []
    elif kind in _ARGUMENTS:
        field = _ARGUMENTS[str(kind)][0]
        if isinstance(begun.get(field), str):
            begun[field] = ""
    return begun
