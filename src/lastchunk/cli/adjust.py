"""`lastchunk adjust`: changes what a call is charged, with a reason."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import click

from lastchunk.adjustments import Adjusted, Adjustment
from lastchunk.adjustments import adjust as adjust_charge
from lastchunk.cli.options import with_ledger
from lastchunk.cli.output import reading, url_of
from lastchunk.clock import SystemClock
from lastchunk.ids import new_adjustment_id
from lastchunk.ledger import Ledger
from lastchunk.money import format_usd, nano_usd, usd

Command = TypeVar("Command", bound=Callable[..., Any])


class Amount(click.ParamType[int]):
    """An amount in USD, as whole nano-dollars."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            amount = Decimal(str(value).strip().removeprefix("$"))
            nano = nano_usd(amount)
        except (InvalidOperation, ValueError, OverflowError):
            self.fail(f"{value!r} is no amount in USD: write 0.01.", param, ctx)
        if usd(nano) != amount:
            self.fail(f"{value!r}: no more than nine digits after the point.", param, ctx)
        return nano


def with_reason(command: Command) -> Command:
    """`--reason`, and `--id` as `adjustment_id`."""
    command = click.option(
        "--id",
        "adjustment_id",
        metavar="ID",
        help="Yours for this change: with the same one it happens once  [default: a new one]",
    )(command)
    return click.option("--reason", required=True, help="Why; kept in the ledger.")(command)


@click.command("adjust")
@click.argument("call_id", metavar="CALL")
@click.option(
    "--by",
    "change",
    type=Amount(),
    required=True,
    metavar="USD",
    help="How much more is charged, or with a minus how much less: 0.01, -0.01.",
)
@with_reason
@with_ledger
def adjust(
    *, ledger: str | None, call_id: str, change: int, reason: str, adjustment_id: str | None
) -> None:
    """Change what CALL is charged, up or down, with a reason.

    It is an entry of its own beside the call's others; what the provider bills for the call stays
    as it is. A charge never falls below zero.

    \b
    Example:
      lastchunk adjust call_01k9f0 --by 0.25 --reason "long context, as agreed"
    """
    change_charge(ledger, call_id, change, f"adjustment: {reason}", adjustment_id)


def change_charge(
    ledger: str | None, call_id: str, change: int | None, reason: str, given_id: str | None
) -> None:
    """Writes the change and tells of it, with the id under which it may be repeated."""
    clock = SystemClock()
    now_ms = clock.now_ms()
    wanted = Adjustment(call_id, change, reason, given_id or new_adjustment_id(now_ms))
    with reading(ledger) as reader, Ledger.open(url_of(ledger), clock=clock) as opened:
        done = adjust_charge(opened, reader, wanted, now_ms)
    click.echo(_told(done))
    click.echo(f"id: {wanted.adjustment_id}")


def _told(done: Adjusted) -> str:
    change = f"{format_usd(done.before)} -> {format_usd(done.after)}"
    if done.is_new:
        return f"{done.call_id} is charged {change}"
    return f"{done.call_id} was changed by this id already: {change}; nothing was written"
