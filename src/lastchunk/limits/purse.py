"""What one open call holds while its answer comes: it shrinks, and it is asked for more in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import tzinfo

from lastchunk.ledger.windows import Holds
from lastchunk.limits.admission import Admission, Refused, Standing, wants
from lastchunk.limits.habits import BYTES_PER_TOKEN_USUAL
from lastchunk.limits.limit import Limit, Mode, Unit
from lastchunk.pricing.cost import ceiling
from lastchunk.pricing.price import Price
from lastchunk.settlement.facts import Forecast, OpenCall
from lastchunk.usage import Quantity
from lastchunk.wire.quiet import Lane
from lastchunk.wire.request import CallRequest

STEP_TOKENS = 1_024
"""What a stream asks for that comes to the end of what it holds: some ten seconds of output."""

LAST_STEP_TOKENS = 64
"""What it asks for once that was refused: so much, at most, is left of a budget that stops it."""

LOOK_BYTES_PER_TOKEN = 4
"""A stream is counted again when so many bytes came for each token that it may still have. Plain
text has about as many, and its frames a hundred times more."""

_SPENDING = (Unit.MONEY, Unit.TOKENS)


@dataclass(frozen=True, slots=True)
class Terms:
    """The limits that hold for calls, and the time zone of their spans."""

    limits: tuple[Limit, ...]
    zone: tzinfo

    def of(self, account: str) -> tuple[Limit, ...]:
        return tuple(limit for limit in self.limits if limit.path_of(account) is not None)


@dataclass(frozen=True, slots=True)
class More:
    """More to be held by an open call, and the decision about the difference."""

    most_output: int
    usual_output: int
    holds: Holds
    admission: Admission


def expect(
    forecast: Forecast, request: CallRequest, price: Price | None, usual_output: int
) -> Forecast:
    """The forecast with what such a call usually comes to."""
    most = forecast.output_tokens.high
    tokens = min(forecast.input_tokens.high, _usual_input(request)), min(most, usual_output)
    hold = None if price is None else min(ceiling(price, *tokens), forecast.hold or 0)
    return replace(forecast, usual_hold=hold, usual_tokens=sum(tokens))


def _usual_input(request: CallRequest) -> int:
    return max(1, request.body_bytes // BYTES_PER_TOKEN_USUAL)


def is_balanced(limits: Iterable[Limit]) -> bool:
    """Whether what calls usually come to matters."""
    return any(limit.mode is Mode.BALANCED and limit.unit in _SPENDING for limit in limits)


class Purse:
    """One call's. Changed by one thread; `stopped` may be read by others."""

    def __init__(
        self,
        call: OpenCall,
        limits: tuple[Limit, ...],
        price: Price | None,
        zone: tzinfo,
        lane: Lane,
    ) -> None:
        """`lane` brings the answer, and is told when somebody must look."""
        self._call = call
        self._lane = lane
        self._price = price
        self._zone = zone
        self._spending = tuple(limit for limit in limits if limit.unit in _SPENDING)
        self._balanced = is_balanced(limits)
        request, forecast = call.request, call.forecast
        self._input = forecast.input_tokens.high
        self._usual_input = min(self._input, _usual_input(request))
        self._most = self._usual = forecast.output_tokens.high
        if self._balanced and forecast.usual_tokens is not None:
            self._usual = max(0, forecast.usual_tokens - self._usual_input)
        ceiling_ = request.output_ceiling
        self._own_ceiling = None if ceiling_ is None else ceiling_ * request.choices
        self._pending = self._refused = self._holds_too_much = False
        self.holds = self._holds(self._most, self._usual)
        self._told: Holds | None = self.holds
        self.admission = Admission(
            limits, call.account, self.holds, call.opened_ms, zone, priced=price is not None
        )
        self.input_tokens = forecast.input_tokens.best
        self.output_tokens = 0
        """So far, as was counted last."""
        self.stopped: Refused | None = None
        """Why it must not go on."""
        self._set_look(0)

    @property
    def watches(self) -> bool:
        """Whether some limit of money or tokens applies."""
        return bool(self._spending)

    def standings(self) -> list[Standing]:
        """Where the limits stand with this call in them."""
        return [
            replace(one, held=one.held + wants(one.limit, self.admission.holds))
            for one in self.admission.standings
        ]

    def counted(self, prompt: Quantity | None, output_tokens: int, at_bytes: int) -> None:
        """What the call has come to, of so many bytes."""
        if prompt is not None:
            self.input_tokens = prompt.best
            before = self._input, self._usual_input
            self._input = max(1, min(self._input, prompt.high))
            self._usual_input = min(self._usual_input, self._input)
            if (self._input, self._usual_input) != before:
                self._holds_too_much = True
            if self._holds_too_much and not self._pending:
                self._holds_too_much = False
                self.holds = self._holds(self._most, self._usual)
        self.output_tokens = output_tokens
        self._set_look(at_bytes)

    def changed_holds(self) -> Holds | None:
        """What it holds now, where that was not told yet."""
        if self._pending or self.holds == self._told or self.stopped is not None:
            return None
        self._told = self.holds
        return self.holds

    def tell_again(self) -> None:
        """What `changed_holds` told last was not written."""
        self._told = None

    def ask(self) -> More | None:
        """What more to ask for now; `answered` must follow."""
        if not self._spending or self._pending or self.stopped is not None:
            return None
        if self._allowed - self.output_tokens > self._lead:
            return None
        step = LAST_STEP_TOKENS if self._refused else STEP_TOKENS
        most, usual = self._most, self._usual
        if usual < most:
            usual = min(most, usual + step)
        else:
            most = usual = max(most, self.output_tokens) + step
        holds = self._holds(most, usual)
        self._pending = True
        admission = Admission(
            self._spending,
            self._call.account,
            _difference(holds, self.holds),
            self._call.opened_ms,
            self._zone,
            priced=self._price is not None,
        )
        return More(most, usual, holds, admission)

    def answered(self, more: More, refused: Refused | None) -> bool:
        """What became of it. True: ask again at once, for less."""
        self._pending = False
        if refused is None:
            self._most, self._usual = more.most_output, more.usual_output
            self.holds, self._told = more.holds, None  # told again: an outage grants it unwritten
            return False
        was_last, self._refused = self._refused, True
        if was_last and self.output_tokens >= self._allowed:
            self.stopped = refused
            self._lane.look_bytes = 0  # from now on at every piece
        return not was_last

    @property
    def _allowed(self) -> int:
        return self._usual if self._balanced else self._most

    @property
    def _lead(self) -> int:
        """How early to ask. Where the provider itself stops there, not before it did not."""
        allowed = self._allowed
        if self._own_ceiling is not None and allowed >= self._own_ceiling:
            return -(allowed // 20 + 16)  # its count and ours may differ by a little
        return LAST_STEP_TOKENS // 4 if self._refused else min(STEP_TOKENS, allowed) // 4

    def _set_look(self, at_bytes: int) -> None:
        if not self._spending or self.stopped is not None:
            return
        left = self._allowed - self.output_tokens
        until = left - self._lead if left > self._lead else left
        self._lane.look_bytes = at_bytes + max(1, until) * LOOK_BYTES_PER_TOKEN

    def _holds(self, most: int, usual: int) -> Holds:
        tokens_most, tokens_usual = self._input + most, self._usual_input + usual
        if not self._balanced:
            tokens_usual = tokens_most
        if self._price is None:
            return Holds(tokens_most=tokens_most, tokens_usual=tokens_usual)
        money = ceiling(self._price, self._input, most)
        usually = money
        if self._balanced:
            usually = min(money, ceiling(self._price, self._usual_input, usual))
        return Holds(money, usually, tokens_most, tokens_usual)


def _difference(holds: Holds, before: Holds) -> Holds:
    return Holds(
        holds.most - before.most,
        holds.usual - before.usual,
        holds.tokens_most - before.tokens_most,
        holds.tokens_usual - before.tokens_usual,
    )
