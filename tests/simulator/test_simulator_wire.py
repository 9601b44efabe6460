"""Real sockets: how bodies end, and what of them a client can see."""

import time
import zlib

import pytest
from sim_http import CHAT, RESPONSES, ask, connect, read_to_end

from lastchunk.simulator import Fault, Script, Simulator, render


def test_a_clean_stream_ends_its_body(sim: Simulator) -> None:
    answer = ask(sim, CHAT)
    assert (answer.status, answer.terminated, answer.ended) == (200, True, "fin")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"]
    assert answer.body.endswith(b"data: [DONE]\n\n")
    [billed] = sim.bill()
    assert (billed.ended, billed.usage_sent, billed.delivered_tokens) == ("completed", True, 40)
    assert answer.events[-1]["usage"] == billed.usage
    assert answer.events[-1]["id"] == billed.response_id


@pytest.mark.parametrize(
    ("fault", "terminated", "ended"),
    [("fin", True, "fin"), ("eof", False, "fin"), ("rst", False, "rst")],
)
def test_a_cut_looks_as_it_should_on_the_socket(
    sim: Simulator, fault: str, terminated: bool, ended: str
) -> None:
    script = Script(reaction_tokens=0, fault=Fault(fault))  # type: ignore[arg-type]
    answer = ask(sim, CHAT, script=script)
    assert (answer.terminated, answer.ended) == (terminated, ended)
    [billed] = sim.bill()
    assert billed.ended == f"fault:{fault}"
    assert billed.delivered_tokens == len(billed.output_ids) == 20
    assert answer.body.count(b'"content":"') == 21  # the role chunk says "" first
    assert not billed.usage_sent


@pytest.mark.parametrize("at", [0, 1, 1000, 1999])
def test_a_byte_offset_holds_on_the_wire(sim: Simulator, at: int) -> None:
    answer = ask(sim, CHAT, script=Script(fault=Fault("eof", at=at)))
    assert len(answer.body) == at


def test_a_stall_sends_nothing_until_the_client_leaves(sim: Simulator) -> None:
    script = Script(fault=Fault("stall", at="first_chunk", seconds=60), reaction_tokens=2)
    answer = ask(sim, CHAT, script=script, timeout=0.2)
    assert answer.ended == "timeout"
    [billed] = sim.bill()
    assert (billed.ended, billed.delivered_tokens) == ("fault:stall", 1)
    assert len(billed.output_ids) == 3


def test_a_stall_ends_after_its_time(sim: Simulator) -> None:
    answer = ask(sim, CHAT, script=Script(fault=Fault("stall", seconds=0.05)))
    assert (answer.ended, answer.terminated) == ("fin", False)


def test_a_connection_is_held_open_after_done(sim: Simulator) -> None:
    script = Script(fault=Fault("hold_after_done", seconds=0.5))
    began = time.monotonic()
    with connect(sim, CHAT, script=script, headers={"connection": "close"}) as connection:
        raw = b""
        while b"[DONE]" not in raw:
            raw += connection.recv(65_536)
        done_after = time.monotonic() - began
        read_to_end(connection)
    assert done_after < 0.5 <= time.monotonic() - began
    assert sim.bill()[0].ended == "completed"


def test_a_client_that_leaves_a_held_connection_has_a_completed_call(sim: Simulator) -> None:
    with connect(sim, CHAT, script=Script(fault=Fault("hold_after_done"))) as connection:
        raw = b""
        while b"[DONE]" not in raw:
            raw += connection.recv(65_536)
    assert sim.bill()[0].ended == "completed"


@pytest.mark.parametrize("fault", ["rst_before_headers", "stall_before_headers"])
def test_a_call_can_be_billed_though_no_header_came(sim: Simulator, fault: str) -> None:
    script = Script(fault=Fault(fault, seconds=0.05), reaction_tokens=2)  # type: ignore[arg-type]
    answer = ask(sim, CHAT, script=script)
    assert (answer.status, answer.body) == (0, b"")
    [billed] = sim.bill()
    assert billed.ended == f"fault:{fault}"
    assert (billed.output_tokens, billed.delivered_tokens) == (2, 0)
    assert billed.prompt_tokens == 8


def test_a_client_that_leaves_stops_the_generation(sim: Simulator) -> None:
    script = Script(output_tokens=500, pacing_s=0.005, reaction_tokens=3)
    with connect(sim, CHAT, script=script) as connection:
        raw = b""
        while raw.count(b'"content":"') < 6:
            raw += connection.recv(65_536)
    [billed] = sim.bill()
    assert billed.ended == "client_gone"
    assert 5 <= billed.delivered_tokens < 500
    assert len(billed.output_ids) == billed.delivered_tokens + 3
    assert billed.end_of_turn == 0
    assert billed.finish_reason is None


