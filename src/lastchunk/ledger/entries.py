"""What is written down about a call, as entries: pure conversion from the waist's facts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from lastchunk.errors import LedgerError
from lastchunk.ledger.detail import encode
from lastchunk.pricing.cost import Cost
from lastchunk.settlement.facts import Charge, OpenCall, Settlement
from lastchunk.usage import Basis, Quantity, Usage

MAX_AMOUNT = 2**53
"""No tokens and no nano-dollars of one call are more than this (nine million dollars): what is
larger is a provider's or a price's mistake, and it would let 64-bit balances overflow."""

_DIGEST_BYTES = 16
"""128 bits: enough that two contents never meet by chance; this is no secret."""


class EntryKind(StrEnum):
    """What an entry does to its call."""

    RESERVED = "reserved"
    """It may be sent; its hold counts."""
    SETTLED = "settled"
    """It is over and may have used something; its hold is given back."""
    RELEASED = "released"
    """It is over and there is proof that nothing was used; its hold is given back."""
    CORRECTED = "corrected"
    """Something was learned after it was over; the amounts are signed differences."""


RESOLUTIONS = frozenset({EntryKind.SETTLED, EntryKind.RELEASED})


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Tokens of one kind: a `Quantity`, or in a correction the signed difference to before.

    `basis` is how the number is known after this entry.
    """

    low: int
    best: int
    high: int
    basis: Basis


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token columns. `None`: not known, or (in a correction) unchanged."""

    input: TokenSpan | None = None
    cached: TokenSpan | None = None
    output: TokenSpan | None = None
    reasoning: TokenSpan | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger, never changed afterwards. Amounts are nano-dollars, times Unix ms.

    `cost` and `charge_nano` are None where no price is known; in a CORRECTED entry they, and
    `tokens`, are differences and None means unchanged. `held_nano` is what a RESERVED entry holds
    and a resolution gives back. `basis` is the weakest basis of input and output. `process_id` is
    the writer's. `detail` is the whole content as JSON and `content_hash` its fingerprint. `seq`
    and `recorded_ms` are 0 until the entry is written.
    """

    call_id: str
    attempt_of: str | None
    kind: EntryKind
    account: str
    way: str
    dialect: str
    model: str
    upstream: str
    opened_ms: int
    occurred_ms: int
    process_id: str
    detail: str
    content_hash: str
    held_nano: int | None = None
    model_served: str | None = None
    response_id: str | None = None
    ending: str | None = None
    basis: Basis | None = None
    tokens: Tokens = Tokens()
    cost: Cost | None = None
    charge_nano: int | None = None
    price_id: str | None = None
    reason: str | None = None
    correction_id: str | None = None
    seq: int = 0
    recorded_ms: int = 0


@dataclass(frozen=True, slots=True)
class Correction:
    """What was learned after a call was over: its account as it stands now, no differences.

    `correction_id` names the source (`receipt:resp_1`, `statement:2026-05/17`): the same source
    corrects a call once. `usage`, `cost` or `charge` None: nothing new about it.
    """

    call_id: str
    correction_id: str
    reason: str
    usage: Usage | None
    cost: Cost | None
    charge: Charge | None
    price_id: str | None
    occurred_ms: int


ADJUSTMENT = "adjustment:"
"""So begin the ids of corrections by which the operator changed a charge, and nothing else."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the entries of one call add up to. `basis` is None while the call is open."""

    tokens: Tokens = Tokens()
    cost: Cost | None = None
    charge_nano: int | None = None
    basis: Basis | None = None
    used: bool = False
    """Whether anything may have been used: it was settled, or corrected after a release."""

    @property
    def unpriced(self) -> bool:
        """Something was used and nobody knows what it costs."""
        return self.used and self.cost is None


NOTHING_YET = Standing()
"""Where a call stands that was only reserved."""


