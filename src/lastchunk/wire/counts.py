"""A provider's usage object, in any of its dialects, brought to `TokenCounts`."""

from __future__ import annotations

from collections.abc import Mapping

from lastchunk.usage import TokenCounts

_LARGEST = 2**53
"""Beyond this a JSON number is no count."""


def read_counts(usage: object) -> TokenCounts | None:
    """The counts in a `usage` object of chat, completions or responses; None if it holds none.

    Chat says prompt/completion, responses input/output; both are looked for: some servers mix them.
    Some providers (xAI among them) leave reasoning out of `completion_tokens`: where the total
    tells so, it is added, because reasoning is a part of output here.
    """
    if not isinstance(usage, Mapping):
        return None
    given = _part(usage, "prompt_tokens_details", "input_tokens_details")
    made = _part(usage, "completion_tokens_details", "output_tokens_details")
    input_tokens = _first(usage, "prompt_tokens", "input_tokens")
    output_tokens = _first(usage, "completion_tokens", "output_tokens")
    reasoning = _first(made, "reasoning_tokens")
    if input_tokens is None and output_tokens is None:
        return None
    if _left_out(reasoning, input_tokens, output_tokens, _first(usage, "total_tokens")):
        output_tokens = (output_tokens or 0) + (reasoning or 0)
    return TokenCounts(
        input_tokens=input_tokens,
        input_cached_tokens=_cached(usage, given),
        input_cache_write_tokens=_first(given, "cache_write_tokens"),
        input_audio_tokens=_first(given, "audio_tokens"),
        input_image_tokens=_first(given, "image_tokens"),
        output_tokens=output_tokens,
        output_reasoning_tokens=reasoning,
        output_audio_tokens=_first(made, "audio_tokens"),
        output_image_tokens=_first(made, "image_tokens"),
    )


def _left_out(
    reasoning: int | None, given: int | None, made: int | None, total: int | None
) -> bool:
    """Whether the total shows that reasoning is not inside the output."""
    if not reasoning or given is None or made is None:
        return False
    return total == given + made + reasoning


def _cached(usage: Mapping[str, object], given: Mapping[str, object]) -> int | None:
    """OpenAI's place first; DeepSeek and Kimi have one of their own."""
    cached = _first(given, "cached_tokens")
    return (
        cached if cached is not None else _first(usage, "prompt_cache_hit_tokens", "cached_tokens")
    )


def _part(usage: Mapping[str, object], *names: str) -> Mapping[str, object]:
    for name in names:
        part = usage.get(name)
        if isinstance(part, Mapping):
            return part
    return {}


def _first(place: Mapping[str, object], *names: str) -> int | None:
    """The first of these keys that holds a count. An explicit 0 is a count; null is none."""
    for name in names:
        value = place.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST:
            return value
    return None
