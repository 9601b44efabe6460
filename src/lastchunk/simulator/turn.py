"""What the model answers: choices made of parts, parts made of steps, steps made of tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lastchunk.simulator.provider_counts import (
    Endpoint,
    Json,
    Shape,
    compact,
    end_of_turn_tokens,
    forced_name,
    functions_of,
    json_schema_of,
    parallel_text,
    prompt_tokens,
)
from lastchunk.simulator.schema_values import value_of
from lastchunk.simulator.script import Script
from lastchunk.simulator.text import Step, Vocabulary, fit, steps_of, vocabulary_of, write_text

PartKind = Literal["thought", "shown_thought", "text", "refusal", "call", "custom", "legacy_call"]
CALLS: frozenset[PartKind] = frozenset(("call", "custom", "legacy_call"))
NO_LIMIT = 10**9
DEFAULT_REASONING_TOKENS = 128
DEFAULT_TOOL: Json = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["place", "days"],
    },
}


@dataclass(frozen=True, slots=True)
class Part:
    """One thing in an answer. `opening` are ids spent before the first step, on a call's name."""

    kind: PartKind
    steps: tuple[Step, ...]
    opening: tuple[int, ...] = ()
    name: str = ""
    call_id: str = ""
    item_id: str = ""

    @property
    def text(self) -> str:
        return "".join(step.text for step in self.steps)

    @property
    def tokens(self) -> int:
        return len(self.opening) + sum(len(step.ids) for step in self.steps)


@dataclass(frozen=True, slots=True)
class Choice:
    parts: tuple[Part, ...]
    finish_reason: str
    end_of_turn: int

    @property
    def reasoning(self) -> int:
        return sum(p.tokens for p in self.parts if p.kind in ("thought", "shown_thought"))

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def shown(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.kind != "thought")


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the provider took it up: everything that is decided before it is answered."""

    number: int
    endpoint: Endpoint
    model: str
    served_model: str
    body: Json
    script: Script
    seed: str
    created: int
    response_id: str
    prompt_tokens: int
    choices: tuple[Choice, ...]

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def include_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))

    @property
    def running_usage(self) -> bool:
        """Whether each chunk tells the usage so far: always, or where that was asked for."""
        options = self.body.get("stream_options")
        asked = isinstance(options, dict) and bool(options.get("continuous_usage_stats"))
        given = asked and self.include_usage and self.script.continuous_usage == "given"
        return given or self.script.usage_style == "running"

    @property
    def obfuscated(self) -> bool:
        options = self.body.get("stream_options")
        asked = options.get("include_obfuscation") if isinstance(options, dict) else None
        return self.script.obfuscation and asked is not False

    @property
    def logprobs(self) -> bool:
        included = self.body.get("include") or []
        asked = self.body.get("logprobs") not in (None, False)
        return self.script.logprobs or asked or "message.output_text.logprobs" in included

    @property
    def end_of_turn(self) -> int:
        return sum(choice.end_of_turn for choice in self.choices)

    def rng(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}:{self.number}:{purpose}")


_SERVED = {
    "gpt-3.5-turbo": "gpt-3.5-turbo-0125",
    "gpt-4": "gpt-4-0613",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "o3": "o3-2025-04-16",
    "o4-mini": "o4-mini-2025-04-16",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5.1": "gpt-5.1-2025-11-13",
}
_ID_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def random_id(rng: random.Random, prefix: str, length: int = 29, letters: str = _ID_LETTERS) -> str:
    return prefix + "".join(rng.choices(letters, k=length))


def hex_id(rng: random.Random, prefix: str) -> str:
    return random_id(rng, prefix, 50, "0123456789abcdef")


def take_up(
    *, number: int, endpoint: Endpoint, body: Json, script: Script, seed: str, created: int
) -> Call:
    """Decide the whole answer of a request. The same arguments give the same call."""
    model = str(body.get("model") or "gpt-4o")
    vocabulary = vocabulary_of(model)
    rng = random.Random(f"{seed}:{0 if script.reuse_id else number}:id")
    if endpoint == "responses":
        response_id = hex_id(rng, "resp_")
    else:
        response_id = random_id(rng, "cmpl-" if endpoint == "completions" else "chatcmpl-")
    asked = body.get("n")
    count = script.choices or (asked if isinstance(asked, int) and asked > 0 else 1)
    count = 1 if endpoint == "responses" else count
    choices = (
        _Speaker(vocabulary, model, endpoint, body, script, f"{seed}:{script.seed}:{i}").choice()
        for i in range(count)
    )
    return Call(
        number=number,
        endpoint=endpoint,
        model=model,
        served_model=script.served_model or _SERVED.get(model, model),
        body=body,
        script=script,
        seed=seed,
        created=created,
        response_id=response_id,
        prompt_tokens=prompt_tokens(vocabulary, model, endpoint, body),
        choices=tuple(choices),
    )


def output_limit(body: Json) -> int:
    """The request's own bound of the output, by whichever name it goes."""
    for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        if isinstance(limit := body.get(name), int):
            return max(limit, 0)
    return NO_LIMIT


