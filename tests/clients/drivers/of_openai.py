"""openai-python, its synchronous client."""

from __future__ import annotations

from typing import Any

import openai
from saw import MODEL, PARAMETERS, PROMPT, TOOL, Call, Saw


def stream(call: Call, saw: Saw) -> None:
    with openai.OpenAI(**call.client) as client:
        (chat if call.is_chat else responses)(client, call, saw)


def chat(client: openai.OpenAI, call: Call, saw: Saw) -> None:
    function = {"name": TOOL, "parameters": PARAMETERS}
    tools: Any = {"tools": [{"type": "function", "function": function}]} if call.tools else {}
    with client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": PROMPT}],
        stream=True,
        stream_options={"include_usage": True},
        **tools,
    ) as chunks:
        for chunk in chunks:
            if chunk.usage is not None:
                saw.usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
            for choice in chunk.choices:
                for part in choice.delta.tool_calls or ():
                    saw.tool += part.function.arguments or ""
                saw.finish = choice.finish_reason or saw.finish
                if saw.heard(choice.delta.content, call):
                    return


def responses(client: openai.OpenAI, call: Call, saw: Saw) -> None:
    tool = {"type": "function", "name": TOOL, "parameters": PARAMETERS, "strict": True}
    tools: Any = {"tools": [tool]} if call.tools else {}
    with client.responses.create(model=MODEL, input=PROMPT, stream=True, **tools) as events:
        for event in events:
            match event.type:
                case "response.output_text.delta":
                    if saw.heard(event.delta, call):
                        return
                case "response.function_call_arguments.delta":
                    saw.tool += event.delta
                case "response.completed" | "response.incomplete":
                    saw.finish = event.response.status
                    usage = event.response.usage
                    saw.usage = (usage.input_tokens, usage.output_tokens)
                case "error":
                    saw.notes.append(f"an `error` event: {event.code}")
