"""A running count of the output that arrived, kept in bounded memory."""

from __future__ import annotations

import json

from lastchunk.tokens.encodings import SLICE_CHARACTERS, Counted, Encoding, count, last_safe_split
from lastchunk.usage import OutputCounts
from lastchunk.wire.events import ReasoningArrived, TextArrived, TextKind, ToolTextArrived

FOLD_CHARACTERS = 4 * SLICE_CHARACTERS
"""Text kept uncounted at most, for each text of a stream."""

RENDERED_CHARACTERS = 64 * 1024
"""Arguments kept of a choice's calls: several calls are counted as they are rendered together."""

ITEMS = 1024
"""Choices of a stream, and calls of a choice, kept apart; what comes beyond shares the last one."""

PARALLEL_NAME = "multi_tool_use.parallel"
PARALLEL_CALL_TOKENS = 5
PARALLEL_FRAME_TOKENS = 12
"""About what the `tool_uses` text adds a call, and once: used only where it cannot be rendered."""


class GrowingText:
    """One text that arrives in pieces, counted and dropped up to its last safe split."""

    __slots__ = ("_counted", "_encoding", "_pending", "_size")

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._counted = Counted(0)
        self._pending: list[str] = []
        self._size = 0

    def add(self, piece: str) -> None:
        self._pending.append(piece)
        self._size += len(piece)
        if self._size > FOLD_CHARACTERS:
            self._fold()

    def counted(self) -> Counted:
        """The tokens of all that was added so far; costs only what is new."""
        tail = self._fold()
        return self._counted + count(tail, self._encoding, len(tail))

    def _fold(self) -> str:
        text = "".join(self._pending)
        split = last_safe_split(text, 0, len(text))
        if split is None and len(text) > SLICE_CHARACTERS:
            split = len(text) - len(text) % SLICE_CHARACTERS
            self._counted += Counted(0, 1)
        if split:
            self._counted += count(text[:split], self._encoding, split)
            text = text[split:]
        self._pending = [text] if text else []
        self._size = len(text)
        return text


class _Call:
    """One tool call: its name, its arguments' count, and the arguments while they are short."""

    __slots__ = ("arguments", "kept", "name")

    def __init__(self, encoding: Encoding) -> None:
        self.name = ""
        self.arguments = GrowingText(encoding)
        self.kept: list[str] | None = []


class _Choice:
    """The texts of one choice."""

    __slots__ = (
        "calls",
        "kept_characters",
        "logprob_tokens",
        "other",
        "reasoning",
        "refusal",
        "rendered",
        "summary",
        "text",
    )

    def __init__(self, encoding: Encoding) -> None:
        self.text = GrowingText(encoding)
        self.refusal = GrowingText(encoding)
        self.other = GrowingText(encoding)
        self.reasoning = GrowingText(encoding)
        self.summary = GrowingText(encoding)
        self.logprob_tokens: int | None = 0
        self.calls: dict[int, _Call] = {}
        self.kept_characters = 0
        self.rendered: Counted | None = None


