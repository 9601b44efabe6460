"""The pure stage: meter and settle alone, driven by a list of frames."""

from __future__ import annotations

from dataclasses import replace

from story import Leave, Story
from story_judge import Account, Play, objects_for_caller, told_by
from story_tape import Tape

from lastchunk.meter.ending import Ending, Stop, ending_of
from lastchunk.meter.meter import Meter
from lastchunk.meter.observation import Observation
from lastchunk.pricing.book import PriceBook
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.settlement.forecast import forecast
from lastchunk.settlement.settle import settle
from lastchunk.simulator import Rendered
from lastchunk.tokens.encodings import encoding_of
from lastchunk.tokens.prompt import count_prompt
from lastchunk.tokens.tally import OutputTally
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.hide import UsageFrameHider
from lastchunk.wire.prompt import read_prompt
from lastchunk.wire.request import read_request

OPENED_MS = 1_760_000_000_000
FRAME_MS = 10
BOOK = PriceBook.load()
_DIALECTS = {
    "chat/completions": Dialect.CHAT,
    "responses": Dialect.RESPONSES,
    "completions": Dialect.COMPLETIONS,
}
_STOPS = {
    "clean": Stop.END_OF_BODY,
    "fin": Stop.END_OF_BODY,
    "hold": Stop.END_OF_BODY,
    "eof": Stop.CONNECTION_BROKE,
    "rst": Stop.CONNECTION_BROKE,
    "stall": Stop.TIMED_OUT,
}


def open_call(story: Story) -> OpenCall:
    request = read_request(
        _DIALECTS[story.endpoint], story.request, upstream="api.openai.com", body_bytes=400
    )
    return OpenCall(
        call_id="call_1",
        attempt_of=None,
        account="default",
        tags=(),
        request=request,
        forecast=forecast(request, BOOK, OPENED_MS),
        way="python",
        opened_ms=OPENED_MS,
    )


def play_pure(story: Story) -> Play:
    """Feeds what was delivered, frame by frame, and settles as the bookkeeper does."""
    rendered = told_by(story)
    call, meter, hider = open_call(story), Meter(open_call(story).request), UsageFrameHider()
    hides = story.sent_request != story.request
    tape = story.retold(rendered) if story.retold else Tape(rendered.frames)
    meter.headed(tape.status, tape.content_type if story.streamed else "application/json", None)
    now_ms, shown = OPENED_MS, []
    for frame in tape.pieces:
        now_ms += FRAME_MS
        if not isinstance(frame, bytes):
            continue
        meter.receive(frame, now_ms)
        shown.append(hider.feed(frame) if hides else frame)
    shown.append(hider.rest())
    meter.finish()
    seen = meter.observe(now_ms + FRAME_MS)
    settlement = settle_counted(story, call, meter, seen, _stop(story, rendered))
    # The hider did the hiding: what it let through is read as a caller who asked would read it.
    asker = replace(story, request=story.sent_request)
    got = objects_for_caller(asker, b"".join(shown))
    if story.error is not None:
        got = [chunk for chunk in got if not chunk.get("error")]
    bill = rendered.billed_at(len(rendered.body))
    return Play([Account(settlement)], [bill], got, story.error)


def settle_counted(
    story: Story, call: OpenCall, meter: Meter, seen: Observation, stop: Stop
) -> Settlement:
    ending = ending_of(seen.phase, seen.status, stop)
    if ending is not Ending.REFUSED:
        model = seen.model_served or call.request.model
        tally = OutputTally(encoding_of(model))
        for text in meter.take_texts():
            tally.add(text)
        prompt = count_prompt(
            read_prompt(call.request.dialect, story.request), model, call.request.dialect
        )
        seen = replace(
            seen,
            output=tally.counts(),
            prompt=prompt.quantity,
            prompt_reasons=prompt.reasons,
        )
    return settle(call, seen, ending, BOOK)


def _stop(story: Story, rendered: Rendered) -> Stop:
    if story.leave in (Leave.AT_END, Leave.TIMEOUT):
        return _STOPS[rendered.outgoing.end]
    return Stop.CALLER_LEFT
