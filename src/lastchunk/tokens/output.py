"""From the text that arrived to the tokens a provider bills for it: the end-of-turn constants."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lastchunk.tokens.dated import AZURE_END_TOKEN, END_TOKEN
from lastchunk.tokens.families import Family, family_of
from lastchunk.usage import Basis, OutputCounts, Quantity
from lastchunk.wire.dialect import Dialect

ROUNDING = 63
"""o-series and gpt-5 round reasoning down to a multiple of 64: the rest seems to be visible."""


PARALLEL_SPREAD = 3
"""How far the text of several calls may differ from the one that is counted."""


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """Tokens that a finished answer has besides its text. Measured on recordings."""

    text: int = 0
    text_beside_tools: int = 1
    text_beside_none: int = 2
    """Tools are declared and forbidden."""
    text_in_schema: int = 0
    text_in_schema_beside_tools: int = 5
    call: int = 6
    forced_call: int = 0
    """Its name is not generated: what it was counted with is taken off."""
    names_forced: bool = False
    """A forced call's name is generated all the same."""
    parallel_calls: int = 6
    text_before_call: int = 1
    refusal: int = 1
    refusal_beside_tools: int = 4
    """More, where tools are declared and a schema is asked for: as for a text that follows it."""
    reasoned: int = 0
    """More where the answer reasoned: the switch from the reasoning to what is shown."""
    reasoned_text_beside_tools: int = 0
    """The same for a text where tools are declared."""
    bills_end: bool = True
    """Billed with the end of turn where and when that is billed: one token."""
    least: int = 0
    """Further below the constant that recordings go."""
    most: int = 1
    """Further above it; of models that do not reason, only where somebody relays."""


_CHAT = AnswerRules()
_CHAT_GPT_5 = AnswerRules(
    text=9,
    text_beside_tools=3,
    text_beside_none=12,
    text_in_schema=13,
    text_in_schema_beside_tools=14,
    call=15,
    forced_call=15,
    names_forced=True,
    parallel_calls=15,
    text_before_call=9,
    reasoned_text_beside_tools=6,
    most=ROUNDING,
)
_CHAT_GPT_5_4 = replace(
    _CHAT_GPT_5,
    text=3,
    text_beside_tools=3,
    text_beside_none=6,
    text_in_schema=7,
    text_in_schema_beside_tools=8,
    call=9,
    forced_call=9,
    parallel_calls=9,
    reasoned_text_beside_tools=0,
    most=2,
)
_CHAT_O_SERIES = replace(
    _CHAT_GPT_5,
    text=10,
    text_beside_tools=10,
    call=17,
    forced_call=17,
    reasoned_text_beside_tools=0,
)
_RESPONSES = AnswerRules(
    text=1,
    text_beside_tools=2,
    text_beside_none=1,
    text_in_schema=1,
    text_in_schema_beside_tools=6,
    call=7,
    forced_call=1,
    parallel_calls=7,
    refusal=2,
    most=0,
)
_RESPONSES_GPT_5 = AnswerRules(
    text=6,
    text_beside_tools=4,
    text_beside_none=6,
    text_in_schema=10,
    text_in_schema_beside_tools=10,
    call=12,
    forced_call=12,
    names_forced=True,
    parallel_calls=13,
    text_before_call=9,
    refusal=7,
    reasoned_text_beside_tools=2,
    bills_end=False,
    least=0,
    most=ROUNDING,
)
_RESPONSES_LATER = replace(
    _RESPONSES_GPT_5,
    text=4,
    text_beside_tools=4,
    text_beside_none=4,
    text_in_schema=8,
    text_in_schema_beside_tools=8,
    call=10,
    forced_call=10,
    parallel_calls=10,
    refusal=5,
    reasoned=2,
    reasoned_text_beside_tools=0,
    most=2,
)
_RESPONSES_O_SERIES = replace(
    _RESPONSES_GPT_5,
    text=1,
    text_beside_tools=1,
    reasoned_text_beside_tools=0,
    most=ROUNDING + 6,
)

_ANSWERS: dict[tuple[Dialect, Family], AnswerRules] = {
    (Dialect.CHAT, Family.GPT_4): replace(_CHAT, call=3),
    (Dialect.CHAT, Family.O_SERIES): _CHAT_O_SERIES,
    (Dialect.CHAT, Family.GPT_5): _CHAT_GPT_5,
    (Dialect.CHAT, Family.GPT_5_1): replace(
        _CHAT_GPT_5, text_beside_tools=9, reasoned_text_beside_tools=0, least=-6, most=2
    ),
    (Dialect.CHAT, Family.GPT_5_4): _CHAT_GPT_5_4,
    (Dialect.RESPONSES, Family.O_SERIES): _RESPONSES_O_SERIES,
    (Dialect.RESPONSES, Family.GPT_5): _RESPONSES_GPT_5,
    (Dialect.RESPONSES, Family.GPT_5_1): _RESPONSES_LATER,
    (Dialect.RESPONSES, Family.GPT_5_4): _RESPONSES_LATER,
}


