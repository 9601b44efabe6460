"""How this provider counts: prompts, end-of-turn constants, and the usage that it reports.

The rules follow what was measured on OpenAI's own answers, as far as they are plain. Where the
real rule is open (images, unusual schemas) this provider has a rule of its own, named where it
stands: its usage chunk and its bill agree in any case, and that is what a simulator owes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from lastchunk.simulator.namespace_text import namespace_text
from lastchunk.simulator.text import Vocabulary

Json = dict[str, Any]
Family = Literal["older", "gpt-4", "o-series", "gpt-5", "gpt-5.1", "gpt-5.2+"]
Endpoint = Literal["chat/completions", "responses", "completions", "embeddings"]
Shape = Literal["text", "one_call", "forced_call", "parallel_calls", "refusal"]

# This provider's own rule for a part of a message that is not text (an image, a file, audio).
TOKENS_PER_OTHER_PART = 85


def family_of(model: str) -> Family:
    name = model.rpartition("/")[2]
    if re.match(r"o\d", name):
        return "o-series"
    if name.startswith("gpt-5"):
        minor = re.match(r"gpt-5\.(\d+)", name)
        if minor is None:
            return "gpt-5"
        return "gpt-5.1" if int(minor[1]) == 1 else "gpt-5.2+"
    cl100k_gpt4 = name == "gpt-4" or name.startswith(("gpt-4-", "gpt-4_"))
    return "gpt-4" if cl100k_gpt4 else "older"


def _reasons(family: Family) -> bool:
    return family not in ("older", "gpt-4")


# --- the prompt -----------------------------------------------------------------------------


def prompt_tokens(vocabulary: Vocabulary, model: str, endpoint: Endpoint, body: Json) -> int:
    """Tokens of a request as this provider bills them."""
    match endpoint:
        case "chat/completions":
            return _chat_prompt(vocabulary, family_of(model), body.get("messages") or [], body)
        case "responses":
            family = family_of(model)
            messages = messages_of_responses(body)
            count = _chat_prompt(vocabulary, family, messages, body, responses=True)
            return count - 1 if family == "gpt-4" else count
        case "completions":
            return _plain(vocabulary, body.get("prompt", ""))
        case "embeddings":
            return _plain(vocabulary, body.get("input", ""))


def _plain(vocabulary: Vocabulary, given: Any) -> int:
    """A string, a list of strings, a list of token ids, or a list of such lists."""
    if isinstance(given, str):
        return vocabulary.count(given)
    if not isinstance(given, list):
        return 0
    return sum(1 if isinstance(item, int) else _plain(vocabulary, item) for item in given)


def messages_of_responses(body: Json) -> list[Json]:
    """A Responses request as chat messages; items that are no message keep their own shape."""
    messages: list[Json] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    given = body.get("input", "")
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for item in given if isinstance(given, list) else []:
        match item.get("type", "message"):
            case "function_call" | "custom_tool_call":
                text = item.get("arguments", item.get("input", ""))
                call = {"function": {"name": item.get("name", ""), "arguments": text}}
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            case "function_call_output" | "custom_tool_call_output":
                messages.append({"role": "tool", "content": item.get("output", "")})
            case _:
                messages.append(item)
    return messages


def _chat_prompt(
    vocabulary: Vocabulary,
    family: Family,
    messages: list[Json],
    body: Json,
    *,
    responses: bool = False,
) -> int:
    total = 2 if _reasons(family) else 3
    names: dict[str, str] = {}
    for message in messages:
        total += 4 + _message(vocabulary, family, message, names)
    return total + _tools(vocabulary, family, messages, body, responses)


def _message(vocabulary: Vocabulary, family: Family, message: Json, names: dict[str, str]) -> int:
    total = _content(vocabulary, message.get("content"))
    total += vocabulary.count(message.get("name") or "") if message.get("role") != "tool" else 0
    calls = list(message.get("tool_calls") or [])
    if message.get("function_call"):
        calls.append({"function": message["function_call"]})
    if len(calls) == 1:
        call = calls[0].get("function") or calls[0].get("custom") or {}
        names[str(calls[0].get("id"))] = call.get("name", "")
        text = call.get("arguments", call.get("input", ""))
        total += vocabulary.count(f"functions.{call.get('name', '')}") + vocabulary.count(text) + 2
    elif calls:
        pairs = [(c["function"]["name"], c["function"]["arguments"]) for c in calls]
        text = parallel_text(pairs)
        total += vocabulary.count("multi_tool_use.parallel") + vocabulary.count(text) + 2
    elif message.get("role") == "assistant" and _reasons(family):
        total += 2
    if message.get("role") == "tool":
        total += vocabulary.count(names.get(str(message.get("tool_call_id")), "")) + 2
    return total


def _content(vocabulary: Vocabulary, content: Any) -> int:
    if isinstance(content, str):
        return vocabulary.count(content)
    if not isinstance(content, list):
        return 0
    text = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    others = sum(1 for part in content if isinstance(part, dict) and "text" not in part)
    return vocabulary.count(text) + TOKENS_PER_OTHER_PART * others


def _tools(
    vocabulary: Vocabulary, family: Family, messages: list[Json], body: Json, responses: bool
) -> int:
    tools = functions_of(body)
    if not tools:
        return 0
    total = vocabulary.count(namespace_text(tools))
    if _reasons(family):
        return total + (9 if responses else 10 if family == "o-series" else 90)
    system = next((m for m in messages if m.get("role") in ("system", "developer")), None)
    if system is None:
        total += 3 if responses else 9
    else:
        text = system.get("content") if isinstance(system.get("content"), str) else ""
        joined = vocabulary.count(f"{text}\n\n") - vocabulary.count(text or "")
        total += (3 if responses else 5) + joined
    choice = body.get("tool_choice")
    if choice == "none":
        total += 1
    elif choice == "required":
        total += 9 if responses else 0
    elif forced := forced_name(body):
        total += vocabulary.count(f"functions.{forced}") + (15 if responses else 6)
    return total


def functions_of(body: Json) -> list[Json]:
    """The declared functions, whatever the API's shape: name, description, parameters."""
    tools = list(body.get("functions") or [])
    for tool in body.get("tools") or []:
        inner = tool.get("function") or tool.get("custom") or tool
        if inner.get("name"):
            tools.append(inner)
    return tools


