"""pydantic-ai: an agent for text, the model itself for a tool call."""

from __future__ import annotations

import openai
from pydantic_ai import Agent, ModelRequest
from pydantic_ai.direct import model_request_stream
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition
from saw import MODEL, PARAMETERS, PROMPT, TOOL, TOOL_PURPOSE, Call, Saw


async def stream(call: Call, saw: Saw) -> None:
    client = openai.AsyncOpenAI(**call.client)
    kind = OpenAIChatModel if call.is_chat else OpenAIResponsesModel
    model = kind(MODEL, provider=OpenAIProvider(openai_client=client))
    try:
        await (_tool(model, saw) if call.tools else _text(model, call, saw))
    finally:
        await client.close()


async def _text(model: object, call: Call, saw: Saw) -> None:
    async with Agent(model).run_stream(PROMPT) as run:
        try:
            async for delta in run.stream_text(delta=True, debounce_by=None):
                if saw.heard(delta, call):
                    return
        finally:
            _count(run.usage, saw)
        saw.finish = run.response.finish_reason


async def _tool(model: object, saw: Saw) -> None:
    tool = ToolDefinition(name=TOOL, description=TOOL_PURPOSE, parameters_json_schema=PARAMETERS)
    parameters = ModelRequestParameters(function_tools=[tool])
    asked = [ModelRequest.user_text_prompt(PROMPT)]
    async with model_request_stream(model, asked, model_request_parameters=parameters) as events:
        async for _ in events:
            pass
        answer = events.get()
    saw.tool = " ".join(part.args_as_json_str() for part in answer.tool_calls)
    saw.finish = answer.finish_reason
    _count(answer.usage, saw)


def _count(usage: object, saw: Saw) -> None:
    if usage.output_tokens:
        saw.usage = (usage.input_tokens, usage.output_tokens)