def answer_rules(dialect: Dialect, family: Family) -> AnswerRules:
    """The constants of a family; one that is not known is taken for gpt-4o."""
    default = _RESPONSES if dialect is Dialect.RESPONSES else _CHAT
    return _ANSWERS.get((dialect, family), default)


def count_output(
    counts: OutputCounts,
    *,
    model: str,
    dialect: Dialect,
    finished: bool,
    tools_declared: bool,
    forced_call: bool,
    json_schema: bool,
    tool_choice_none: bool,
    azure: bool,
    refusals: int,
    choices: int = 1,
    reasoned: bool = False,
    stops: bool = False,
    relayed: bool = True,
    at_ms: int | None = None,
) -> Quantity:
    """Tokens of the output that arrived, without hidden reasoning.

    `finished`: the answer came to its own end (`stop`, `tool_calls`). One that was cut, or ended by
    a length limit, has no end-of-turn tokens; but a call's opening, and the opening of an answer
    that may reason, are generated before its text. `forced_call`: the request forced one named
    function, or in responses required a call while one function was declared. Each of `choices`
    that finished has its own end-of-turn tokens. `reasoned`: the provider told that it reasoned,
    unseen. `stops`: the request names stop sequences, and an end by one of them is no end of turn.
    `relayed`: somebody answers who is neither OpenAI nor Azure, and may ask by another API.
    `at_ms`: when, in Unix milliseconds; None: today.
    """
    family = family_of(model)
    total, spread = shown_tokens(counts, model), counts.spread
    if not total or dialect is Dialect.COMPLETIONS:
        return Quantity(max(0, total - spread), total, total + spread, Basis.COUNTED)
    rules = answer_rules(dialect, family)
    extra = _around(counts, rules, tools_declared, forced_call, json_schema, tool_choice_none)
    if reasoned:
        extra += rules.reasoned
        if tools_declared and not (counts.calls or json_schema or tool_choice_none):
            extra += rules.reasoned_text_beside_tools
    most_more = _most_more(rules, family, relayed, at_ms)
    low, high = extra + rules.least, extra + most_more
    if finished:
        end = rules.bills_end and _end_is_billed(dialect, family, azure, stops, at_ms)
        extra = (extra + end) * choices + rules.refusal * refusals
        low, high = extra + rules.least * choices, extra + most_more * choices
        if counts.refusal_tokens and tools_declared and json_schema:
            extra, high = extra + rules.refusal_beside_tools, high + rules.refusal_beside_tools
    elif family.reasons:
        extra = max(0, extra - 1)
        low = 0
    elif not counts.calls:
        low, extra, high = 0, 0, 0
    if counts.calls > 1:
        low, high = low - PARALLEL_SPREAD, high + PARALLEL_SPREAD
    elif counts.calls and forced_call and not rules.names_forced:
        named = counts.call_name_tokens
        low, extra, high = low - named, extra - named, high - named
    best = max(0, total + extra)
    least, most = max(0, total + low - spread), total + high + spread
    return Quantity(min(best, least), best, max(best, most), Basis.COUNTED)


def _most_more(rules: AnswerRules, family: Family, relayed: bool, at_ms: int | None) -> int:
    """How far above its constants an answer may be billed.

    OpenAI itself and Azure keep to them, but in the months when some ends of turn were billed.
    """
    if family.reasons or relayed or END_TOKEN.holds(at_ms):
        return rules.most
    return 0


def shown_tokens(counts: OutputCounts, model: str) -> int:
    """Of what arrived, what is billed as it was counted.

    OpenAI's models never show their reasoning: what arrives as such, from a relay, sums it up.
    """
    return counts.total - (counts.reasoning_tokens if family_of(model).reasons else 0)


def _end_is_billed(
    dialect: Dialect, family: Family, azure: bool, stops: bool, at_ms: int | None
) -> bool:
    """Whether the token that ends a turn is billed."""
    if azure:
        return AZURE_END_TOKEN.holds(at_ms)
    early = dialect is Dialect.CHAT and not family.reasons and family is not Family.OTHER
    return early and not stops and END_TOKEN.holds(at_ms)


def _around(
    counts: OutputCounts,
    rules: AnswerRules,
    tools_declared: bool,
    forced_call: bool,
    json_schema: bool,
    tool_choice_none: bool,
) -> int:
    """The constant of one answer, by what it holds and what the request declared."""
    if counts.calls:
        beside = rules.text_before_call if counts.text_tokens else 0
        if counts.calls > 1:
            return rules.parallel_calls + beside
        return (rules.forced_call if forced_call else rules.call) + beside
    if not counts.text_tokens:
        return 0
    if json_schema:
        return rules.text_in_schema_beside_tools if tools_declared else rules.text_in_schema
    if tools_declared:
        return rules.text_beside_none if tool_choice_none else rules.text_beside_tools
    return rules.text
