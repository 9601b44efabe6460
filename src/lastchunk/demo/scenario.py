"""Which calls the demo makes, and the table of all the ways in which they are cut."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from lastchunk.demo.requests import Request, draw_request
from lastchunk.meter.ending import Ending
from lastchunk.simulator import Fault, Script
from lastchunk.wire.dialect import Dialect

CUT_SHARE = 0.46
"""Of all calls: almost half, so that every way of being cut comes up."""

SILENCE_SECONDS = 4.0
"""Silence after which clients and the gateway give a stalled upstream up."""

_STALL_SECONDS = 12.0


class Act(StrEnum):
    """What the caller does with its answer."""

    READ = "read"
    CLOSE = "close"
    RAISE = "raise"
    CANCEL = "cancel"
    TIME_OUT = "time_out"
    DROP = "drop"
    NEVER_READ = "never_read"
    LEAVE_AT_FINISH = "leave_at_finish"
    LEAVE_AT_USAGE = "leave_at_usage"
    GIVE_UP = "give_up"
    NO_SERVER = "no_server"
    KILLED = "killed"


ASYNC_ONLY = frozenset({Act.CANCEL, Act.TIME_OUT, Act.KILLED})
IN_PROCESS_ONLY = frozenset({Act.NO_SERVER, Act.KILLED})


@dataclass(frozen=True, slots=True)
class Way:
    """One way for a call to go.

    `weight` is how often, against the others. `endings` are what the ledger may say of its last
    attempt, and of those before it `retried`. `surfaces` are where it can happen.
    """

    name: str
    words: str
    weight: int
    endings: tuple[Ending, ...]
    act: Act = Act.READ
    fault: Fault | None = None
    surfaces: tuple[Dialect, ...] = tuple(Dialect)
    retries: int = 0
    retried: Ending | None = None
    asks_for_usage: bool = True


_CHATS = (Dialect.CHAT, Dialect.COMPLETIONS)
_LEFT = (Ending.CALLER_LEFT,)
_CUT = (Ending.UPSTREAM_CUT,)
_FAILED = (Ending.UPSTREAM_FAILED,)
_COMPLETED = (Ending.COMPLETED,)

READ_TO_THE_END = Way("read-to-the-end", "read to the end", 0, _COMPLETED)

KILLED = Way("killed", "process killed with -9", 8, (Ending.LOST,), Act.KILLED)

WAYS: tuple[Way, ...] = (
    # The caller goes.
    Way("closed", "break, then close()", 20, _LEFT, Act.CLOSE),
    Way("exception", "exception in the loop", 14, _LEFT, Act.RAISE),
    Way("cancelled", "task cancelled", 16, _LEFT, Act.CANCEL),
    Way("timeout", "asyncio.timeout", 14, _LEFT, Act.TIME_OUT),
    Way("dropped", "dropped and collected", 8, _LEFT, Act.DROP),
    Way("never-iterated", "never iterated", 6, _LEFT, Act.NEVER_READ),
    Way(
        "left-at-finish",
        "left after the finish, before the usage",
        8,
        _COMPLETED,
        Act.LEAVE_AT_FINISH,
        surfaces=_CHATS,
    ),
    Way("left-at-usage", "left after the usage", 6, _COMPLETED, Act.LEAVE_AT_USAGE),
    Way(
        "gave-up",
        "gave up waiting, not streamed",
        4,
        (Ending.UPSTREAM_TIMEOUT, Ending.CALLER_LEFT),
        Act.GIVE_UP,
    ),
    # The upstream goes.
    Way("fin", "upstream ends early, cleanly", 8, _CUT, fault=Fault("fin")),
    Way("eof", "upstream closes inside a frame", 8, _CUT, fault=Fault("eof", "mid_frame")),
    Way("rst", "upstream resets the connection", 10, _CUT, fault=Fault("rst")),
    Way(
        "stall",
        "upstream stalls",
        5,
        (Ending.UPSTREAM_TIMEOUT,),
        fault=Fault("stall", seconds=_STALL_SECONDS),
    ),
    Way("error-event", "error event inside a 200", 10, _FAILED, fault=Fault("error_event")),
    Way(
        "response-failed",
        "response.failed inside a 200",
        4,
        _FAILED,
        fault=Fault("response_failed"),
        surfaces=(Dialect.RESPONSES,),
    ),
    Way("no-done", "no [DONE]", 4, _COMPLETED, fault=Fault("no_done"), surfaces=_CHATS),
    Way("no-usage", "no usage, though asked for", 8, _COMPLETED, fault=Fault("no_usage")),
    Way(
        "no-usage-option",
        "stream_options unknown upstream",
        4,
        _COMPLETED,
        fault=Fault("reject_stream_options"),
        surfaces=(Dialect.CHAT,),
        asks_for_usage=False,
        retried=Ending.REFUSED,
    ),
    # No answer at all, at first or for good.
    Way(
        "server-error",
        "500, then the SDK's retry",
        7,
        _COMPLETED,
        fault=Fault("http_500", "headers", count=1),
        retries=2,
        retried=Ending.UPSTREAM_FAILED,
    ),
    Way(
        "reset-before-headers",
        "reset before the headers, retried",
        5,
        _COMPLETED,
        fault=Fault("rst_before_headers", "headers", count=1),
        retries=2,
        retried=Ending.UPSTREAM_CUT,
    ),
    Way(
        "silent-before-headers",
        "silence before the headers, retried",
        3,
        _COMPLETED,
        fault=Fault("stall_before_headers", "headers", seconds=_STALL_SECONDS, count=1),
        retries=2,
        retried=Ending.UPSTREAM_TIMEOUT,
    ),
    Way("rate-limited", "429", 4, (Ending.REFUSED,), fault=Fault("http_429", "headers")),
    Way("no-server", "connection refused", 3, (Ending.NEVER_SENT,), Act.NO_SERVER),
)

BY_NAME: dict[str, Way] = {way.name: way for way in (READ_TO_THE_END, KILLED, *WAYS)}


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call, decided before it is made. `number` is its name in the bill and in the ledger.

    The caller leaves after `leave_after` chunks or `leave_after_s` seconds where its act says so.
    """

    number: int
    way: Way
    through_gateway: bool
    is_async: bool
    request: Request
    script: Script
    leave_after: int
    leave_after_s: float