def reserved_entry(call: OpenCall, process_id: str) -> Entry:
    """The entry that lets a call be sent. Raises LedgerError where an amount cannot be stored."""
    detail = encode(call)
    return Entry(
        call_id=call.call_id,
        attempt_of=call.attempt_of,
        kind=EntryKind.RESERVED,
        account=storable(call.account),
        way=call.way,
        dialect=call.request.dialect.value,
        model=storable(call.request.model),
        upstream=storable(call.request.upstream),
        opened_ms=call.opened_ms,
        occurred_ms=call.opened_ms,
        process_id=process_id,
        detail=detail,
        content_hash=content_hash(EntryKind.RESERVED, call.call_id, call.opened_ms, detail),
        held_nano=_amount(call.call_id, "hold", call.forecast.hold),
    )


def settled_entry(
    call: OpenCall, settlement: Settlement, occurred_ms: int, process_id: str = ""
) -> Entry:
    """The entry that resolves a call: RELEASED if nothing was used, else SETTLED."""
    if settlement.call_id != call.call_id:
        raise LedgerError(f"call {call.call_id}: given the settlement of {settlement.call_id}")
    detail = encode(settlement)
    kind = EntryKind.RELEASED if settlement.nothing_used else EntryKind.SETTLED
    seen = settlement.observation
    return Entry(
        call_id=call.call_id,
        attempt_of=call.attempt_of,
        kind=kind,
        account=storable(call.account),
        way=call.way,
        dialect=call.request.dialect.value,
        model=storable(call.request.model),
        upstream=storable(call.request.upstream),
        opened_ms=call.opened_ms,
        occurred_ms=occurred_ms,
        process_id=process_id,
        detail=detail,
        content_hash=content_hash(kind, call.call_id, occurred_ms, detail),
        held_nano=_amount(call.call_id, "hold", call.forecast.hold),
        model_served=_storable_or_none(seen.model_served),
        response_id=_storable_or_none(seen.response_id),
        ending=settlement.ending.value,
        basis=settlement.usage.basis,
        tokens=_tokens(call.call_id, settlement.usage),
        cost=_cost(call.call_id, settlement.cost),
        charge_nano=_amount(call.call_id, "charge", settlement.charge.amount),
        price_id=settlement.price_id,
        reason=storable(settlement.charge.reason),
    )


def corrected_entry(
    reserved: Entry, before: Standing, correction: Correction, process_id: str = ""
) -> Entry:
    """The entry that brings a call from where it stands to what the correction says."""
    detail = encode(correction)
    call_id = reserved.call_id
    usage, charge = correction.usage, correction.charge
    after = _tokens(call_id, usage) if usage is not None else Tokens()
    charged = _amount(call_id, "charge", charge.amount) if charge is not None else None
    return Entry(
        call_id=call_id,
        attempt_of=reserved.attempt_of,
        kind=EntryKind.CORRECTED,
        account=reserved.account,
        way=reserved.way,
        dialect=reserved.dialect,
        model=reserved.model,
        upstream=reserved.upstream,
        opened_ms=reserved.opened_ms,
        occurred_ms=correction.occurred_ms,
        process_id=process_id,
        detail=detail,
        content_hash=content_hash(EntryKind.CORRECTED, call_id, correction.occurred_ms, detail),
        basis=usage.basis if usage is not None else None,
        tokens=_token_difference(before.tokens, after),
        cost=_cost_difference(before.cost, _cost(call_id, correction.cost)),
        charge_nano=None if charged is None else charged - (before.charge_nano or 0),
        price_id=correction.price_id,
        reason=storable(correction.reason),
        correction_id=storable(correction.correction_id),
    )


def differences_of(tokens: Tokens) -> tuple[tuple[str, int], ...]:
    """What a CORRECTED entry changes in the best guesses, by kind as `telemetry` names them."""
    kinds = (
        ("input", tokens.input),
        ("input_cached", tokens.cached),
        ("output", tokens.output),
        ("output_reasoning", tokens.reasoning),
    )
    return tuple((kind, span.best) for kind, span in kinds if span is not None)


def is_better(correction: Correction, standing: Standing) -> bool:
    """Whether it is known better than where the call stands: from a stronger source, or from as
    strong a one more closely."""
    if correction.usage is None or correction.usage.basis is None:
        return False
    if standing.basis is None or correction.usage.basis != standing.basis:
        return standing.basis is None or correction.usage.basis > standing.basis
    after = _tokens(correction.call_id, correction.usage)
    return _uncertainty(after) < _uncertainty(standing.tokens)