class _Speaker:
    """Writes one choice, part by part, within the budget that is left."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        model: str,
        endpoint: Endpoint,
        body: Json,
        script: Script,
        seed: str,
    ) -> None:
        self.vocabulary = vocabulary
        self.model = model
        self.endpoint: Endpoint = endpoint
        self.body = body
        self.script = script
        self.seed = seed
        self.rng = random.Random(f"turn:{seed}")
        self.left = output_limit(body)
        self.full = False

    def choice(self) -> Choice:
        parts = [*self._thoughts()]
        shape: Shape = "text"
        finish = "stop"
        kind = "text" if self.endpoint == "completions" else self.script.kind
        if not self.full:
            match kind:
                case "text" | "reasoning":
                    parts.append(self._say("text", self._answer_text()))
                case "refusal":
                    shape = "refusal"
                    parts.append(self._say("refusal", self._text(self.script.output_tokens)))
                case "tool_call" | "custom_tool" | "function_call":
                    shape, finish, call = self._single_call(kind)
                    parts.append(call)
                case "parallel_calls":
                    shape, finish = "parallel_calls", "tool_calls"
                    parts.extend(self._parallel_calls())
                case "mixed":
                    parts.append(self._say("text", self._text(self.script.output_tokens // 2)))
                    if not self.full:
                        shape, finish, call = self._single_call("tool_call")
                        parts.append(call)
        if self.full:
            return Choice(tuple(parts), "length", 0)
        reasoned = bool(parts) and parts[0].kind in ("thought", "shown_thought")
        end = end_of_turn_tokens(self.model, self.endpoint, self.body, shape, reasoned=reasoned)
        return Choice(tuple(parts), finish, end)

    def _thoughts(self) -> Iterator[Part]:
        wanted = self.script.reasoning_tokens
        if self.script.kind == "reasoning":
            wanted = wanted or DEFAULT_REASONING_TOKENS
        if not wanted or self.endpoint == "completions":
            return
        size = min(wanted, self.left)
        self.full = wanted >= self.left
        self.left -= size
        text = write_text(self.vocabulary, self.script.language, size, f"{self.seed}:thought")
        in_chat = ("reasoning_content", "reasoning", "reasoning_text")
        names = in_chat if self.endpoint == "chat/completions" else ("reasoning_text",)
        shown = self.script.reasoning_shown in names
        steps = steps_of(self.vocabulary, self.vocabulary.encode(text), self._per_step())
        item_id = hex_id(self.rng, "rs_")
        yield Part("shown_thought" if shown else "thought", steps, item_id=item_id)

    def _per_step(self) -> int:
        return self.script.tokens_per_chunk

    def _text(self, tokens: int) -> str:
        """Text of `tokens` tokens, or of the whole budget if that is less."""
        if tokens > self.left:
            self.full = True
        size = min(tokens, self.left)
        return write_text(self.vocabulary, self.script.language, size, self.seed)

    def _answer_text(self) -> str:
        schema = json_schema_of(self.body)
        if schema is None:
            return self._text(self.script.output_tokens)
        return self._json(schema)

    def _json(self, schema: Json) -> str:
        """JSON that satisfies `schema`, its first string long enough for about the wanted size."""
        words = max(1, self.script.output_tokens - 8)
        text = write_text(self.vocabulary, self.script.language, words, self.seed)
        return compact(value_of(schema, text, self.rng))

    def _within_budget(self, ids: Sequence[int]) -> tuple[int, ...]:
        """`ids`, or as many of them as the budget allows and encode to themselves again."""
        if len(ids) <= self.left:
            self.left -= len(ids)
            return tuple(ids)
        kept = fit(self.vocabulary, ids, self.left)
        self.full, self.left = True, 0
        return kept

    def _say(self, kind: PartKind, text: str) -> Part:
        ids = self._within_budget(self.vocabulary.encode(text))
        steps = steps_of(self.vocabulary, ids, self._per_step())
        return Part(kind, steps, item_id=hex_id(self.rng, "msg_"))

    def _tool(self) -> Json:
        tools = functions_of(self.body) or [DEFAULT_TOOL]
        named = [tool for tool in tools if tool["name"] == forced_name(self.body)]
        return self.rng.choice(named or tools)

    def _arguments(self, tool: Json) -> str:
        return self._json(tool.get("parameters") or DEFAULT_TOOL["parameters"])

    def _single_call(self, kind: str) -> tuple[Shape, str, Part]:
        tool = self._tool()
        forced = forced_name(self.body) is not None
        name = tool["name"]
        text = self._text(self.script.output_tokens) if kind == "custom_tool" else ""
        text = text or self._arguments(tool)
        # A forced call has no name to choose: only its arguments are generated.
        opening = () if forced else self._within_budget(self.vocabulary.encode(f"functions.{name}"))
        ids = () if self.full and not opening else self._within_budget(self.vocabulary.encode(text))
        part_kind: PartKind = "call"
        if kind == "custom_tool":
            part_kind = "custom"
        elif kind == "function_call" and self.endpoint == "chat/completions":
            part_kind = "legacy_call"
        part = Part(
            part_kind,
            steps_of(self.vocabulary, ids, self._per_step()),
            opening,
            name,
            random_id(self.rng, "call_", 24),
            hex_id(self.rng, "ctc_" if part_kind == "custom" else "fc_"),
        )
        finish = "function_call" if part_kind == "legacy_call" else "tool_calls"
        if forced:
            return "forced_call", "stop", part
        return "one_call", finish, part

    def _parallel_calls(self) -> list[Part]:
        """Several calls are generated as one call of `multi_tool_use.parallel`."""
        calls: list[tuple[str, str]] = []
        for _ in range(self.rng.choice((2, 2, 3))):
            tool = self._tool()
            calls.append((tool["name"], self._arguments(tool)))
        text = parallel_text(calls)
        opening = self._within_budget(self.vocabulary.encode("multi_tool_use.parallel"))
        ids = self._within_budget(self.vocabulary.encode(text))
        raw = b"".join(self.vocabulary.bytes_of(token) for token in ids)
        parts: list[Part] = []
        spent, cursor = 0, 0
        for name, arguments in calls:
            start = text.encode().index(arguments.encode(), cursor)
            if start >= len(raw):
                break
            before = _ids_through(self.vocabulary, ids, start)
            head = (*opening, *ids[spent:before]) if not parts else tuple(ids[spent:before])
            cursor = start + len(arguments.encode())
            after = max(before, _ids_through(self.vocabulary, ids, cursor))
            shown = raw[start:cursor]
            steps = _cut_steps(self.vocabulary, ids[before:after], shown, self._per_step())
            call_id = random_id(self.rng, "call_", 24)
            parts.append(Part("call", steps, head, name, call_id, hex_id(self.rng, "fc_")))
            spent = after
        if parts and spent < len(ids):  # the closing brackets show nothing, but are generated
            last = parts[-1]
            tail = Step("", tuple(ids[spent:]))
            parts[-1] = Part(
                last.kind, (*last.steps, tail), last.opening, last.name, last.call_id, last.item_id
            )
        return parts


def _ids_through(vocabulary: Vocabulary, ids: Sequence[int], offset: int) -> int:
    """How many ids are needed until `offset` bytes of their text are there."""
    size = 0
    for count, token in enumerate(ids):
        if size >= offset:
            return count
        size += len(vocabulary.bytes_of(token))
    return len(ids)


def _cut_steps(
    vocabulary: Vocabulary, ids: Sequence[int], shown: bytes, per_step: int
) -> tuple[Step, ...]:
    """Steps that say exactly `shown`: the tokens at its ends may reach beyond it."""
    pieces = [ids[i : i + per_step] for i in range(0, len(ids), per_step)]
    steps: list[Step] = []
    told = b""
    position = 0
    for number, piece in enumerate(pieces):
        position += sum(len(vocabulary.bytes_of(token)) for token in piece)
        upto = shown if number == len(pieces) - 1 else shown[: min(position, len(shown))]
        text = upto[len(told) :].decode(errors="ignore")  # a split character waits
        told += text.encode()
        steps.append(Step(text, tuple(piece)))
    if not steps and shown:
        return (Step(shown.decode(), ()),)
    return tuple(steps)