def forced_name(body: Json) -> str | None:
    """The function that the request demands by name, if it does."""
    choice = body.get("tool_choice") or body.get("function_call")
    if not isinstance(choice, dict):
        return None
    inner = choice.get("function") or choice.get("custom") or choice
    name = inner.get("name")
    return name if isinstance(name, str) else None


def parallel_text(calls: list[tuple[str, str]]) -> str:
    """The text of which several calls in one turn are one call."""
    uses = ",".join(
        f'{{"recipient_name":"functions.{name}","parameters":{arguments}}}'
        for name, arguments in calls
    )
    return f'{{"tool_uses":[{uses}]}}'


# --- the output -----------------------------------------------------------------------------

_CHAT_TEXT = {"gpt-5": 9, "gpt-5.1": 9, "gpt-5.2+": 3, "o-series": 11}
_CHAT_CALL = {"gpt-4": 3, "gpt-5": 15, "gpt-5.1": 15, "o-series": 15, "gpt-5.2+": 9}
_RESPONSES_TEXT = {"gpt-5": 6, "gpt-5.1": 4, "gpt-5.2+": 4}
_RESPONSES_CALL = {"gpt-5": 12, "gpt-5.1": 10, "gpt-5.2+": 10}


def end_of_turn_tokens(
    model: str, endpoint: Endpoint, body: Json, shape: Shape, *, reasoned: bool
) -> int:
    """Tokens of a *finished* turn beyond its text; a turn cut short has none."""
    family = family_of(model)
    if endpoint == "completions":
        return 0
    if endpoint == "responses":
        return _responses_end(family, body, shape, reasoned)
    match shape:
        case "text":
            return _CHAT_TEXT.get(family, 0) or _chat_text_end(body)
        case "one_call":
            return _CHAT_CALL.get(family, 6)
        case "forced_call":
            return 0
        case "parallel_calls":
            return 4
        case "refusal":
            return 1


def _chat_text_end(body: Json) -> int:
    if not functions_of(body):
        return 0
    if json_schema_of(body) is not None:
        return 5
    return 2 if body.get("tool_choice") == "none" else 1


def _responses_end(family: Family, body: Json, shape: Shape, reasoned: bool) -> int:
    extra = 2 if reasoned and family in ("gpt-5.1", "gpt-5.2+") else 0
    match shape:
        case "text" if family in ("gpt-5.1", "gpt-5.2+") and json_schema_of(body) is not None:
            return 8 + extra
        case "text" if family in _RESPONSES_TEXT:
            return _RESPONSES_TEXT[family] + extra
        case "text" if functions_of(body):
            return 6 if json_schema_of(body) is not None else 2
        case "text":
            return 1
        case "one_call":
            return _RESPONSES_CALL.get(family, 7) + extra
        case "forced_call":
            return 1
        case "parallel_calls":
            return 7
        case "refusal":
            return 2


def json_schema_of(body: Json) -> Json | None:
    """The schema that the answer must follow: chat's response_format or Responses' text.format."""
    chat = body.get("response_format")
    if isinstance(chat, dict) and chat.get("type") == "json_schema":
        schema = chat.get("json_schema", {}).get("schema")
        return schema if isinstance(schema, dict) else None
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = form.get("schema")
        return schema if isinstance(schema, dict) else None
    return None


# --- usage ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """One call's tokens; cached is part of prompt, reasoning part of output."""

    prompt: int
    cached: int
    output: int
    reasoning: int


def usage_json(counts: Counts, endpoint: Endpoint, model: str) -> Json:
    """The usage object of an endpoint; o-series and gpt-5 round reasoning down to 64."""
    reasoning = counts.reasoning
    if family_of(model) in ("o-series", "gpt-5"):
        reasoning -= reasoning % 64
    total = counts.prompt + counts.output
    if endpoint == "responses":
        return {
            "input_tokens": counts.prompt,
            "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": 0},
            "output_tokens": counts.output,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": total,
        }
    if endpoint == "embeddings":
        return {"prompt_tokens": counts.prompt, "total_tokens": counts.prompt}
    usage: Json = {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.output,
        "total_tokens": total,
    }
    if endpoint == "chat/completions":
        usage["prompt_tokens_details"] = {"cached_tokens": counts.cached, "audio_tokens": 0}
        usage["completion_tokens_details"] = {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        }
    return usage


def compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()
