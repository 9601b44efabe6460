"""`lastchunk explain`: one call, line by line."""

from __future__ import annotations

from pathlib import Path

import click

from lastchunk.cli.options import with_ledger
from lastchunk.cli.output import print_tables, reading
from lastchunk.ledger import CallFilter, CallRecord, Reader
from lastchunk.pricing.book import PriceBook
from lastchunk.reports.explain import explain_tables
from lastchunk.settings import load_settings


@click.command("explain")
@click.argument("call_id", metavar="CALL")
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Your own prices, to show how the cost adds up  [default: $LASTCHUNK_PRICES]",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@with_ledger
def explain(*, ledger: str | None, as_json: bool, prices: Path | None, call_id: str) -> None:
    """Show how one call was accounted for, line by line.

    CALL is a call's id, its beginning if no other begins so, or the provider's response id.
    """
    book = PriceBook.load(load_settings(prices=prices).prices)
    with reading(ledger) as reader:
        record = reader.call(call_id)
        attempts = _attempts(reader, record)
    print_tables(explain_tables(record, attempts, book), json=as_json)


def _attempts(reader: Reader, record: CallRecord) -> list[CallRecord]:
    """All attempts of the logical call that this one belongs to, in order."""
    first_id = record.call.attempt_of or record.call_id
    return list(reader.calls(CallFilter(attempts_of=first_id), newest_first=False)) or [record]
