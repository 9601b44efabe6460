"""Counts a prompt as the provider renders it: messages, and sections of the system message."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from lastchunk.tokens.dated import (
    ESCAPED_RESULTS,
    PARALLEL_NAMESPACE_TOKENS,
    PARALLEL_NAMESPACE_TOKENS_BEHIND_SYSTEM,
    PREAMBLE_TOKENS,
    RESPONSES_PREAMBLE,
)
from lastchunk.tokens.doubts import (
    BUNDLE,
    EARLY_RESPONSES,
    EARLY_TOOLS,
    MARKED_CALL,
    NO_DOUBT,
    REASONING_ROUND,
    SCHEMA_LIMIT,
    TOOLS,
    UNSETTLED,
    Doubt,
    doubt_of,
)
from lastchunk.tokens.encodings import (
    CAP_CHARACTERS,
    EXTRAPOLATION_SPREAD,
    Counted,
    Encoding,
    base_model,
    count,
    encoding_of,
)
from lastchunk.tokens.families import Family, PromptRules, family_of, prompt_rules
from lastchunk.tokens.formats import format_text
from lastchunk.tokens.images import image_range, image_rule, image_tokens
from lastchunk.tokens.tally import PARALLEL_NAME, bundled_text, compact_arguments, parallel_text
from lastchunk.tokens.tools import namespace_text
from lastchunk.usage import Basis, Quantity
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.prompt import Prompt, ToolChoice, Turn

UNKNOWN_VOCABULARY = 0.35
"""Of the count: how far the vocabulary of a model whose name says nothing may differ."""
NEAREST_VOCABULARY = 0.2
"""Of the count: how far a known family's own vocabulary may differ from the nearest at hand."""
OTHER_TEMPLATE = 0.5
"""Of the count: how far another family's chat template may differ from OpenAI's."""
OTHER_TEMPLATE_TOKENS = 60
"""What another family's template may say by itself: dates, roles, a default system message."""
OTHER_TOOLS = 2.5
"""Of the count: most families show tools as JSON with instructions, much longer than TypeScript."""
OTHER_TOOLS_TOKENS = 400


@dataclass(frozen=True, slots=True)
class PromptCount:
    """Input tokens of a prompt, and why the number is not exact where it is not."""

    quantity: Quantity
    reasons: tuple[str, ...]


def count_prompt(
    prompt: Prompt, model: str, dialect: Dialect, *, at_ms: int | None = None
) -> PromptCount:
    """Input tokens. COUNTED where all is derivable; else BOUNDED, wide, with reasons.

    `dialect` is the one that is billed (`CallRequest.billed_dialect`); `at_ms` when the call was
    made, in Unix milliseconds, None: today. Never raises. Linear in the prompt's size up to a cap,
    and extrapolated beyond.
    """
    encoding, family = encoding_of(model), family_of(model)
    sheet = _Sheet(encoding)
    if dialect is Dialect.COMPLETIONS:
        sheet.tokens += prompt.ready_tokens
        for turn in prompt.turns:
            sheet.write("".join(turn.texts))
    else:
        escaped = ESCAPED_RESULTS.holds(at_ms)
        _write_conversation(sheet, prompt, prompt_rules(dialect, family), escaped)
        _add_pictures(sheet, prompt, model)
        if dialect is Dialect.RESPONSES and RESPONSES_PREAMBLE.holds(at_ms):
            _add_preamble(sheet, prompt, model)
    for unknown in prompt.unknowns:
        sheet.doubt += doubt_of(unknown)
        sheet.reasons.append(unknown)
    bare = dialect is Dialect.COMPLETIONS and encoding.exact
    templated = family is Family.OTHER and not bare
    _add_strangeness(sheet, encoding, templated, bool(prompt.tools))
    return sheet.count()


