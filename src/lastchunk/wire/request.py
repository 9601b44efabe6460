"""The facts of a request that may be stored, and the one option we may add to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from lastchunk.wire.dialect import Dialect

MAX_REQUEST_BYTES = 64 * 1024 * 1024
"""A larger body is passed on unmetered: no chat request of any provider is that large."""

_NAME_LIMIT = 200
"""Characters of a model's or tier's name that are kept: a name is no place to hide content."""

Body = Mapping[str, object]
"""A parsed request body. It holds content: it lives in memory only."""


_AZURE_HOSTS = (".azure.com", ".microsoft.com", "githubcopilot.com")

_OPENAI_HOST = ".openai.com"

_RELAYS_BY_RESPONSES = ("openrouter.ai",)
_MODELS_BY_RESPONSES = ("gpt-4.1", "gpt-5", "o1", "o3", "o4")
"""OpenRouter asks OpenAI's newer models by responses, whatever it was asked by: its recordings of
these have the constants of responses, those of gpt-4o the ones of chat."""


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What was asked for, without content.

    `output_ceiling` is the most output tokens a choice may have, None if the caller set no limit;
    `usage_requested` is whether the caller itself asked for the usage chunk; `prediction_bytes` is
    at least the length of the output that the caller predicted, in UTF-8, 0 where it did not.
    """

    dialect: Dialect
    model: str
    stream: bool
    usage_requested: bool
    upstream: str
    body_bytes: int
    choices: int = 1
    output_ceiling: int | None = None
    service_tier: str | None = None
    tools_declared: bool = False
    tool_choice: str = "auto"
    json_schema: bool = False
    background: bool = False
    reasoning_effort: str | None = None
    prediction_bytes: int = 0
    exact: bool = False
    """Exact mode: it was sent without streaming, and is replayed as the stream asked for."""

    @property
    def azure(self) -> bool:
        """Whether Azure OpenAI answers, which adds constants of its own; Copilot relays to it."""
        return self.upstream.partition(":")[0].endswith(_AZURE_HOSTS)

    @property
    def relayed(self) -> bool:
        """Whether somebody answers who is neither OpenAI nor Azure, and may count as it likes."""
        return not self.azure and not self.upstream.partition(":")[0].endswith(_OPENAI_HOST)

    @property
    def billed_dialect(self) -> Dialect:
        """The dialect whose constants are billed, where a relay speaks another one upstream."""
        return _billed_dialect(self.dialect, self.upstream, self.model)


def model_of(body: Body | None, path: str) -> str | None:
    """The model that a request names, in its body or, as for Azure, in its URL's path."""
    return (None if body is None else _name(body.get("model"))) or _deployment(path)


def read_body(raw: bytes) -> Body | None:
    """The body as a JSON object, or None where it is none: then the call cannot be metered."""
    if len(raw) > MAX_REQUEST_BYTES:
        return None
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return body if isinstance(body, dict) else None


def read_request(
    dialect: Dialect, body: Body, *, upstream: str, body_bytes: int, path: str = ""
) -> CallRequest:
    """The storable facts of a parsed body. Never raises: an odd value counts as not given.

    `path` gives the model where the body does not: Azure names it in the URL.
    """
    model = model_of(body, path) or "unknown"
    return CallRequest(
        dialect=dialect,
        model=model,
        stream=body.get("stream") is True,
        usage_requested=usage_requested(dialect, body),
        upstream=upstream,
        body_bytes=body_bytes,
        choices=_count(body.get("n")) or 1,
        output_ceiling=_ceiling(body),
        service_tier=_name(body.get("service_tier")),
        tools_declared=bool(body.get("tools") or body.get("functions")),
        tool_choice=_tool_choice(_billed_dialect(dialect, upstream, model), body),
        json_schema=_wants_json_schema(body),
        background=body.get("background") is True,
        reasoning_effort=_effort(body),
        prediction_bytes=_predicted(body, body_bytes),
    )


