"""Facts to write down, with everything but the interesting part filled in."""

from __future__ import annotations

from itertools import count
from typing import Any

import sqlalchemy as sa

from lastchunk.ledger.database import parse_url, writing_engine
from lastchunk.ledger.entries import Correction
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.pricing.cost import Cost
from lastchunk.settlement.facts import Charge, Forecast, OpenCall, Settlement
from lastchunk.usage import Basis, Quantity, Usage
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest

NOON = 1_780_056_000_000
"""2026-05-29, 12:00 UTC."""

DAY = 86_400_000
HOLD = 9_000
_numbers = count(1)


class Stopwatch:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = NOON

    def now_ms(self) -> int:
        return self.now

    def elapsed(self) -> float:
        return self.now / 1000


def make_call(call_id: str | None = None, **changes: Any) -> OpenCall:
    """A call like any other; `model` and `dialect` reach into its request."""
    values: dict[str, Any] = {
        "attempt_of": None,
        "account": "team/ann",
        "tags": (("feature", "chat"),),
        "way": "python",
        "opened_ms": NOON,
    }
    request = CallRequest(
        dialect=changes.pop("dialect", Dialect.CHAT),
        model=changes.pop("model", "gpt-5"),
        stream=True,
        usage_requested=False,
        upstream="api.openai.com",
        body_bytes=321,
    )
    forecast = Forecast(
        Quantity(10, 12, 20, Basis.COUNTED),
        Quantity(0, 100, 4096, Basis.ASSUMED),
        changes.pop("hold", HOLD),
    )
    values.update(changes)
    return OpenCall(
        call_id=call_id or f"call_{next(_numbers):026}",
        request=request,
        forecast=forecast,
        **values,
    )


REPORTED = Usage(input_tokens=Quantity.reported(12), output_tokens=Quantity.reported(30))
COUNTED = Usage(
    input_tokens=Quantity(11, 12, 14, Basis.COUNTED),
    output_tokens=Quantity(28, 30, 33, Basis.COUNTED),
)


def make_settlement(call: OpenCall, cost: Cost | int | None = 500, **changes: Any) -> Settlement:
    """Completed and reported, unless told otherwise. A cost that is a number is exact."""
    if isinstance(cost, int):
        cost = Cost(cost, cost, cost)
    values: dict[str, Any] = {
        "ending": Ending.COMPLETED,
        "usage": REPORTED,
        "charge": Charge(None if cost is None else cost.best, "cost"),
        "price_id": None if cost is None else "openai/gpt-5",
        "reasons": (),
        "observation": Observation(status=200, response_id=f"resp_{call.call_id[5:]}"),
    }
    values.update(changes)
    return Settlement(call_id=call.call_id, cost=cost, **values)


def make_correction(call: OpenCall, source: str = "receipt:1", **changes: Any) -> Correction:
    values: dict[str, Any] = {
        "reason": "receipt",
        "usage": None,
        "cost": None,
        "charge": None,
        "price_id": None,
        "occurred_ms": NOON + DAY,
    }
    values.update(changes)
    return Correction(call_id=call.call_id, correction_id=source, **values)


def execute(url: str, *statements: str) -> None:
    """Somebody else's SQL, past our own code."""
    engine = writing_engine(parse_url(url))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    """The answer to somebody else's SQL."""
    with writing_engine(parse_url(url)).connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def disarm(url: str) -> None:
    """Takes the rules off the entries, as only the owner of the database can."""
    if url.startswith("postgresql"):
        execute(
            url, "ALTER TABLE entries DISABLE TRIGGER USER", "ALTER TABLE tags DISABLE TRIGGER USER"
        )
        return
    engine = writing_engine(parse_url(url))
    with engine.begin() as connection:
        names = connection.scalars(
            sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        ).all()
        for name in names:
            connection.execute(sa.text(f"DROP TRIGGER {name}"))