def test_a_client_that_leaves_during_hidden_reasoning_pays_for_it(sim: Simulator) -> None:
    script = Script(reasoning_tokens=400, pacing_s=0.005, reaction_tokens=0)
    with connect(sim, RESPONSES, script=script, path="/v1/responses") as connection:
        connection.recv(65_536)
        time.sleep(0.1)
    [billed] = sim.bill()
    assert billed.ended == "client_gone"
    assert billed.delivered_tokens == 0
    assert 0 < billed.reasoning_tokens == billed.output_tokens < 400


def test_an_answer_in_one_piece_is_billed_whole_though_the_client_left(sim: Simulator) -> None:
    with connect(sim, {**CHAT, "stream": False}, script=Script(pacing_s=0.05)):
        while not sim.open_calls:
            time.sleep(0.005)
        time.sleep(0.05)  # the request is being thought about
    [billed] = sim.bill()
    assert (billed.ended, billed.delivered_tokens) == ("client_gone", 0)
    assert billed.output_tokens == 40


def test_an_answer_in_one_piece_can_be_cut(sim: Simulator) -> None:
    answer = ask(sim, {**CHAT, "stream": False}, script=Script(fault=Fault("eof")))
    assert 0 < len(answer.body) < int(answer.headers["content-length"])


@pytest.mark.parametrize(
    ("script", "accepts", "compressed"),
    [
        (Script(gzip="accepted"), "gzip, deflate", True),
        (Script(gzip="accepted"), "identity", False),
        (Script(gzip="forced"), "identity", True),
        (Script(), "gzip", False),
    ],
)
def test_a_body_is_compressed_frame_by_frame(
    sim: Simulator, script: Script, accepts: str, compressed: bool
) -> None:
    answer = ask(sim, CHAT, script=script, headers={"accept-encoding": accepts})
    assert ("content-encoding" in answer.headers) == compressed
    body = zlib.decompress(answer.body, wbits=31) if compressed else answer.body
    assert body.endswith(b"data: [DONE]\n\n")


def test_a_cut_compressed_body_can_be_read_up_to_the_cut(sim: Simulator) -> None:
    script = Script(gzip="forced", fault=Fault("eof", at="tokens:5"))
    answer = ask(sim, CHAT, script=script)
    body = zlib.decompressobj(wbits=31).decompress(answer.body)
    assert body.count(b'"content":"') == 6


def test_packets_split_characters_and_frames_but_change_no_byte(sim: Simulator) -> None:
    script = Script(language="chinese", packet_bytes=7, obfuscation=False)
    with connect(sim, CHAT, script=script, headers={"connection": "close"}) as connection:
        raw, _ = read_to_end(connection)
    assert b"\r\n7\r\n" in raw
    whole = ask(sim, CHAT, script=Script(language="chinese", obfuscation=False))
    split = ask(sim, CHAT, script=script)
    texts = [
        [choice["delta"] for event in answer.events for choice in event["choices"]]
        for answer in (whole, split)
    ]
    assert texts[0] == texts[1]


def test_first_token_and_chunks_come_at_the_scripted_pace(sim: Simulator) -> None:
    script = Script(output_tokens=10, first_token_delay_s=0.1, pacing_s=0.01)
    began = time.monotonic()
    ask(sim, CHAT, script=script)
    assert time.monotonic() - began >= 0.2


def test_the_rendered_body_is_the_body_on_the_wire(sim: Simulator) -> None:
    script = Script(kind="mixed", language="german", obfuscation=False, reuse_id=True)
    answer = ask(sim, CHAT, script=script)
    created = answer.events[0]["created"]
    assert render(script, CHAT, created=created).body == answer.body


def test_connections_are_kept_alive_between_calls(sim: Simulator) -> None:
    with connect(sim, CHAT) as connection:
        for _ in range(3):
            raw = b""
            while not raw.endswith(b"\r\n0\r\n\r\n"):
                raw += connection.recv(65_536)
            body = b'{"model":"gpt-4o","stream":true,"messages":[]}'
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: s\r\ncontent-length: {len(body)}"
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
        while not raw.endswith(b"\r\n0\r\n\r\n") or len(sim.bill()) < 4:
            raw += connection.recv(65_536)
    assert [billed.ended for billed in sim.bill()] == ["completed"] * 4
