"""What reached the caller of one call: all that a tracker that trusts the usage chunk has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lastchunk.usage import TokenCounts


@dataclass(slots=True)
class Heard:
    """Filled by the caller as chunks come. `usage` stays None where no usage reached it."""

    number: int
    chunks: int = 0
    finished: int = 0
    usage: TokenCounts | None = None
    response_id: str | None = None
    error: str | None = None
    _alarm: tuple[int, Callable[[], object]] | None = field(default=None, repr=False)

    def when(self, chunks: int, act: Callable[[], object]) -> None:
        """Do something once so many chunks have come."""
        self._alarm = (chunks, act)

    def hear(self, chunk: Any) -> None:
        """A chunk or event of a stream, or a whole answer."""
        self.chunks += 1
        if self._alarm is not None and self.chunks >= self._alarm[0]:
            self._alarm[1]()
        told = getattr(chunk, "response", None) or chunk
        self.response_id = getattr(told, "id", None) or self.response_id
        for choice in getattr(told, "choices", None) or ():
            self.finished += choice.finish_reason is not None
        if (usage := getattr(told, "usage", None)) is not None:
            self.usage = _counts(usage)


def _counts(usage: Any) -> TokenCounts:
    """Chat's and completions' names, or those of Responses."""
    details = getattr(usage, "prompt_tokens_details", None)
    if hasattr(usage, "prompt_tokens"):
        return TokenCounts(
            input_tokens=usage.prompt_tokens,
            input_cached_tokens=getattr(details, "cached_tokens", None),
            output_tokens=usage.completion_tokens,
        )
    return TokenCounts(
        input_tokens=usage.input_tokens,
        input_cached_tokens=usage.input_tokens_details.cached_tokens,
        output_tokens=usage.output_tokens,
    )
