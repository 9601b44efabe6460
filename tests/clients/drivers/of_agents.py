"""The OpenAI Agents SDK."""

from __future__ import annotations

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from saw import MODEL, PROMPT, Call, Saw

set_tracing_disabled(True)


@function_tool
def look_up(place: str) -> str:
    """Looks up a place."""
    return place


async def stream(call: Call, saw: Saw) -> None:
    client = openai.AsyncOpenAI(**call.client)
    kind = OpenAIChatCompletionsModel if call.is_chat else OpenAIResponsesModel
    agent = Agent(
        name="sailor",
        model=kind(MODEL, client),
        model_settings=ModelSettings(include_usage=True),
        tools=[look_up] if call.tools else [],
        tool_use_behavior="stop_on_first_tool",
    )
    run = Runner.run_streamed(agent, PROMPT, max_turns=2)
    try:
        async for event in run.stream_events():
            if event.type == "raw_response_event" and _left(event.data, saw, call):
                run.cancel()
    finally:
        spent = run.context_wrapper.usage
        if spent.total_tokens:
            saw.usage = (spent.input_tokens, spent.output_tokens)
        if run.final_output and not call.tools:
            saw.notes.append("`final_output` is the text")
        await client.close()


def _left(data: object, saw: Saw, call: Call) -> bool:
    match data.type:
        case "response.output_text.delta":
            return saw.heard(data.delta, call)
        case "response.function_call_arguments.delta":
            saw.tool += data.delta
        case "response.completed" | "response.incomplete":
            saw.finish = data.response.status or "completed"
        case "error":
            saw.notes.append(f"an `error` event: {data.code}")
    return False
