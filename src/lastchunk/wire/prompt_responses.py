"""Reads the body of a responses request as a prompt."""

from __future__ import annotations

from collections.abc import Mapping

from lastchunk.wire.prompt_parts import Prompt, ToolCall, Turn
from lastchunk.wire.prompt_reading import (
    Unknowns,
    items,
    mapping,
    read_answer_schema,
    read_content,
    read_tool_choice,
    read_tools,
    text,
)

_ELSEWHERE = ("previous_response_id", "conversation", "context_management")


def read_responses(body: Mapping[str, object]) -> Prompt:
    """The prompt of `/responses`; never raises."""
    unknowns = Unknowns()
    for key in _ELSEWHERE:
        if body.get(key):
            unknowns.add(key)
    if body.get("prompt"):
        unknowns.add("prompt_template")
    reasoning = mapping(body.get("reasoning"))
    if text(reasoning.get("mode")) not in ("", "standard", "auto"):
        unknowns.add("reasoning_mode")
    if reasoning.get("context") is not None:
        unknowns.add("reasoning_context")
    turns = _turns(body.get("input"), unknowns)
    tool_choice, forced_name = read_tool_choice(body.get("tool_choice"), unknowns)
    instructions = body.get("instructions")
    return Prompt(
        turns=tuple(turns),
        instructions=instructions if isinstance(instructions, str) else None,
        tools=read_tools(items(body.get("tools")), unknowns),
        tool_choice=tool_choice,
        forced_name=forced_name,
        answer_schema=read_answer_schema(
            mapping(mapping(body.get("text")).get("format")), unknowns
        ),
        unknowns=unknowns.sorted(),
    )


def _turns(value: object, unknowns: Unknowns) -> list[Turn]:
    if isinstance(value, str):
        return [Turn("user", (value,))]
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for entry in items(value):
        turn = _turn(mapping(entry), names, unknowns)
        if turn is not None:
            turns.append(turn)
    return turns


def _turn(item: Mapping[str, object], names: dict[str, str], unknowns: Unknowns) -> Turn | None:
    kind = text(item.get("type")) or "message"
    if kind == "message":
        content = read_content(item.get("content"), unknowns)
        return Turn(text(item.get("role")), content.texts, pictures=content.pictures)
    if kind == "function_call":
        name = text(item.get("name"))
        names[text(item.get("call_id"))] = name
        if item.get("namespace"):
            unknowns.add("namespace_tool")
        call = ToolCall(name, text(item.get("arguments")), marked=item.get("status") is not None)
        return Turn("assistant", calls=(call,))
    if kind == "function_call_output":
        content = read_content(item.get("output"), unknowns)
        name = names.get(text(item.get("call_id")), "")
        return Turn("tool", content.texts, pictures=content.pictures, answers=name)
    if kind == "reasoning":
        if item.get("encrypted_content"):
            unknowns.add("encrypted_reasoning")
        elif item.get("summary") or item.get("content") or item.get("id"):
            unknowns.add("stored_reasoning")
        return None
    unknowns.add("item", kind)
    return None
