"""From tokens and a price to money: the low end, the best guess and the high end.

Parts are inside their whole: cached, cache-write, audio and image tokens are input; reasoning,
audio and image tokens are output. A part with a rate of its own is charged at it, the rest of the
whole at the whole's rate.

Where a share is not known (`None`), the ends of the interval take it as it suits them: the low end
the largest share of the cheapest part, the high end none of it, or all of a dearer one (a cache
write may cost more than plain input). The best guess takes none. A reported share is exact.
Unknown audio and image parts count as absent: whoever sent any was told how many.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from lastchunk.money import nano_usd
from lastchunk.pricing.price import Price, Rates
from lastchunk.usage import Basis, Quantity, Usage

_PER_MTOK = Decimal(1_000_000)

_INPUT_PARTS = (
    "input_cached_tokens",
    "input_cache_write_tokens",
    "input_audio_tokens",
    "input_image_tokens",
)
_OUTPUT_PARTS = ("output_reasoning_tokens", "output_audio_tokens", "output_image_tokens")

_MAY_BE_HIDDEN = frozenset(
    {"input_cached_tokens", "input_cache_write_tokens", "output_reasoning_tokens"}
)
"""Parts that can be there without anybody having said so."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The provider's money in nano-dollars: `low ≤ best ≤ high`."""

    low: int
    best: int
    high: int


@dataclass(frozen=True, slots=True)
class CostLine:
    """One line of the best guess. `rate` is USD per million tokens (per request for a request)."""

    part: str
    count: int
    rate: Decimal
    amount_usd: Decimal


