"""Reads the body of a chat completion request as a prompt."""

from __future__ import annotations

from collections.abc import Mapping

from lastchunk.wire.prompt_parts import Prompt, ToolCall, Turn
from lastchunk.wire.prompt_reading import (
    Unknowns,
    items,
    mapping,
    read_answer_schema,
    read_content,
    read_functions,
    read_tool_choice,
    read_tools,
    text,
)


def read_chat(body: Mapping[str, object]) -> Prompt:
    """The prompt of `/chat/completions`; never raises."""
    unknowns = Unknowns()
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for value in items(body.get("messages")):
        turn = _turn(mapping(value), names, unknowns)
        turns.append(turn)
    choice = body.get("tool_choice")
    if choice is None:
        choice = body.get("function_call")
    tool_choice, forced_name = read_tool_choice(choice, unknowns)
    tools = read_tools(items(body.get("tools")), unknowns)
    prediction = read_content(mapping(body.get("prediction")).get("content"), unknowns)
    if body.get("web_search_options") is not None:
        unknowns.add("builtin_tool", "web_search")
    return Prompt(
        turns=tuple(turns),
        tools=tools + read_functions(items(body.get("functions"))),
        tool_choice=tool_choice,
        forced_name=forced_name,
        answer_schema=read_answer_schema(mapping(body.get("response_format")), unknowns),
        prediction="".join(prediction.texts) or None,
        unknowns=unknowns.sorted(),
    )


def _turn(message: Mapping[str, object], names: dict[str, str], unknowns: Unknowns) -> Turn:
    content = read_content(message.get("content"), unknowns)
    role = text(message.get("role"))
    refusal = text(message.get("refusal"))
    calls = tuple(_calls(message, names, unknowns))
    answers = None
    if role == "tool":
        answers = names.get(text(message.get("tool_call_id")), "")
    elif role == "function":
        answers = text(message.get("name"))
    if message.get("audio") is not None:
        unknowns.add("audio")
    return Turn(
        role=role,
        texts=(*content.texts, refusal) if refusal else content.texts,
        name=text(message.get("name")) or None,
        pictures=content.pictures,
        calls=calls,
        answers=answers,
    )


def _calls(
    message: Mapping[str, object], names: dict[str, str], unknowns: Unknowns
) -> list[ToolCall]:
    calls: list[ToolCall] = []
    for value in items(message.get("tool_calls")):
        call = mapping(value)
        function = mapping(call.get("function"))
        if not function:
            unknowns.add("custom_call")
            function = mapping(call.get("custom"))
        name = text(function.get("name"))
        names[text(call.get("id"))] = name
        calls.append(ToolCall(name, text(function.get("arguments")) or text(function.get("input"))))
    legacy = mapping(message.get("function_call"))
    if legacy:
        calls.append(ToolCall(text(legacy.get("name")), text(legacy.get("arguments"))))
    return calls
