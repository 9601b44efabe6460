"""The real OpenAI client believes it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest

from lastchunk.simulator import Fault, Script, Simulator, write_script
from lastchunk.simulator.text import vocabulary_of

MESSAGES: Any = [{"role": "user", "content": "hello"}]
CITY: Any = {
    "type": "function",
    "function": {
        "name": "find_city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


class Boat(pydantic.BaseModel):
    name: str
    crew: list[str]
    length_m: float
    kind: str | None


@pytest.fixture
def client(sim: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=sim.base_url, api_key="none", max_retries=0) as made:
        yield made


def scripted(**fields: Any) -> dict[str, str]:
    return {"x-sim": write_script(Script(**fields))}


def test_a_stream_with_usage(client: openai.OpenAI, sim: Simulator) -> None:
    chunks = list(
        client.chat.completions.create(
            model="gpt-4o",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    [billed] = sim.bill()
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert vocabulary_of("gpt-4o").encode(text) == list(billed.output_ids)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == billed.output_tokens
    assert {chunk.id for chunk in chunks} == {billed.response_id}
    assert chunks[0].model == billed.model_served == "gpt-4o-2024-08-06"


@pytest.mark.parametrize("fields", [{}, {"gzip": "accepted"}, {"framing": "crlf"}, {"azure": True}])
def test_the_stream_helper(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    with client.chat.completions.stream(
        model="gpt-4o", messages=MESSAGES, extra_headers=scripted(packet_bytes=5, **fields)
    ) as stream:
        final = stream.get_final_completion()
    assert vocabulary_of("gpt-4o").count(final.choices[0].message.content or "") == 40


def test_tools_streamed_by_the_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="gpt-4o",
        messages=MESSAGES,
        tools=[CITY],
        extra_headers=scripted(kind="parallel_calls"),
    ) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls or []
    assert len(calls) >= 2
    assert {call.function.name for call in calls} == {"find_city"}
    parsed: Any = [call.function.parsed_arguments for call in calls]
    assert all(arguments["unit"] in ("c", "f") for arguments in parsed)


def test_a_parsed_answer_satisfies_its_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model="gpt-4o", messages=MESSAGES, response_format=Boat)
    assert isinstance(answer.choices[0].message.parsed, Boat)
    response = client.responses.parse(model="gpt-4o", input="hello", text_format=Boat)
    assert isinstance(response.output_parsed, Boat)


def test_a_parsed_answer_cut_by_its_limit_raises(client: openai.OpenAI, sim: Simulator) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model="gpt-4o", messages=MESSAGES, response_format=Boat, max_tokens=5
        )
    assert sim.bill()[0].output_tokens <= 5


@pytest.mark.parametrize(
    "kind", ["text", "tool_call", "parallel_calls", "custom_tool", "refusal", "reasoning", "mixed"]
)
def test_responses_streamed_by_the_helper(client: openai.OpenAI, sim: Simulator, kind: str) -> None:
    with client.responses.stream(
        model="gpt-4o",
        input="hello",
        extra_headers=scripted(kind=kind, reasoning_shown="summary"),
    ) as stream:
        response = stream.get_final_response()
    [billed] = sim.bill()
    assert response.id == billed.response_id
    assert response.usage is not None
    assert response.usage.output_tokens == billed.output_tokens
    details = response.usage.output_tokens_details
    assert details.reasoning_tokens == billed.reasoning_tokens


def test_a_response_in_one_piece(client: openai.OpenAI) -> None:
    response = client.responses.create(model="gpt-4o", input="hello", instructions="Be brief.")
    assert vocabulary_of("gpt-4o").count(response.output_text) == 40


def test_legacy_completions(client: openai.OpenAI, sim: Simulator) -> None:
    chunks = list(
        client.completions.create(
            model="gpt-3.5-turbo-instruct",
            prompt="hello",
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert vocabulary_of("gpt-3.5").count(text) == 40
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == sim.bill()[0].output_tokens == 40
    whole = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="hello")
    assert whole.choices[0].text == text


def test_embeddings_and_models(client: openai.OpenAI, sim: Simulator) -> None:
    answer = client.embeddings.create(model="text-embedding-3-small", input=["a", "b c"])
    assert len(answer.data) == 2
    assert answer.usage.prompt_tokens == sim.bill()[0].prompt_tokens == 3
    assert client.models.list().data


def test_azure(sim: Simulator) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=sim.url, api_version="2024-10-21", api_key="none"
    ) as client:
        chunks = list(
            client.chat.completions.create(
                model="gpt-4o",
                messages=MESSAGES,
                stream=True,
                extra_headers=scripted(azure=True, azure_async_filter=True),
            )
        )
    assert chunks[0].choices == []
    assert sim.bill()[0].delivered_tokens == 40


def test_the_sdks_retries_are_attempts_in_the_bill(sim: Simulator) -> None:
    fault = Fault("rst_before_headers", count=2)
    with openai.OpenAI(base_url=sim.base_url, api_key="none", max_retries=2) as client:
        client.chat.completions.create(
            model="gpt-4o",
            messages=MESSAGES,
            extra_headers={**scripted(fault=fault), "x-sim-tag": "retried"},
        )
    bill = sim.billed("retried")
    assert [billed.retry_count for billed in bill] == [0, 1, 2]
    assert [billed.ended for billed in bill] == ["fault:rst_before_headers"] * 2 + ["completed"]
    assert all(billed.billed for billed in bill)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("eof", openai.APIConnectionError),
        ("rst", openai.APIConnectionError),
        ("error_event", openai.APIError),
        ("garbage", ValueError),
        ("http_500", openai.InternalServerError),
        ("http_429", openai.RateLimitError),
        ("reject_stream_options", openai.BadRequestError),
    ],
)
def test_a_fault_is_the_error_that_the_sdk_makes_of_it(
    client: openai.OpenAI, fault: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        list(
            client.chat.completions.create(
                model="gpt-4o",
                messages=MESSAGES,
                stream=True,
                stream_options={"include_usage": True},
                extra_headers=scripted(fault=Fault(fault)),
            )
        )


def test_a_body_that_ends_early_but_cleanly_raises_nothing(
    client: openai.OpenAI, sim: Simulator
) -> None:
    chunks = list(
        client.chat.completions.create(
            model="gpt-4o",
            messages=MESSAGES,
            stream=True,
            extra_headers=scripted(fault=Fault("fin")),
        )
    )
    assert chunks[-1].choices[0].finish_reason is None
    assert sim.bill()[0].ended == "fault:fin"


@pytest.mark.parametrize("fault", ["error_event", "response_failed"])
def test_a_response_that_fails(client: openai.OpenAI, fault: Any) -> None:
    stream = client.responses.create(
        model="gpt-4o", input="hello", stream=True, extra_headers=scripted(fault=Fault(fault))
    )
    last = list(stream)[-1]
    assert last.type == ("error" if fault == "error_event" else "response.failed")


def test_an_async_stream_that_is_cancelled(sim: Simulator) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=sim.base_url, api_key="none") as client:
            stream = await client.chat.completions.create(
                model="gpt-4o",
                messages=MESSAGES,
                stream=True,
                extra_headers=scripted(output_tokens=500, pacing_s=0.01),
            )
            seen = asyncio.Semaphore(0)

            async def read() -> None:
                async with stream:
                    async for _ in stream:
                        seen.release()

            reading = asyncio.create_task(read())
            for _ in range(4):
                await seen.acquire()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading

    asyncio.run(main())
    [billed] = sim.bill()
    assert billed.ended == "client_gone"
    assert 3 <= billed.delivered_tokens < 500
