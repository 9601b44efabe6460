"""`lastchunk serve`: the gateway."""

from __future__ import annotations

import logging
import signal
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import click

from lastchunk.admin import AdminServer, Sources
from lastchunk.alerting import ConductLook, Watch, webhook_of
from lastchunk.cli.admin import FIRST_WORKER, admin_options, admin_said, with_admin
from lastchunk.cli.in_force import InForce, check_rest, read_rules, watched
from lastchunk.clock import SystemClock
from lastchunk.config import Config
from lastchunk.gateway.app import GatewayOptions, run_gateway
from lastchunk.gateway.process import run, settle_in
from lastchunk.gateway.rulebook import RuleBook
from lastchunk.gateway.rules import rows_of
from lastchunk.gateway.supervisor import CHECK_OPTION
from lastchunk.gateway.worker import WorkerPlace, become_supervisor
from lastchunk.ledger.keys import KeyTable
from lastchunk.settings import load_settings
from lastchunk.startup import open_books, recall_habits
from lastchunk.telemetry.lines import CallLines, Format, set_up_logging
from lastchunk.telemetry.metrics import Metrics

LOOPBACK = "127.0.0.1"

MAX_WORKERS = 256
"""More than any machine has cores for: beyond it somebody's number is wrong."""


@click.command()
@click.option(
    "--upstream",
    envvar="LASTCHUNK_UPSTREAM",
    metavar="URL",
    help="The provider, such as https://api.openai.com (or LASTCHUNK_UPSTREAM).",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Settings, upstreams and limits.  [default: ./lastchunk.toml, if there is one]",
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
@click.option(
    "--notice",
    "notice_seconds",
    type=click.FloatRange(0, 600),
    default=0.0,
    show_default=True,
    help="Seconds after SIGTERM in which /readyz says 503 and calls are still taken.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How log lines look; one tells each settled call.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    default=1,
    show_default=True,
    help="Processes that share the address.",
)
@click.option(CHECK_OPTION, is_flag=True, help="Check settings and rules, say so, and end.")
@with_admin
def serve(
    upstream: str | None,
    config_file: Path | None,
    host: str,
    port: int,
    ledger: str | None,
    prices: Path | None,
    account: str | None,
    grace_seconds: float | None,
    read_timeout: float,
    stop_timeout: float,
    notice_seconds: float,
    log_format: Format,
    workers: int,
    check: bool,
    admin_host: str,
    admin_port: int | None,
    admin_key_file: Path | None,
) -> None:
    """Run the gateway: point any OpenAI client's base URL at it.

    Every path is forwarded. POSTs to chat/completions, responses and completions are accounted for,
    streamed or not, also when their stream is cut. A caller may say who spends:
    `x-lastchunk-account: web` and `x-lastchunk-tags: team=search,env=prod`.

    Without keys (`lastchunk keys create`) it listens on this machine alone. SIGHUP has it read its
    rules again, of --workers one by one in new processes; rules that cannot be used change nothing.
    """
    place = WorkerPlace.inherited()
    read = partial(
        load_settings,
        config_file,
        ledger=ledger,
        prices=prices,
        account=account,
        grace_seconds=grace_seconds,
    )
    settings = read()
    config, config_file = read_rules(config_file)
    shown = _shown(config, upstream, read_timeout)
    if check:
        check_rest(settings, config)
        click.echo(f"in order: lastchunk serves {shown}")
        return
    if place is None:
        host = _address(host, settings.ledger)
    admin = admin_options(admin_host, admin_port, admin_key_file, public_port=port, place=place)
    if workers > 1 and place is None:
        become_supervisor(
            workers, host, port, stop_timeout + notice_seconds, logs_json=log_format == "json"
        )
    set_up_logging(log_format, None if place is None else place.number)
    metrics = Metrics()
    watch = _budget_watch(settings.ledger, config, metrics)
    bookkeeper = open_books(settings, (metrics, CallLines(), watch), config)
    if any(row.mode == "balanced" for row in config.limits):
        recall_habits(bookkeeper, settings.ledger)
    in_force = InForce(read, settings, config, config_file, upstream, bookkeeper, watch, place)
    options = GatewayOptions(
        upstream=upstream,
        host=host,
        port=port,
        account=settings.account,
        grace_seconds=settings.grace_seconds,
        read_seconds=read_timeout,
        stop_seconds=stop_timeout,
        exact_accounts=in_force.exact_accounts,
        running_usage=settings.running_usage,
        leg=settings.upstream_leg,
        notice_seconds=notice_seconds,
        metrics_token=settings.metrics_token,
        config=config,
        config_file=config_file,
    )
    sources = Sources(settings.ledger, bookkeeper, lambda: in_force.config, in_force.reload)
    beside = None if admin is None else AdminServer(admin, sources)

    def started(url: str) -> None:
        settle_in()
        said = admin_said(beside, admin_port)
        if place is not None:
            if said and place.number == FIRST_WORKER:
                logging.getLogger("lastchunk").info(said)
            place.tell_ready(shown, url, bookkeeper.ledger.url)
            return
        click.echo(f"lastchunk serves {shown} at {url}")
        click.echo(f"ledger: {bookkeeper.ledger.url}")
        if said:
            click.echo(said)
        click.echo(f"point clients at {url}/v1 and stop with Ctrl-C")

    try:
        open_keys = partial(KeyTable, settings.ledger)
        run(
            run_gateway(
                options, bookkeeper, started, place, metrics, beside, open_keys, in_force.reloading
            )
        )
    finally:
        _hear_no_signals()
        bookkeeper.close()
        watch.close()
    if place is None:
        click.echo("stopped; every row is written")


def _hear_no_signals() -> None:
    """What is left is to write, which takes seconds at the most: no second signal cuts that off."""
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, signal.SIG_IGN)


def _budget_watch(ledger: str, config: Config, metrics: Metrics) -> Watch:
    """Warns when budgets are nearly used up, or accounts leave too much. Raises SettingsError."""
    clock = SystemClock()
    webhook = webhook_of(config.warnings, clock)
    conduct = ConductLook(clock)
    return Watch(ledger, clock, watched(config), webhook=webhook, told=metrics, alerts=conduct)


def _shown(config: Config, upstream: str | None, read_seconds: float) -> str:
    """The upstreams, as they may be shown. Raises SettingsError where one cannot be used."""
    RuleBook(config, file=None, only=upstream, read_seconds=read_seconds)
    urls = [_without_password(row.url) for row in rows_of(config, upstream).values()]
    return ", ".join(urls)


def _address(host: str, ledger: str) -> str:
    """Where to listen: without keys on this machine alone, whatever was asked for.

    Raises LedgerUnavailable where nobody can say whether there are keys.
    """
    if _is_loopback(host):
        return host
    table = KeyTable(ledger)
    try:
        if table.all():
            return host
    finally:
        table.close()
    click.echo(
        f"There are no keys yet, so anybody who reaches {host} could spend: listening on"
        f" {LOOPBACK} instead.\nMake a key with `lastchunk keys create ACCOUNT` and start again.",
        err=True,
    )
    return LOOPBACK


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_password(url: str) -> str:
    """The URL as it may be shown."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"
