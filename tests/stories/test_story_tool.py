"""The story tool itself: its judge says no where it must, and its scenery is what it seems."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from http.client import HTTPConnection

import pytest
from story import ALL, CHAT, LEFT, REPORTED, RESPONSES, Leave, Story, asking, played, stalled
from story_judge import Account, body_of, judge, objects_for_caller
from story_pure import play_pure
from story_stages import how_many_arrive
from story_tape import Tape, running_tape

from lastchunk.simulator import Script
from lastchunk.usage import Quantity

STORY = Story("plain")


def test_a_true_play_is_accepted():
    judge(STORY, "pure", play_pure(STORY))


def spoilt(**changes):
    play = play_pure(STORY)
    settlement = play.accounts[0].settlement
    return replace(play, accounts=[Account(replace(settlement, **changes))])


@pytest.mark.parametrize("off", [-1, 1])
@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
def test_a_token_too_many_or_too_few_is_found(name, off):
    usage = play_pure(STORY).accounts[0].settlement.usage
    wrong = Quantity.reported(getattr(usage, name).best + off)
    with pytest.raises(AssertionError, match="is not within"):
        judge(STORY, "pure", spoilt(usage=replace(usage, **{name: wrong})))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda play: replace(play, accounts=play.accounts * 2),
        lambda play: replace(play, accounts=[]),
        lambda play: replace(play, bills=play.bills * 2),
        lambda play: replace(play, got=play.got[:-1]),
        lambda play: replace(play, got=[*play.got[1:], play.got[0]]),
        lambda play: replace(play, error="APIError"),
        lambda play: replace(play, accounts=[replace(play.accounts[0], attempt_of="call_0")]),
    ],
)
def test_anything_else_that_is_off_is_found(spoil):
    with pytest.raises(AssertionError):
        judge(STORY, "pure", spoil(play_pure(STORY)))


def test_another_ending_or_basis_is_found():
    with pytest.raises(AssertionError):
        judge(replace(STORY, rows=(LEFT,)), "pure", play_pure(STORY))
    judge(replace(STORY, rows=(LEFT,), on={"pure": (REPORTED,)}), "pure", play_pure(STORY))


def test_a_shown_usage_chunk_is_found():
    play = play_pure(STORY)
    usage = objects_for_caller(replace(STORY, request=asking(CHAT)), body_of(STORY))[-1]
    assert usage["choices"] == []
    with pytest.raises(AssertionError):
        judge(STORY, "pure", replace(play, got=[*play.got, usage]))


def test_every_story_is_played_on_each_of_its_stages():
    stories = (STORY, replace(STORY, claim="other", stages=("sync",)))
    ids = [parameter.id for parameter in played(*stories)]
    assert ids == [*(f"--plain-{stage}" for stage in ALL), "--other-sync"]


def test_a_caller_counts_on_what_is_whole_only():
    whole = how_many_arrive(STORY)
    assert 0 < how_many_arrive(replace(STORY, script=stalled("mid"))) < whole
    assert how_many_arrive(replace(STORY, request=asking(CHAT))) == whole + 1
    assert how_many_arrive(replace(STORY, script=stalled("headers"), leave=Leave.CLOSE)) == 0


def test_only_those_who_would_not_be_told_are_asked_for():
    assert STORY.sent_request["stream_options"] == {"include_usage": True}
    for request in (asking(CHAT), RESPONSES):
        assert Story("x", request=request).sent_request == request
    obfuscated = {**CHAT, "stream_options": {"include_obfuscation": False}}
    sent = Story("x", request=obfuscated).sent_request
    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_the_provider_of_a_story_sends_the_body_that_the_judge_expects(scenery):
    story = Story("x", request=asking(CHAT), script=Script())
    asking_it = HTTPConnection("127.0.0.1", scenery.sim.port)
    headers = {"x-sim-tag": "tool"}
    asking_it.request("POST", "/v1/chat/completions", json.dumps(story.request), headers)
    raw = asking_it.getresponse().read()
    asking_it.close()
    (bill,) = scenery.sim.billed("tool")
    assert raw == body_of(story, number=bill.call, created=int(bill.at))


def test_a_tape_plays_its_pieces_in_time():
    with running_tape() as server:
        server.tape = Tape([b"one", 0.05, b"two"], status=299, content_type="text/x")
        with socket.create_connection(server.server_address) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
            raw = b"".join(iter(lambda: connection.recv(4096), b""))
    assert raw.startswith(b"HTTP/1.1 299 ")
    assert b"content-type: text/x\r\n" in raw
    assert raw.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
