"""`lastchunk refund`: gives back what a call was charged, or a part of it."""

from __future__ import annotations

import click

from lastchunk.cli.adjust import Amount, change_charge, with_reason
from lastchunk.cli.options import with_ledger


@click.command("refund")
@click.argument("call_id", metavar="CALL")
@click.option(
    "--amount",
    type=Amount(),
    metavar="USD",
    help="How much to give back  [default: all that it is charged]",
)
@with_reason
@with_ledger
def refund(
    *, ledger: str | None, call_id: str, amount: int | None, reason: str, adjustment_id: str | None
) -> None:
    """Give back what CALL was charged, or a part of it, with a reason.

    It is an entry of its own beside the call's others; what the provider bills for the call stays
    as it is. No more can be given back than is charged.

    \b
    Example:
      lastchunk refund call_01k9f0 --amount 0.01 --reason "the answer broke off"
    """
    if amount is not None and amount <= 0:
        raise click.UsageError("Give an amount above zero, or none for all of it.")
    change = None if amount is None else -amount
    change_charge(ledger, call_id, change, f"refund: {reason}", adjustment_id)