class OutputTally:
    """Counts a stream's output as it arrives; any cut of the same text gives the same counts."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._choices: dict[int, _Choice] = {}

    def add(self, event: TextArrived | ReasoningArrived | ToolTextArrived) -> None:
        """Takes one piece. A reasoning summary is not what is billed, and is counted apart."""
        choice = self._choice(event.choice)
        match event:
            case TextArrived(kind=TextKind.CONTENT):
                self._add_content(choice, event)
            case TextArrived(kind=TextKind.REFUSAL):
                choice.refusal.add(event.text)
            case TextArrived():
                choice.other.add(event.text)
            case ReasoningArrived():
                (choice.summary if event.summary else choice.reasoning).add(event.text)
            case ToolTextArrived():
                self._add_call(choice, event)

    def counts(self) -> OutputCounts:
        """The tokens so far; costs only what is new since the last time."""
        text = refusal = reasoning = summary = other = called = Counted(0)
        for choice in self._choices.values():
            text += self._text(choice)
            refusal += choice.refusal.counted()
            reasoning += choice.reasoning.counted()
            summary += choice.summary.counted()
            other += choice.other.counted()
            called += self._calls(choice)
        return OutputCounts(
            text_tokens=text.tokens,
            refusal_tokens=refusal.tokens,
            reasoning_tokens=reasoning.tokens,
            call_tokens=called.tokens,
            call_name_tokens=self._name_tokens(),
            calls=sum(len(choice.calls) for choice in self._choices.values()),
            other_tokens=other.tokens,
            spread=(text + refusal + reasoning + other + called).spread,
            summary_tokens=summary.tokens,
        )

    def _name_tokens(self) -> int:
        """Of a single call, whose opening is not generated where the request forced it."""
        calls = [call for choice in self._choices.values() for call in choice.calls.values()]
        if len(calls) != 1:
            return 0
        return count("functions." + calls[0].name, self._encoding).tokens

    def _choice(self, number: int) -> _Choice:
        if number not in self._choices and len(self._choices) >= ITEMS:
            number = next(iter(self._choices))
        choice = self._choices.get(number)
        if choice is None:
            choice = self._choices[number] = _Choice(self._encoding)
        return choice

    def _add_content(self, choice: _Choice, event: TextArrived) -> None:
        choice.text.add(event.text)
        if event.logprob_tokens is None:
            if event.text:
                choice.logprob_tokens = None
        elif choice.logprob_tokens is not None:
            choice.logprob_tokens += event.logprob_tokens

    def _add_call(self, choice: _Choice, event: ToolTextArrived) -> None:
        number = event.call
        if number not in choice.calls and len(choice.calls) >= ITEMS:
            number = next(iter(choice.calls))
        call = choice.calls.setdefault(number, _Call(self._encoding))
        choice.rendered = None
        call.name += event.name
        call.arguments.add(event.arguments)
        if call.kept is not None:
            choice.kept_characters += len(event.arguments)
            call.kept.append(event.arguments)
            if choice.kept_characters > RENDERED_CHARACTERS:
                call.kept = None

    def _text(self, choice: _Choice) -> Counted:
        if choice.logprob_tokens:
            return Counted(choice.logprob_tokens)
        return choice.text.counted()

    def _calls(self, choice: _Choice) -> Counted:
        if choice.rendered is None:
            choice.rendered = self._render(list(choice.calls.values()))
        return choice.rendered

    def _render(self, calls: list[_Call]) -> Counted:
        if len(calls) > 1 and all(call.kept is not None for call in calls):
            text = parallel_text([(call.name, "".join(call.kept or ())) for call in calls])
            return count(PARALLEL_NAME, self._encoding) + count(text, self._encoding)
        total = Counted(0)
        for call in calls:
            total += count("functions." + call.name, self._encoding) + call.arguments.counted()
        if len(calls) > 1:
            frame = PARALLEL_FRAME_TOKENS + PARALLEL_CALL_TOKENS * len(calls)
            total += Counted(frame, len(calls))
        return total


def compact_arguments(arguments: str) -> str:
    """JSON arguments without white space between values; anything else as it stands."""
    try:
        return json.dumps(json.loads(arguments), separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments


def parallel_text(calls: list[tuple[str, str]]) -> str:
    """Several calls of one turn as OpenAI's models write them: compact (measured on recordings)."""
    uses = ",".join(
        f'{{"recipient_name":"functions.{name}","parameters":{compact_arguments(arguments)}}}'
        for name, arguments in calls
    )
    return f'{{"tool_uses":[{uses}]}}'


def bundled_text(results: list[str], escaped: bool) -> str:
    """Results of several calls as the model is shown them: one JSON array (measured on recordings).

    A result that is itself a JSON object or array stands in it as that, any other as a string;
    `escaped`: characters beyond ASCII as escapes.
    """
    try:
        return json.dumps([_structured(result) for result in results], ensure_ascii=escaped)
    except RecursionError:
        return json.dumps(results, ensure_ascii=escaped)


def _structured(result: str) -> object:
    """The object or array that a text holds, else the text."""
    if result.lstrip()[:1] not in ("{", "["):
        return result
    try:
        return json.loads(result)
    except (ValueError, RecursionError):
        return result