class _Sheet:
    """What the model is shown, as a running number of tokens with its doubts."""

    def __init__(self, encoding: Encoding) -> None:
        self.tokens = 0
        self.doubt = NO_DOUBT
        self.reasons: list[str] = []
        self._encoding = encoding
        self._read = 0
        self._counted = 0
        self._extrapolated = False

    def measure(self, text: str) -> int:
        """Tokens of `text`; beyond the budget of the whole prompt, by the ratio so far."""
        if self._read >= CAP_CHARACTERS:
            self._extrapolated = True
            tokens = round(len(text) * self._counted / self._read)
            counted = Counted(tokens, round(tokens * EXTRAPOLATION_SPREAD))
        else:
            counted = count(text, self._encoding, CAP_CHARACTERS)
            self._read += len(text)
            self._counted += counted.tokens
            self._extrapolated = self._extrapolated or len(text) > CAP_CHARACTERS
        self.doubt += Doubt(-counted.spread, 0, counted.spread)
        return counted.tokens

    def write(self, text: str) -> None:
        self.tokens += self.measure(text)

    def bound(self, doubt: Doubt, reason: str) -> None:
        self.doubt += doubt
        self.reasons.append(reason)

    def count(self) -> PromptCount:
        if self._extrapolated:
            self.reasons.append("extrapolated")
        best = max(0, self.tokens + self.doubt.likely)
        low = min(best, max(0, self.tokens + self.doubt.least))
        high = max(best, self.tokens + self.doubt.most)
        basis = Basis.BOUNDED if self.reasons else Basis.COUNTED
        return PromptCount(Quantity(low, best, high, basis), tuple(dict.fromkeys(self.reasons)))


def _write_conversation(sheet: _Sheet, prompt: Prompt, rules: PromptRules, escaped: bool) -> None:
    sheet.tokens += rules.opening
    if prompt.instructions is not None:
        sheet.tokens += rules.turn
        sheet.write(prompt.instructions)
    bundled = False
    bundle: list[str] = []
    before: Turn | None = None
    for turn, after in zip_longest(prompt.turns, prompt.turns[1:]):
        if turn.answers is None:
            bundled = rules.bundles_calls and len(turn.calls) > 1
            alone = not any(other and other.calls for other in (before, after))
            _write_turn(sheet, turn, rules, alone)
        elif bundled:
            bundle.append("".join(turn.texts))
        else:
            _write_result(sheet, turn, rules)
        if bundle and (after is None or after.answers is None):
            _write_bundle(sheet, bundle, rules, escaped)
            bundle = []
        before = turn
    if prompt.prediction is not None:
        sheet.write(prompt.prediction)
    system = _system_text(prompt)
    if prompt.tools:
        _write_tools(sheet, prompt, rules, system)
    if prompt.answer_schema is not None:
        _write_schema(sheet, prompt, rules, system)
    if (prompt.tools or prompt.answer_schema) and system is not None and rules.joins_system:
        # The blank line before the first section often merges with the system text's last token.
        end = system[-_LAST_CHARACTERS:]
        sheet.tokens += sheet.measure(end + "\n\n") - sheet.measure(end)


_LAST_CHARACTERS = 256
"""Of the system text, enough to see how a blank line behind it is cut into tokens."""


def _system_text(prompt: Prompt) -> str | None:
    if prompt.instructions is not None:
        return prompt.instructions
    for turn in prompt.turns:
        if turn.role in ("system", "developer"):
            return "".join(turn.texts)
    return None


def _write_turn(sheet: _Sheet, turn: Turn, rules: PromptRules, alone: bool) -> None:
    text = "".join(turn.texts)
    if text or not turn.calls:
        sheet.tokens += rules.turn
        sheet.write(text)
        if turn.name:
            # Behind the role: `:user` is one token, most others are two (measured).
            sheet.write(":" + turn.name)
        if turn.role == "assistant":
            sheet.tokens += rules.past_answer
    if not turn.calls:
        return
    sheet.tokens += rules.call_turn
    if rules.bundles_calls and len(turn.calls) > 1:
        calls = [(call.name, call.arguments) for call in turn.calls]
        sheet.tokens += rules.call
        sheet.write(PARALLEL_NAME)
        sheet.write(parallel_text(calls))
        sheet.doubt += BUNDLE
        return
    for call in turn.calls:
        sheet.tokens += rules.call
        sheet.write("functions." + call.name)
        sheet.write(compact_arguments(call.arguments))
        if call.marked and alone and rules.marked_call:
            sheet.tokens += rules.marked_call
            sheet.doubt += MARKED_CALL
        if rules.call_turn:
            sheet.doubt += REASONING_ROUND