def plan(calls: int, seed: int) -> list[PlannedCall]:
    """`calls` calls in the order of their making. The same arguments give the same plan."""
    rng = random.Random(f"demo:{seed}")
    cut = round(calls * CUT_SHARE)
    shared = _shares(cut, (*WAYS, KILLED))
    planned = []
    for number, way in enumerate([READ_TO_THE_END] * (calls - cut) + shared):
        planned.append(_planned(number, way, rng))
    rng.shuffle(planned)
    # What waits for a timeout goes first: nothing else would run at the end beside it.
    planned.sort(
        key=lambda call: call.script.fault is None or "stall" not in call.script.fault.kind
    )
    return planned


def _shares(cut: int, ways: tuple[Way, ...]) -> list[Way]:
    """So many ways, by weight; where they are too few for all, the weightiest."""
    whole = sum(way.weight for way in ways)
    exact = {way.name: cut * way.weight / whole for way in ways}
    counts = {way.name: max(1, int(exact[way.name])) for way in ways}
    order = sorted(ways, key=lambda way: exact[way.name] - counts[way.name], reverse=True)
    while (missing := cut - sum(counts.values())) > 0:
        for way in order[:missing]:
            counts[way.name] += 1
    while (excess := sum(counts.values()) - cut) > 0:
        for way in [one for one in reversed(order) if counts[one.name]][:excess]:
            counts[way.name] -= 1
    return [way for way in ways for _ in range(counts[way.name])]


def _planned(number: int, way: Way, rng: random.Random) -> PlannedCall:
    surface = rng.choices(way.surfaces, [_SURFACE_WEIGHTS[one] for one in way.surfaces])[0]
    whole = way.act is Act.GIVE_UP or (way is READ_TO_THE_END and rng.random() < 0.18)
    simple = way.act is not Act.READ or way.fault is not None
    request = draw_request(
        rng,
        surface,
        streamed=not whole,
        asks_for_usage=way.asks_for_usage,
        lone_model="gpt-4.1-nano" if way.name == "no-usage-option" else None,
        one_choice=simple and rng.random() < 0.8,
    )
    script = _script(way, request, rng)
    chunks = max(2, script.output_tokens // script.tokens_per_chunk)
    # Chunks are fewer than tokens where a character takes several.
    leave_after = rng.randint(1, max(2, int(chunks * 0.4)))
    thinking_s = script.first_token_delay_s + script.reasoning_tokens * script.pacing_s
    return PlannedCall(
        number=number,
        way=way,
        through_gateway=way.act not in IN_PROCESS_ONLY and rng.random() < 0.5,
        is_async=way.act in ASYNC_ONLY or rng.random() < 0.5,
        request=request,
        script=script,
        leave_after=leave_after,
        leave_after_s=thinking_s + leave_after * script.pacing_s,
    )


_SURFACE_WEIGHTS = {Dialect.CHAT: 60, Dialect.RESPONSES: 30, Dialect.COMPLETIONS: 10}


def _script(way: Way, request: Request, rng: random.Random) -> Script:
    """How the provider answers: at a usual model's pace, but with shorter answers than usual."""
    tokens = rng.randint(60, 240)
    pace = rng.uniform(80, 200)
    per_chunk = rng.choice((1, 2, 3, 4))
    reasoning = rng.randint(40, 200) if request.reasons else 0
    if way.act is Act.KILLED:  # long enough to be under way when the process dies
        tokens, pace, per_chunk, reasoning = 1200, rng.uniform(100, 200), 1, 0
    if not request.streamed:
        tokens = min(tokens, 150)
        pace = 200 if way.act is Act.GIVE_UP else 400
        reasoning = min(reasoning, 60)
    return Script(
        kind=request.kind,
        language=rng.choice(("english", "english", "german", "chinese", "emoji", "code")),
        output_tokens=tokens,
        reasoning_tokens=reasoning,
        reasoning_shown="summary" if request.surface is Dialect.RESPONSES else "hidden",
        pacing_s=per_chunk / pace,
        first_token_delay_s=rng.uniform(0.05, 0.3),
        tokens_per_chunk=per_chunk,
        framing=rng.choice(("lf", "lf", "lf", "crlf")),
        keep_alive_every=rng.choice((0, 0, 0, 9)),
        gzip=rng.choice(("no", "no", "accepted")),
        packet_bytes=rng.choice((0, 0, 0, 61)),
        # What a provider still generates before it notices: 7 to 15 tokens are named for OpenAI.
        reaction_tokens=rng.randint(0, 14),
        fault=way.fault,
        seed=rng.randrange(1 << 30),
    )
