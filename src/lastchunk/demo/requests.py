"""Requests as applications make them: prompts in several languages, tools, n > 1, reasoning."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from lastchunk.simulator.script import Kind
from lastchunk.wire.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Request:
    """What the SDK is given. `body` holds its keyword arguments; `choices` is its n."""

    surface: Dialect
    body: dict[str, Any]
    account: str
    kind: Kind
    streamed: bool
    reasons: bool
    choices: int


_MODELS = ("gpt-4o", "gpt-4o", "gpt-4.1", "gpt-4.1-mini", "gpt-4o-mini")
_CHAT_MODELS = (*_MODELS, "gpt-4-turbo")
_REASONING_MODELS = ("o4-mini", "gpt-5-mini", "gpt-5")
_COMPLETIONS_MODEL = "gpt-3.5-turbo-instruct"

_ACCOUNTS = ("web/chat", "web/chat", "web/search", "agents/support", "agents/coder", "batch")

_KINDS: tuple[Kind, ...] = (
    *("text",) * 6,
    "tool_call",
    "tool_call",
    "parallel_calls",
    "refusal",
    "reasoning",
)

_SENTENCES = (
    "The customer writes that the parcel was delivered to a neighbour who moved out in spring. ",
    "Answer in the language of the question, name the clause you rely on, and keep it short. ",
    "Refunds above 200 € need a second signature; see the handbook, chapter 7, section 3. ",
    "Der Vertrag verlängert sich um zwölf Monate, wenn er nicht rechtzeitig gekündigt wird. ",
    "Bitte prüfen Sie die Rechnungsnummer 2026-04711 und antworten Sie höflich, aber bestimmt. ",
    "请根据以下会议记录写一份摘要,并列出每个人下一步要做的事情。",
    "用户反馈:应用在深色模式下打开相册时会闪退,系统版本为最新。",
    "def retry(call, attempts=3):\n    for n in range(attempts):\n        try: return call()\n",
    "SELECT account, SUM(cost_usd) FROM calls WHERE ended_at >= '2026-01-01' GROUP BY account;\n",
    "ログによると、接続は三十秒後に切断されています。原因を説明してください。",
    "Le client souhaite modifier l'adresse de livraison avant l'expédition de demain matin. ",
)

_TOOLS: tuple[dict[str, Any], ...] = (
    {
        "name": "find_order",
        "description": "Look an order up by its number.",
        "parameters": {
            "type": "object",
            "properties": {"order": {"type": "string"}, "with_items": {"type": "boolean"}},
            "required": ["order"],
        },
    },
    {
        "name": "book_courier",
        "description": "Have a parcel collected.",
        "parameters": {
            "type": "object",
            "properties": {
                "street": {"type": "string"},
                "city": {"type": "string"},
                "day": {"type": "string", "description": "ISO 8601"},
            },
            "required": ["street", "city", "day"],
        },
    },
)


def draw_request(
    rng: random.Random,
    surface: Dialect,
    *,
    streamed: bool,
    asks_for_usage: bool,
    lone_model: str | None,
    one_choice: bool,
) -> Request:
    """A request for one surface, all its particulars drawn. `lone_model` leaves no choice."""
    kind: Kind = "text" if surface is Dialect.COMPLETIONS or lone_model else rng.choice(_KINDS)
    choices = 2 if surface is Dialect.CHAT and kind == "text" and rng.random() < 0.2 else 1
    choices = 1 if one_choice else choices
    reasons = kind == "reasoning"
    model = lone_model or rng.choice(_models(surface, reasons))
    body: dict[str, Any] = {"model": model, **_prompt(rng, surface), **_options(rng, surface)}
    if choices > 1:
        body["n"] = choices
    if kind in ("tool_call", "parallel_calls"):
        body["tools"] = [_tool(tool, surface) for tool in _TOOLS]
    if streamed:
        body["stream"] = True
        if asks_for_usage and surface is not Dialect.RESPONSES:
            body["stream_options"] = {"include_usage": True}
    return Request(surface, body, rng.choice(_ACCOUNTS), kind, streamed, reasons, choices)


def _models(surface: Dialect, reasons: bool) -> tuple[str, ...]:
    if reasons:
        return _REASONING_MODELS
    match surface:
        case Dialect.CHAT:
            return _CHAT_MODELS
        case Dialect.RESPONSES:
            return _MODELS
        case Dialect.COMPLETIONS:
            return (_COMPLETIONS_MODEL,)


def _prompt(rng: random.Random, surface: Dialect) -> dict[str, Any]:
    """From a short question to a few pages of context."""
    instructions = _text(rng, rng.randint(2, 6))
    question = _text(rng, rng.choice((1, 4, 12, 30, 80, 160)))
    if surface is Dialect.COMPLETIONS:
        return {"prompt": instructions + question}
    if surface is Dialect.RESPONSES:
        return {"instructions": instructions, "input": question}
    messages = [{"role": "system", "content": instructions}]
    if rng.random() < 0.4:  # a conversation under way
        messages.append({"role": "user", "content": _text(rng, 1)})
        messages.append({"role": "assistant", "content": _text(rng, 2)})
    return {"messages": [*messages, {"role": "user", "content": question}]}


def _options(rng: random.Random, surface: Dialect) -> dict[str, Any]:
    """Some callers set a limit that is never reached; legacy completions need one."""
    if surface is Dialect.COMPLETIONS:
        return {"max_tokens": 2000}
    if rng.random() < 0.7:
        return {}
    name = "max_completion_tokens" if surface is Dialect.CHAT else "max_output_tokens"
    return {name: 2000}


def _text(rng: random.Random, sentences: int) -> str:
    return "".join(rng.choice(_SENTENCES) for _ in range(sentences))


def _tool(tool: dict[str, Any], surface: Dialect) -> dict[str, Any]:
    if surface is Dialect.RESPONSES:
        return {"type": "function", **tool, "strict": False}
    return {"type": "function", "function": tool}