def _write_result(sheet: _Sheet, turn: Turn, rules: PromptRules) -> None:
    sheet.write("".join(turn.texts))
    sheet.tokens += rules.result
    sheet.write(turn.answers or "")


def _write_bundle(sheet: _Sheet, results: list[str], rules: PromptRules, escaped: bool) -> None:
    """The results of bundled calls, without their tools' names. Either way of escaping is near."""
    text, other = bundled_text(results, escaped), bundled_text(results, not escaped)
    tokens = sheet.measure(text)
    sheet.tokens += rules.bundled_results + tokens
    if other != text:
        difference = sheet.measure(other) - tokens
        sheet.doubt += Doubt(min(0, difference), 0, max(0, difference))


def _write_tools(sheet: _Sheet, prompt: Prompt, rules: PromptRules, system: str | None) -> None:
    rendered = namespace_text(prompt.tools)
    sheet.write(rendered.text)
    sheet.doubt += TOOLS + UNSETTLED.times(rendered.doubts)
    if rendered.cut:
        sheet.bound(SCHEMA_LIMIT, "schema_limit")
    sheet.tokens += rules.tools
    if not prompt.tools[0].description:
        sheet.tokens += rules.bare_tool
    if system is None or not rules.joins_system:
        sheet.tokens += rules.tools_turn
    match prompt.tool_choice:
        case ToolChoice.NONE:
            sheet.tokens += rules.none
        case ToolChoice.FORCED if rules.forced is not None:
            sheet.tokens += rules.forced
            sheet.write("functions." + prompt.forced_name)
        case ToolChoice.REQUIRED if rules.forces_only_tool and len(prompt.tools) == 1:
            sheet.tokens += rules.forced or 0
            sheet.write("functions." + prompt.tools[0].name)


def _write_schema(sheet: _Sheet, prompt: Prompt, rules: PromptRules, system: str | None) -> None:
    schema = prompt.answer_schema
    assert schema is not None
    sheet.write(format_text(schema))
    sheet.tokens += rules.schema
    if prompt.tools:
        sheet.tokens += rules.schema_behind_tools
        return
    if system is None:
        sheet.tokens += rules.schema_turn
    if rules.names_format:
        past = sum(turn.role == "assistant" and not turn.calls for turn in prompt.turns)
        sheet.tokens += (1 + past) * (rules.schema_heading + sheet.measure(schema.name))


def _add_preamble(sheet: _Sheet, prompt: Prompt, model: str) -> None:
    """What responses told gpt-4o besides the request in their first weeks."""
    if not base_model(model).startswith("gpt-4o"):
        sheet.doubt += EARLY_RESPONSES
        return
    sheet.tokens += PREAMBLE_TOKENS
    if prompt.tools:
        behind = _system_text(prompt) is not None
        sheet.tokens += (
            PARALLEL_NAMESPACE_TOKENS_BEHIND_SYSTEM if behind else PARALLEL_NAMESPACE_TOKENS
        )
        sheet.doubt += EARLY_TOOLS


def _add_pictures(sheet: _Sheet, prompt: Prompt, model: str) -> None:
    rule = image_rule(model)
    for turn in prompt.turns:
        for picture in turn.pictures:
            if picture.width is not None and picture.height is not None:
                sheet.tokens += image_tokens(rule, picture.width, picture.height, picture.detail)
            else:
                least, likely, most = image_range(rule, picture.detail)
                sheet.doubt += Doubt(least, likely, most)


def _add_strangeness(sheet: _Sheet, encoding: Encoding, templated: bool, tools: bool) -> None:
    """Widens where the vocabulary, or the template of a conversation, is not OpenAI's."""
    tokens = sheet.tokens
    if not encoding.exact:
        margin = round(tokens * (NEAREST_VOCABULARY if encoding.known else UNKNOWN_VOCABULARY))
        name = "vocabulary_nearest" if encoding.known else "vocabulary_unknown"
        sheet.bound(Doubt(-margin, 0, margin), name)
    if templated:
        most = round(tokens * OTHER_TEMPLATE) + OTHER_TEMPLATE_TOKENS
        if tools:
            most += round(tokens * OTHER_TOOLS) + OTHER_TOOLS_TOKENS
        sheet.bound(Doubt(-round(tokens * OTHER_TEMPLATE), 0, most), "template_unknown")
