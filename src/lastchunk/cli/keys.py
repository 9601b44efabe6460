"""`lastchunk keys`: who may use the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from lastchunk.accounts import is_account_path
from lastchunk.cli.options import Age, with_formats, with_ledger
from lastchunk.cli.output import print_tables, url_of
from lastchunk.clock import SystemClock
from lastchunk.ledger.database import hidden, parse_url, refuse_missing
from lastchunk.ledger.keys import Key, KeyTable
from lastchunk.reports.keys import keys_table


@click.group()
def keys() -> None:
    """Make, list, rotate and revoke the keys of the gateway's callers.

    As long as there is no key, the gateway serves everybody who reaches it, and only on this
    machine. From the first key on it asks each caller for one: what an OpenAI client is given as
    its API key. A key belongs to an account path, such as acme/search/u42.
    """


@keys.command()
@click.argument("account")
@click.option("--name", default="", help="What it is for, to find it again.")
@click.option("--model", "models", multiple=True, help="Only this model; a pattern (gpt-*).")
@click.option("--upstream", "upstreams", multiple=True, help="Only this upstream, by its name.")
@click.option("--expires", type=Age(), metavar="AGE", help="It opens for so long: 24h, 90d, 52w.")
@with_ledger
def create(
    *,
    account: str,
    name: str,
    models: tuple[str, ...],
    upstreams: tuple[str, ...],
    expires: int | None,
    ledger: str | None,
) -> None:
    """Make a key for ACCOUNT and show it, this once."""
    if not is_account_path(account):
        raise click.UsageError(f"{account!r} is no account path: write one such as acme/search/u42")
    now_ms = SystemClock().now_ms()
    with _table(ledger) as table:
        click.echo(f"ledger: {hidden(parse_url(url_of(ledger)))}", err=True)
        made = table.create(
            account,
            name,
            now_ms,
            models=models,
            upstreams=upstreams,
            expires_ms=None if expires is None else now_ms + expires,
        )
    _show(*made)


@keys.command("list")
@with_formats
@with_ledger
def list_keys(*, ledger: str | None, as_json: bool, as_csv: bool) -> None:
    """List all keys, the oldest first; their secrets are nowhere."""
    with _table(ledger, makes=False) as table:
        shown = keys_table(table.all(), SystemClock().now_ms())
    print_tables([shown], json=as_json, csv=as_csv)


@keys.command()
@click.argument("key_id")
@click.option(
    "--overlap",
    type=Age(),
    default="24h",
    show_default=True,
    metavar="AGE",
    help="The old one still opens for so long; 0m: not at all.",
)
@with_ledger
def rotate(*, key_id: str, overlap: int, ledger: str | None) -> None:
    """Make a new key in the place of KEY_ID, with the same account and rules."""
    with _table(ledger, makes=False) as table:
        made = table.rotate(key_id, SystemClock().now_ms(), overlap_ms=overlap)
    _show(*made)


@keys.command()
@click.argument("key_id")
@with_ledger
def revoke(*, key_id: str, ledger: str | None) -> None:
    """Let KEY_ID open nothing from now on. Gateways notice within seconds."""
    with _table(ledger, makes=False) as table:
        key = table.revoke(key_id, SystemClock().now_ms())
    click.echo(f"key {key.key_id} of {key.account} is revoked")


@contextmanager
def _table(ledger: str | None, *, makes: bool = True) -> Iterator[KeyTable]:
    """`makes`: a ledger that is not there yet is made."""
    url = url_of(ledger)
    if not makes:
        refuse_missing(url)
    table = KeyTable(url)
    try:
        yield table
    finally:
        table.close()


def _show(key: Key, text: str) -> None:
    """The key alone on standard output, so that a script can take it."""
    click.echo(f"key {key.key_id} for {key.account}; it is shown only now:", err=True)
    click.echo(text)