@dataclass(frozen=True, slots=True)
class Costing:
    """A cost, how its best guess adds up, and what is doubtful about it, by name."""

    cost: Cost
    lines: tuple[CostLine, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part with a rate of its own; `high` None: up to the whole."""

    name: str
    low: int
    best: int
    high: int | None
    rate: Decimal


def cost_of(usage: Usage, price: Price) -> Cost:
    """The cost of a usage in nano-dollars. Never raises, whatever the provider said."""
    return costing(usage, price).cost


def costing(usage: Usage, price: Price) -> Costing:
    """`cost_of` with its lines and its reasons.

    Reasons: those of the price; `parts_exceed:WHOLE` where parts add up to more than their whole
    (they are cut to fit, in the order of `Usage`); `share_unknown:PART` where the interval comes
    from an unknown share of a reported whole; `no_usage:WHOLE` where a whole is not known and costs
    nothing here.
    """
    input_tokens = usage.input_tokens or _NONE
    output_tokens = usage.output_tokens or _NONE
    ends = [
        _ends(usage, price.rates_for(length), length, output_tokens)
        for length in _lengths(input_tokens, price)
    ]
    lines, reasons = _best_lines(usage, price, input_tokens, output_tokens)
    best = sum((line.amount_usd for line in lines), Decimal(0))
    low = min(*(low for low, _ in ends), best)
    high = max(*(high for _, high in ends), best)
    return Costing(
        cost=Cost(nano_usd(low), nano_usd(best), nano_usd(high)),
        lines=lines,
        reasons=(*price.reasons, *reasons),
    )


def ceiling(price: Price, input_tokens: int, output_tokens: int) -> int:
    """The most that this many tokens can cost as text, in nano-dollars: what to hold for a call."""
    rates = price.rates_for(input_tokens)
    dearest = input_tokens * _dearest(rates, rates.input_tokens, _INPUT_PARTS)
    dearest += output_tokens * _dearest(rates, rates.output_tokens, _OUTPUT_PARTS)
    return nano_usd(dearest / _PER_MTOK + rates.request_usd)


def _dearest(rates: Rates, plain: Decimal, parts: tuple[str, ...]) -> Decimal:
    """The highest rate that a token of text may turn out to be charged at."""
    dearest = plain
    for name in parts:
        rate: Decimal | None = getattr(rates, name) if name in _MAY_BE_HIDDEN else None
        if rate is not None and rate > dearest:
            dearest = rate
    return dearest


def output_cost(price: Price, input_tokens: int, tokens: Quantity) -> Cost:
    """What so many more tokens of output cost as text, in a call with so much input."""
    rate = price.rates_for(input_tokens).output_tokens
    low, best, high = (
        nano_usd(rate * count / _PER_MTOK) for count in (tokens.low, tokens.best, tokens.high)
    )
    return Cost(low, best, high)


def _assumed(tokens: int) -> Quantity:
    return Quantity(tokens, tokens, tokens, Basis.ASSUMED)


_NONE = _assumed(0)


def _lengths(tokens: Quantity, price: Price) -> set[int]:
    """Input lengths at which the cost may be at an end: the interval's, and each step inside it."""
    steps = (step.above_input_tokens for step in price.steps)
    inside = (near for step in steps for near in (step, step + 1))
    return {tokens.low, tokens.high} | {one for one in inside if tokens.low <= one <= tokens.high}


def _ends(usage: Usage, rates: Rates, length: int, output: Quantity) -> tuple[Decimal, Decimal]:
    """The least and the most that this much input and the output's interval can cost."""
    input_parts = _parts(usage, rates, _INPUT_PARTS)
    output_parts = _parts(usage, rates, _OUTPUT_PARTS)
    low = _end(length, input_parts, rates.input_tokens, dearest=False)
    low += _end(output.low, output_parts, rates.output_tokens, dearest=False)
    high = _end(length, input_parts, rates.input_tokens, dearest=True)
    high += _end(output.high, output_parts, rates.output_tokens, dearest=True)
    return low + rates.request_usd, high + rates.request_usd


def _end(whole: int, parts: list[_Part], rate: Decimal, *, dearest: bool) -> Decimal:
    """The cheapest or dearest way to divide a whole into parts and a rest."""
    counts = _fitted(whole, [part.low for part in parts])
    rest = whole - sum(counts)
    gaining = [
        (part.rate - rate if dearest else rate - part.rate, place)
        for place, part in enumerate(parts)
    ]
    for gain, place in sorted(gaining, reverse=True):
        if gain <= 0:
            break
        most = parts[place].high
        more = rest if most is None else min(rest, max(0, most - counts[place]))
        counts[place] += more
        rest -= more
    amounts = (part.rate * count for part, count in zip(parts, counts, strict=True))
    return (rate * rest + sum(amounts, Decimal(0))) / _PER_MTOK


def _fitted(whole: int, counts: list[int]) -> list[int]:
    """The counts, cut so that they add up to no more than the whole; the first ones win."""
    fitted = []
    for count in counts:
        taken = min(count, whole)
        fitted.append(taken)
        whole -= taken
    return fitted


def _parts(usage: Usage, rates: Rates, names: tuple[str, ...]) -> list[_Part]:
    """The parts that are charged at a rate of their own."""
    parts = []
    for name in names:
        rate: Decimal | None = getattr(rates, name)
        tokens: Quantity | None = getattr(usage, name)
        if rate is None or (tokens is None and name not in _MAY_BE_HIDDEN):
            continue
        if tokens is None:
            parts.append(_Part(name, 0, 0, None, rate))
        else:
            parts.append(_Part(name, tokens.low, tokens.best, tokens.high, rate))
    return parts


def _best_lines(
    usage: Usage, price: Price, input_tokens: Quantity, output_tokens: Quantity
) -> tuple[tuple[CostLine, ...], list[str]]:
    rates = price.rates_for(input_tokens.best)
    lines: list[CostLine] = []
    reasons: list[str] = []
    wholes = (
        ("input_tokens", input_tokens, rates.input_tokens, _INPUT_PARTS),
        ("output_tokens", output_tokens, rates.output_tokens, _OUTPUT_PARTS),
    )
    for name, whole, rate, part_names in wholes:
        parts = _parts(usage, rates, part_names)
        wanted = [part.best for part in parts]
        counts = _fitted(whole.best, wanted)
        lines.append(_line(name, whole.best - sum(counts), rate))
        pairs = zip(parts, counts, strict=True)
        lines.extend(_line(part.name, count, part.rate) for part, count in pairs if count)
        reasons += _doubts(usage, name, whole, parts, cut=counts != wanted, rate=rate)
    if rates.request_usd:
        lines.append(CostLine("request", 1, rates.request_usd, rates.request_usd))
    return tuple(lines), reasons


def _doubts(
    usage: Usage, name: str, whole: Quantity, parts: list[_Part], *, cut: bool, rate: Decimal
) -> list[str]:
    doubts = []
    if getattr(usage, name) is None:
        doubts.append(f"no_usage:{name}")
    if cut:
        doubts.append(f"parts_exceed:{name}")
    if whole.basis >= Basis.REPORTED:
        hidden = (part for part in parts if part.high is None and part.rate != rate)
        doubts += [f"share_unknown:{part.name}" for part in hidden]
    return doubts


def _line(part: str, count: int, rate: Decimal) -> CostLine:
    return CostLine(part, count, rate, rate * count / _PER_MTOK)
