"""What one simulated call will do: a Script, its Fault, and how both are read or drawn."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

Kind = Literal[
    "text",
    "tool_call",
    "parallel_calls",
    "custom_tool",
    "function_call",
    "refusal",
    "reasoning",
    "mixed",
]
Language = Literal["english", "german", "chinese", "emoji", "code"]
ReasoningShown = Literal["hidden", "reasoning_content", "reasoning", "reasoning_text", "summary"]
Framing = Literal["lf", "crlf", "tight"]
Continuous = Literal["ignored", "given", "rejected"]
Gzip = Literal["no", "accepted", "forced"]
UsageStyle = Literal[
    "standard",
    "on_finish_chunk",
    "twice",
    "running",
    "x_groq",
    "choice_usage",
    "zero",
    "missing",
]
FaultKind = Literal[
    "fin",
    "eof",
    "rst",
    "stall",
    "error_event",
    "response_failed",
    "no_done",
    "no_usage",
    "hold_after_done",
    "garbage",
    "reject_stream_options",
    "http_500",
    "http_429",
    "rst_before_headers",
    "stall_before_headers",
]
Moment = Literal["headers", "first_chunk", "mid", "mid_frame", "after_finish", "after_usage"]

MOMENTS: frozenset[str] = frozenset((*get_args(Moment), "after_done"))
# A text longer than this would make one call dominate a test run.
MAX_OUTPUT_TOKENS = 200_000


class BadScript(ValueError):
    """The x-sim header cannot be read; the message names the field."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour.

    `at` says where a fault of the stream strikes: an int is a byte offset of the (uncompressed)
    body; a name is a Moment or "after_done"; "tokens:12" is after the frame with the 12th token.
    `seconds` limits a stall or a hold. `count` lets the first k attempts fail and the next pass;
    None means every attempt.
    """

    kind: FaultKind
    at: int | str = "mid"
    seconds: float = 30.0
    count: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.at, int):
            if self.at < 0:
                raise ValueError(f"at={self.at}: a byte offset is never negative")
        elif self.at not in MOMENTS and not _is_token_position(self.at):
            raise ValueError(f"at={self.at!r}: use an int, {sorted(MOMENTS)} or 'tokens:N'")


@dataclass(frozen=True, slots=True)
class Script:
    """Everything that is decided about a call before it begins.

    `output_tokens` are tokens of the visible text: exact for text and refusals, about right for
    arguments, bounded by the request's own limit. `reasoning_tokens` come before it. `choices`
    None takes the request's n. `reaction_tokens` are generated (and billed) after a cut: None
    draws 0 to 3, a very large number makes a provider that never notices that its client left.
    `continuous_usage` is what the server makes of `stream_options.continuous_usage_stats`.
    `packet_bytes` cuts each frame into writes of that size; 0 writes whole frames.
    """

    kind: Kind = "text"
    language: Language = "english"
    output_tokens: int = 40
    reasoning_tokens: int = 0
    reasoning_shown: ReasoningShown = "hidden"
    choices: int | None = None
    logprobs: bool = False
    reported_cached: int = 0
    service_tier: str = "default"
    served_model: str | None = None
    pacing_s: float = 0.0
    first_token_delay_s: float = 0.0
    tokens_per_chunk: int = 1
    framing: Framing = "lf"
    keep_alive_every: int = 0
    obfuscation: bool = True
    gzip: Gzip = "no"
    packet_bytes: int = 0
    azure: bool = False
    azure_async_filter: bool = False
    usage_style: UsageStyle = "standard"
    continuous_usage: Continuous = "ignored"
    reuse_id: bool = False
    reaction_tokens: int | None = None
    fault: Fault | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.output_tokens <= MAX_OUTPUT_TOKENS:
            raise ValueError(f"output_tokens={self.output_tokens}: 0 to {MAX_OUTPUT_TOKENS}")
        if self.tokens_per_chunk < 1 or self.packet_bytes < 0 or self.keep_alive_every < 0:
            raise ValueError("tokens_per_chunk is at least 1, packet_bytes and keep_alive_every 0")
        if self.choices is not None and self.choices < 1:
            raise ValueError(f"choices={self.choices}: at least 1, or null for the request's n")


PLAIN = Script()


def read_script(header: str, default: Script = PLAIN) -> Script:
    """The Script of an `x-sim` header: a JSON object of Script's fields over `default`.

    `{"random": 7, ...}` starts from draw_script(7) in place of `default`. Raises BadScript.
    """
    try:
        fields = msgspec.json.decode(header)
    except msgspec.DecodeError as error:
        raise BadScript(f"x-sim is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadScript("x-sim must be a JSON object")
    if "random" in fields:
        seed = fields.pop("random")
        if not isinstance(seed, int):
            raise BadScript(f"x-sim: random={seed!r} must be an integer seed")
        default = draw_script(seed)
    known = {field.name for field in dataclasses.fields(Script)}
    if unknown := sorted(set(fields) - known):
        raise BadScript(f"x-sim has unknown fields: {', '.join(unknown)}")
    merged: dict[str, Any] = {name: getattr(default, name) for name in known} | fields
    try:
        return msgspec.convert(msgspec.to_builtins(merged), Script)
    except (msgspec.ValidationError, ValueError) as error:
        raise BadScript(f"x-sim: {error}") from None


def write_script(script: Script) -> str:
    """The `x-sim` header that says `script`: only the fields that differ from the plain one."""
    changed = {
        field.name: getattr(script, field.name)
        for field in dataclasses.fields(Script)
        if getattr(script, field.name) != getattr(PLAIN, field.name)
    }
    return msgspec.json.encode(changed).decode()


def draw_script(seed: int, number: int = 0) -> Script:
    """A script drawn from a seed: about half of the calls end well, the rest do not."""
    rng = random.Random(f"script:{seed}:{number}")
    kind: Kind = rng.choice(("text", "text", "text", *get_args(Kind)))
    return Script(
        kind=kind,
        language=rng.choice(get_args(Language)),
        output_tokens=rng.randint(1, 120),
        reasoning_tokens=rng.choice((0, 0, 0, rng.randint(1, 300))),
        reasoning_shown=rng.choice(get_args(ReasoningShown)),
        reported_cached=rng.choice((0, 0, 1024)),
        service_tier=rng.choice(("default", "default", "priority", "flex")),
        tokens_per_chunk=rng.choice((1, 1, 2, 5)),
        framing=rng.choice(("lf", "lf", "lf", "crlf", "tight")),
        keep_alive_every=rng.choice((0, 0, 0, 7)),
        obfuscation=rng.random() < 0.7,
        gzip=rng.choice(("no", "no", "accepted")),
        packet_bytes=rng.choice((0, 0, 7, 61)),
        azure=rng.random() < 0.15,
        usage_style=rng.choice(("standard",) * 8 + get_args(UsageStyle)),
        fault=_draw_fault(rng) if rng.random() < 0.5 else None,
        seed=rng.randrange(1 << 30),
    )


def _draw_fault(rng: random.Random) -> Fault:
    kind: FaultKind = rng.choice(get_args(FaultKind))
    places: list[int | str] = [*sorted(MOMENTS), rng.randint(0, 4000)]
    at = rng.choice([*places, f"tokens:{rng.randint(1, 60)}"])
    count = 1 if kind in ("http_500", "http_429", "rst_before_headers") else None
    return Fault(kind=kind, at=at, seconds=2.0, count=count)


def _is_token_position(at: str) -> bool:
    name, _, number = at.partition(":")
    return name == "tokens" and number.isdigit()
