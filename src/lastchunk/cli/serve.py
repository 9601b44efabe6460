"""`lastchunk serve`: the gateway."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import click

from lastchunk.gateway.app import GatewayOptions, run_gateway
from lastchunk.settings import load_settings
from lastchunk.startup import open_books


@click.command()
@click.option(
    "--upstream",
    required=True,
    envvar="LASTCHUNK_UPSTREAM",
    metavar="URL",
    help="The provider, such as https://api.openai.com (or LASTCHUNK_UPSTREAM).",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8790, show_default=True, help="The port; 0 takes a free one.")
@click.option("--ledger", metavar="URL", help="A SQLite file or a database URL.")
@click.option("--prices", type=click.Path(path_type=Path), help="Your own prices, a TOML file.")
@click.option("--account", help="Who spends when a request names nobody.")
@click.option(
    "--grace",
    "grace_seconds",
    type=click.FloatRange(0, 30),
    help="Seconds to read on for the usage chunk alone.  [default: 1]",
)
@click.option(
    "--read-timeout",
    default=600.0,
    show_default=True,
    help="Seconds of silence after which an upstream counts as stalled.",
)
@click.option(
    "--stop-timeout",
    default=60.0,
    show_default=True,
    help="Seconds that open streams may go on after SIGTERM.",
)
def serve(
    upstream: str,
    host: str,
    port: int,
    ledger: str | None,
    prices: Path | None,
    account: str | None,
    grace_seconds: float | None,
    read_timeout: float,
    stop_timeout: float,
) -> None:
    """Run the gateway: point any OpenAI client's base URL at it.

    Every path is forwarded. POSTs to chat/completions, responses and completions are accounted for,
    streamed or not, also when their stream is cut. A caller may say who spends:
    `x-lastchunk-account: web` and `x-lastchunk-tags: team=search,env=prod`.

    The gateway has no keys of its own yet: bind it to an address that only your clients reach.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for noisy in ("alembic", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    settings = load_settings(
        ledger=ledger, prices=prices, account=account, grace_seconds=grace_seconds
    )
    options = GatewayOptions(
        upstream=upstream,
        host=host,
        port=port,
        account=settings.account,
        grace_seconds=settings.grace_seconds,
        read_seconds=read_timeout,
        stop_seconds=stop_timeout,
    )
    bookkeeper = open_books(settings)

    def started(url: str) -> None:
        click.echo(f"lastchunk serves {upstream} at {url}")
        click.echo(f"ledger: {bookkeeper.ledger.url}")
        click.echo(f"point clients at {url}/v1 and stop with Ctrl-C")

    try:
        _run(run_gateway(options, bookkeeper, started))
    finally:
        bookkeeper.close()
    click.echo("stopped; every row is written")


def _run(main: object) -> None:
    """With uvloop, where there is one."""
    if sys.platform == "win32":
        asyncio.run(main)  # type: ignore[arg-type]
        return
    import uvloop  # noqa: PLC0415 - it does not exist on Windows

    uvloop.run(main)  # type: ignore[arg-type]
