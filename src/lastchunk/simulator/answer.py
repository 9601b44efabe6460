"""From a request to its plan, and from the frames that went out to the bill."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass

import msgspec

from lastchunk.simulator.bill import BilledCall
from lastchunk.simulator.chat import chat_answer, chat_plan
from lastchunk.simulator.completions import completions_answer, completions_plan
from lastchunk.simulator.faults import Outgoing, misbehave
from lastchunk.simulator.frames import Frame, Plan
from lastchunk.simulator.provider_counts import Endpoint, Json, usage_json
from lastchunk.simulator.responses import responses_answer, responses_plan
from lastchunk.simulator.script import Script
from lastchunk.simulator.turn import Call, take_up

NOTHING = Frame(b"", "aside", 0, 0)
# A fixed moment: a body that is rendered twice must be the same body.
RENDERED_AT = 1_760_000_000


@dataclass(frozen=True, slots=True)
class Visit:
    """What the provider noted of a request beside its body."""

    at: float
    retry_count: int = 0
    tag: str | None = None


def plan_answer(call: Call) -> Plan:
    """The whole answer to a call, streamed or in one piece."""
    if not call.streamed:
        return _answer_in_one_piece(call)
    match call.endpoint:
        case "chat/completions":
            return chat_plan(call)
        case "responses":
            return responses_plan(call)
        case _:
            return completions_plan(call)


def _answer_in_one_piece(call: Call) -> Plan:
    ids: list[int] = []
    thought = bytearray()
    delivered = 0
    for choice in call.choices:
        for part in choice.parts:
            spent = (*part.opening, *(token for step in part.steps for token in step.ids))
            reasoning = part.kind in ("thought", "shown_thought")
            ids.extend(spent)
            thought.extend((b"\1" if reasoning else b"\0") * len(spent))
            delivered += 0 if part.kind == "thought" else len(spent)
    plan = Plan(call, (), tuple(ids), bytes(thought), "application/json")
    match call.endpoint:
        case "responses":
            body = responses_answer(call)
        case "chat/completions":
            body = {**chat_answer(call), "usage": plan.usage()}
        case _:
            body = {**completions_answer(call), "usage": plan.usage()}
    if call.script.usage_style == "missing":
        body.pop("usage")
    data = msgspec.json.encode(body)
    told = call.script.usage_style != "missing"
    frame = Frame(data, "finish", len(ids), delivered, call.end_of_turn, told)
    return dataclasses.replace(plan, frames=(frame,))


def as_scripted(script: Script) -> Script:
    """The fault no_usage is a style of telling usage: not at all."""
    if script.fault is not None and script.fault.kind == "no_usage":
        return dataclasses.replace(script, usage_style="missing")
    return script


def seed_of(seed: int, body: Json) -> str:
    """The answer depends on the seed and on what is asked, not on when or how it is delivered."""
    asked = {k: v for k, v in body.items() if k not in ("stream", "stream_options")}
    return f"{seed}:{zlib.crc32(msgspec.json.encode(asked, order='deterministic'))}"


def ended_by_itself(plan: Plan, outgoing: Outgoing) -> str:
    """How a body ended of which every frame went out: a fault counts if it took something away."""
    fault = plan.call.script.fault
    if fault is None or outgoing.frames[-1:] == plan.frames[-1:]:
        return "completed"
    return "completed" if fault.kind == "no_done" else f"fault:{fault.kind}"


def bill_for(
    plan: Plan, outgoing: Outgoing, sent: int, *, partly: bool, ended: str, visit: Visit
) -> BilledCall:
    """The bill after `sent` frames went out whole; `partly` if some of the next one did too.

    Beyond what went out the model spent its reaction time on more tokens, unless it had ended.
    """
    call = plan.call
    last = outgoing.frames[sent - 1] if sent else NOTHING
    generated = last.generated
    if partly and sent < len(outgoing.frames):
        generated = outgoing.frames[sent].generated
    reaction = call.script.reaction_tokens
    if reaction is None:
        reaction = call.rng("reaction").randint(0, 3)
    end_of_turn = last.ended
    finished = _finished(plan, outgoing, sent) or (
        end_of_turn > 0 and end_of_turn == call.end_of_turn
    )
    # An answer in one piece is made whole before it is sent.
    if not call.streamed or ended == "completed" or generated + reaction > len(plan.ids):
        end_of_turn, finished, reaction = call.end_of_turn, True, len(plan.ids)
    generated = min(generated + reaction, len(plan.ids))
    counts = plan.counts(generated, end_of_turn)
    return BilledCall(
        call=call.number,
        at=visit.at,
        endpoint=call.endpoint,
        model_asked=call.model,
        model_served=call.served_model,
        service_tier=call.script.service_tier,
        streamed=call.streamed,
        status=200,
        billed=True,
        prompt_tokens=counts.prompt,
        cached_tokens=counts.cached,
        output_tokens=counts.output,
        reasoning_tokens=counts.reasoning,
        end_of_turn=end_of_turn,
        output_ids=plan.ids[:generated],
        delivered_tokens=last.delivered,
        ended=ended,
        finish_reason=call.choices[0].finish_reason if finished else None,
        usage=usage_json(counts, call.endpoint, call.model),
        usage_sent=any(frame.usage for frame in outgoing.frames[:sent]),
        include_usage=call.include_usage,
        retry_count=visit.retry_count,
        tag=visit.tag,
        response_id=call.response_id,
        script=call.script,
    )


def _finished(plan: Plan, outgoing: Outgoing, sent: int) -> bool:
    """Whether every choice has said how it finished."""
    told = sum(frame.kind == "finish" for frame in outgoing.frames[:sent])
    return told == sum(frame.kind == "finish" for frame in plan.frames)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A whole answer without a socket: its bytes, and the truth about every cut of them."""

    body: bytes
    usage: Json
    plan: Plan
    outgoing: Outgoing
    frames: tuple[bytes, ...]

    def billed_at(self, size: int, *, visit: Visit | None = None) -> BilledCall:
        """The bill if exactly `size` bytes of the body went out and then the client left."""
        sent, reached, partly = 0, 0, False
        for frame in self.outgoing.frames:
            if reached >= size:
                break
            if reached + len(frame.data) > size:
                partly = True
                break
            reached += len(frame.data)
            sent += 1
        whole = sent == len(self.outgoing.frames)
        ended = ended_by_itself(self.plan, self.outgoing) if whole else "client_gone"
        seen = visit or Visit(float(RENDERED_AT))
        return bill_for(self.plan, self.outgoing, sent, partly=partly, ended=ended, visit=seen)


def render(
    script: Script,
    request: Json,
    *,
    endpoint: Endpoint = "chat/completions",
    seed: int = 0,
    number: int = 1,
    created: int = RENDERED_AT,
) -> Rendered:
    """The body that the server would send for `request`, as pure data; uncompressed."""
    script = as_scripted(script)
    call = take_up(
        number=number,
        endpoint=endpoint,
        body=request,
        script=script,
        seed=seed_of(seed, request),
        created=created,
    )
    plan = plan_answer(call)
    outgoing = misbehave(plan, script.fault)
    frames = tuple(frame.data for frame in outgoing.frames if frame.data)
    return Rendered(outgoing.body, plan.usage(), plan, outgoing, frames)
