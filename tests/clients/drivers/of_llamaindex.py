"""LlamaIndex's OpenAI and OpenAIResponses."""

from __future__ import annotations

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI, OpenAIResponses
from saw import MODEL, PROMPT, TOOL, TOOL_PURPOSE, Call, Saw


def look_up(place: str) -> str:
    return place


def stream(call: Call, saw: Saw) -> None:
    options = {
        "model": MODEL,
        "api_base": call.base_url,
        "api_key": "sk-test",
        "default_headers": call.headers,
    }
    if call.is_chat:
        asked = {"stream_options": {"include_usage": True}}
        model = OpenAI(additional_kwargs=asked, **options)
    else:
        model = OpenAIResponses(**options)
    if call.tools:
        tool = FunctionTool.from_defaults(look_up, name=TOOL, description=TOOL_PURPOSE)
        answers = model.stream_chat_with_tools([tool], user_msg=PROMPT)
    else:
        answers = model.stream_chat([ChatMessage(role="user", content=PROMPT)])
    for answer in answers:
        _look_at(answer, saw, call)
        if saw.heard(answer.delta, call):
            answers.close()
            return
    if call.tools:
        calls = model.get_tool_calls_from_response(answer)
        saw.tool = " ".join(str(found.tool_kwargs) for found in calls)


def _look_at(answer: object, saw: Saw, call: Call) -> None:
    """LlamaIndex shows a finish and usage only as the raw chunk or event."""
    raw = answer.raw
    if call.is_chat:
        for choice in raw.choices:
            saw.finish = choice.finish_reason or saw.finish
        if raw.usage is not None:
            saw.usage = (raw.usage.prompt_tokens, raw.usage.completion_tokens)
        return
    if raw.type == "error":
        saw.notes.append(f"an `error` event: {raw.code}")
    ended = getattr(raw, "response", None)
    if ended is not None and ended.usage is not None:
        saw.finish = ended.status
        saw.usage = (ended.usage.input_tokens, ended.usage.output_tokens)
