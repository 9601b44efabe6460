"""LangChain's ChatOpenAI."""

from __future__ import annotations

from langchain_openai import ChatOpenAI
from saw import MODEL, PARAMETERS, PROMPT, TOOL, TOOL_PURPOSE, Call, Saw


def stream(call: Call, saw: Saw) -> None:
    model = ChatOpenAI(
        model=MODEL,
        base_url=call.base_url,
        api_key="sk-test",
        default_headers=call.headers,
        use_responses_api=not call.is_chat,
        stream_usage=True,  # it does not ask by itself where the base URL is not OpenAI's
    )
    function = {"name": TOOL, "description": TOOL_PURPOSE, "parameters": PARAMETERS}
    runnable = model.bind_tools([{"type": "function", "function": function}])
    chunks = (runnable if call.tools else model).stream(PROMPT)
    for chunk in chunks:
        if chunk.usage_metadata:
            told = chunk.usage_metadata
            saw.usage = (told["input_tokens"], told["output_tokens"])
        for part in chunk.tool_call_chunks:
            saw.tool += part["args"] or ""
        told = chunk.response_metadata
        saw.finish = told.get("finish_reason") or told.get("status") or saw.finish
        if saw.heard(chunk.text, call):
            chunks.close()
            return
