"""Running usage through the gateway: asked for, hidden, remembered; exact where it is cut."""

import json

import pytest
from gateway_stage import ASKED, STREAMED, Behind, Stage, body_of, sse
from raw_http import chunked, exchange, raw_upstream, stream_head

from lastchunk import Basis, Ending
from lastchunk.simulator import Script, Simulator

GIVEN = Script(output_tokens=300, pacing_s=0.01, continuous_usage="given")


@pytest.fixture
def own(behind: Behind, shared_sim: Simulator) -> Stage:
    """A gateway that has learned nothing yet."""
    stage = behind(shared_sim.url)
    stage.sim = shared_sim
    return stage


def test_an_interruption_is_exact_for_what_was_delivered(own: Stage) -> None:
    with (
        own.client(script=GIVEN) as client,
        client.chat.completions.create(**STREAMED) as stream,
    ):
        for number, chunk in enumerate(stream):
            assert "usage" not in chunk.model_fields_set
            if number == 20:
                break
    settlement, billed = own.row().settlement, own.billed()[0]
    assert settlement is not None
    assert settlement.ending == Ending.CALLER_LEFT
    output, prompt = settlement.usage.output_tokens, settlement.usage.input_tokens
    assert output is not None
    assert prompt is not None
    assert (output.basis, prompt.basis) == (Basis.REPORTED_SO_FAR, Basis.REPORTED_SO_FAR)
    assert prompt.best == billed.prompt_tokens
    assert output.best >= 20
    assert output.low == output.best <= billed.output_tokens <= output.high


def test_who_asked_for_the_usage_chunk_gets_it_alone(own: Stage) -> None:
    script = Script(output_tokens=12, continuous_usage="given")
    with own.client(script=script) as client:
        chunks = list(client.chat.completions.create(**ASKED))
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage is not None
    settlement = own.row().settlement
    assert settlement is not None
    assert settlement.usage.basis == Basis.REPORTED


def test_a_server_that_rejects_it_is_asked_once(own: Stage) -> None:
    script = Script(output_tokens=5, continuous_usage="rejected")
    with own.client(script=script) as client:
        for _ in range(2):
            assert all(chunk.choices for chunk in client.chat.completions.create(**STREAMED))
    rows, billed = own.rows(3), own.billed(3)
    assert [bill.status for bill in billed] == [422, 200, 200]
    assert rows[1].call.attempt_of == rows[0].call_id
    assert [row.settlement.ending for row in rows if row.settlement] == [
        Ending.REFUSED,
        Ending.COMPLETED,
        Ending.COMPLETED,
    ]
    assert [bill.include_usage for bill in billed[1:]] == [True, True]


def test_every_other_byte_is_the_providers(behind: Behind) -> None:
    usage = {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2}
    said = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
        for text in ("so", 'a "usage":{"x":1} b', "")
    ]
    sent = b"".join(sse({**chunk, "usage": usage}) for chunk in said)
    last = sse({"id": "c", "choices": [], "usage": usage}) + b"data: [DONE]\n\n"
    body = sent + last
    pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
    with raw_upstream(stream_head() + chunked(*pieces)) as upstream:
        stage = behind(upstream.url)
        path, port = "/v1/chat/completions", stage.gateway.port
        told = exchange(port, "POST", path, stage.headers, body_of(STREAMED))
        heard = json.loads(upstream.heard[0].body)
    assert heard["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    # Written with spaces, as json.dumps does: the comma and the member go, the rest stays.
    assert told.body == b"".join(sse(chunk) for chunk in said) + b"data: [DONE]\n\n"
    stage.row()


def test_it_can_be_turned_off(behind: Behind, shared_sim: Simulator) -> None:
    stage = behind(shared_sim.url, running_usage=False)
    script = Script(output_tokens=5, continuous_usage="rejected")
    with stage.client(script=script) as client:
        list(client.chat.completions.create(**STREAMED))
    stage.row()