def _uncertainty(tokens: Tokens) -> int:
    return sum(span.high - span.low for span in (tokens.input, tokens.output) if span is not None)


def standing_of(entries: Iterable[Entry]) -> Standing:
    """What a call's entries, in order, add up to."""
    standing = NOTHING_YET
    for entry in entries:
        if entry.kind is not EntryKind.RESERVED:
            standing = standing_after(standing, entry)
    return standing


def standing_after(before: Standing, entry: Entry) -> Standing:
    """Where a call stands after one more resolution or correction."""
    if before is NOTHING_YET:
        used = entry.kind is not EntryKind.RELEASED
        return Standing(entry.tokens, entry.cost, entry.charge_nano, entry.basis, used)
    return Standing(
        tokens=Tokens(
            *(
                _span_sum(getattr(before.tokens, name), getattr(entry.tokens, name))
                for name in TOKEN_KINDS
            )
        ),
        cost=_cost_sum(before.cost, entry.cost),
        charge_nano=_sum(before.charge_nano, entry.charge_nano),
        basis=entry.basis if entry.basis is not None else before.basis,
        used=before.used or entry.kind is not EntryKind.RELEASED,
    )


TOKEN_KINDS = ("input", "cached", "output", "reasoning")
"""The fields of `Tokens`, in order: the kinds that have columns of their own."""


def content_hash(kind: EntryKind, call_id: str, occurred_ms: int, detail: str) -> str:
    """The fingerprint of what was handed in: an entry with the same one says the same."""
    content = "\n".join((kind.value, call_id, str(occurred_ms), detail))
    return hashlib.blake2b(
        content.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES
    ).hexdigest()


def storable(text: str) -> str:
    """The text as both databases can hold it: PostgreSQL has no NUL, UTF-8 no lone surrogate."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _storable_or_none(text: str | None) -> str | None:
    return None if text is None else storable(text)


def _amount(call_id: str, name: str, value: int | None) -> int | None:
    if value is not None and abs(value) > MAX_AMOUNT:
        raise LedgerError(
            f"call {call_id}: its {name} of {value} cannot be real and is not written;"
            " look at its price and at what the provider reported"
        )
    return value


def _cost(call_id: str, cost: Cost | None) -> Cost | None:
    if cost is not None:
        if not cost.low <= cost.best <= cost.high:
            raise LedgerError(f"call {call_id}: not low <= best <= high: {cost}")
        _amount(call_id, "cost", cost.high)
        _amount(call_id, "cost", cost.low)
    return cost


def _tokens(call_id: str, usage: Usage) -> Tokens:
    return Tokens(
        input=_span(call_id, usage.input_tokens),
        cached=_span(call_id, usage.input_cached_tokens),
        output=_span(call_id, usage.output_tokens),
        reasoning=_span(call_id, usage.output_reasoning_tokens),
    )


def _span(call_id: str, quantity: Quantity | None) -> TokenSpan | None:
    if quantity is None:
        return None
    _amount(call_id, "tokens", quantity.high)
    return TokenSpan(quantity.low, quantity.best, quantity.high, quantity.basis)


def _token_difference(before: Tokens, after: Tokens) -> Tokens:
    spans: list[TokenSpan | None] = []
    for name in TOKEN_KINDS:
        old, new = getattr(before, name), getattr(after, name)
        if new is not None and old is not None:
            new = TokenSpan(new.low - old.low, new.best - old.best, new.high - old.high, new.basis)
        spans.append(new)
    return Tokens(*spans)


def _span_sum(one: TokenSpan | None, other: TokenSpan | None) -> TokenSpan | None:
    if one is None or other is None:
        return other if one is None else one
    return TokenSpan(one.low + other.low, one.best + other.best, one.high + other.high, other.basis)


def _cost_difference(before: Cost | None, after: Cost | None) -> Cost | None:
    if after is None or before is None:
        return after
    return Cost(after.low - before.low, after.best - before.best, after.high - before.high)


def _cost_sum(one: Cost | None, other: Cost | None) -> Cost | None:
    if one is None or other is None:
        return other if one is None else one
    return Cost(one.low + other.low, one.best + other.best, one.high + other.high)


def _sum(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