def usage_requested(dialect: Dialect, body: Body) -> bool:
    """Whether this caller will be sent the usage without our asking for it."""
    if dialect is Dialect.RESPONSES or body.get("stream") is not True:
        return True
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def ask_for_usage(raw: bytes, body: Body) -> bytes | None:
    """The same bytes with `"include_usage":true` inserted, every other byte untouched.

    `body` is `raw` parsed. None where it cannot be inserted safely (the caller said something else
    about it, or wrote the key twice): then nothing is asked for.
    """
    if "stream_options" not in body or body["stream_options"] is None:
        if "stream_options" in body:
            return _replace_once(raw, rb'"stream_options"\s*:\s*null', _OPTIONS)
        end = raw.rstrip().rfind(b"}")
        return raw[:end] + b"," + _OPTIONS + raw[end:]
    options = body["stream_options"]
    if not isinstance(options, dict) or "include_usage" in options:
        return _replace_once(raw, rb'"include_usage"\s*:\s*(?:false|null)', b'"include_usage":true')
    comma = b"," if options else b""
    pattern = rb'"stream_options"\s*:\s*\{'
    return _replace_once(raw, pattern, b'"stream_options":{"include_usage":true' + comma)


def ask_for_running_usage(raw: bytes, body: Body) -> bytes | None:
    """The same with `"continuous_usage_stats":true`, which needs `include_usage`.

    None where the caller said something about it, or where it cannot be inserted safely.
    """
    options = body.get("stream_options")
    if isinstance(options, dict) and "continuous_usage_stats" in options:
        return None
    asked = raw if usage_requested(Dialect.CHAT, body) else ask_for_usage(raw, body)
    if asked is None or body.get("stream") is not True:
        return None
    pattern = rb'"stream_options"\s*:\s*\{'
    return _replace_once(asked, pattern, b'"stream_options":{"continuous_usage_stats":true,')


_OPTIONS = b'"stream_options":{"include_usage":true}'


def _replace_once(raw: bytes, pattern: bytes, replacement: bytes) -> bytes | None:
    """One replacement where the pattern stands once, checked by parsing what came out."""
    found = list(re.finditer(pattern, raw))
    for match in found:
        changed = raw[: match.start()] + replacement + raw[match.end() :]
        body = read_body(changed)
        if body is not None and _asks(body, replacement):
            return changed
    return None


def _asks(body: Body, replacement: bytes) -> bool:
    """Whether the options say what was put in: the key may stand elsewhere in the body, too."""
    options = body.get("stream_options")
    wanted = "continuous_usage_stats" if b"continuous" in replacement else "include_usage"
    told = isinstance(options, dict) and options.get(wanted) is True
    return told and usage_requested(Dialect.CHAT, body)


def _ceiling(body: Body) -> int | None:
    for key in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        if (limit := _count(body.get(key))) is not None:
            return limit
    return None


def _billed_dialect(dialect: Dialect, upstream: str, model: str) -> Dialect:
    relayed = upstream.partition(":")[0].endswith(_RELAYS_BY_RESPONSES)
    name = model.rpartition("/")[2]
    if relayed and dialect is Dialect.CHAT and name.startswith(_MODELS_BY_RESPONSES):
        return Dialect.RESPONSES
    return dialect


def _tool_choice(dialect: Dialect, body: Body) -> str:
    """`auto`, `none`, `required` or `forced`: one function, whose name the model need not write."""
    choice = body.get("tool_choice", body.get("function_call"))
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        choice = choice.get("mode")
    if isinstance(choice, dict):
        return "forced"
    tools = body.get("tools")
    only_one = isinstance(tools, list) and len(tools) == 1
    if choice == "required" and only_one and dialect is Dialect.RESPONSES:
        return "forced"
    return choice if choice in ("none", "required") else "auto"


def _wants_json_schema(body: Body) -> bool:
    wanted = body.get("response_format")
    text = body.get("text")
    if isinstance(text, dict):
        wanted = text.get("format")
    return isinstance(wanted, dict) and wanted.get("type") == "json_schema"


def _effort(body: Body) -> str | None:
    """How much the model is asked to reason: chat says it at the top, responses inside."""
    reasoning = body.get("reasoning")
    nested = reasoning.get("effort") if isinstance(reasoning, dict) else None
    return _name(body.get("reasoning_effort")) or _name(nested)


def _predicted(body: Body, body_bytes: int) -> int:
    """The predicted text's length; of a prediction that is no plain text, at most the body's."""
    prediction = body.get("prediction")
    if not isinstance(prediction, dict):
        return 0
    text = prediction.get("content")
    return len(text.encode("utf-8", "replace")) if isinstance(text, str) else body_bytes


def _deployment(path: str) -> str | None:
    found = re.search(r"/deployments/([^/]+)/", path)
    return _name(found[1]) if found else None


def _name(value: object) -> str | None:
    return value[:_NAME_LIMIT] if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31
    return value if is_count else None  # type: ignore[return-value]
