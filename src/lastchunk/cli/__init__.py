"""The command line: one file a command, imported only when it is called.

lastchunk calls · explain · report · departures    read the ledger
lastchunk charges · cancellations                  what customers are, or would be, charged
lastchunk refund · adjust                          change a charge, with a reason
lastchunk verify · recover                         recompute it, settle the calls of dead processes
lastchunk migrate-ledger                           copy the ledger into another database
lastchunk accuracy                                 judge the counter on recorded exchanges
lastchunk keys                                     who may use the gateway
lastchunk serve · simulate                         the gateway, a misbehaving provider
lastchunk torture · demo                           the fault matrix, a tour
"""

from __future__ import annotations

from importlib import import_module

import click

from lastchunk import __version__
from lastchunk.errors import LastchunkError

COMMANDS: dict[str, str] = {
    "calls": "lastchunk.cli.calls",
    "explain": "lastchunk.cli.explain",
    "report": "lastchunk.cli.report",
    "departures": "lastchunk.cli.departures",
    "charges": "lastchunk.cli.charges",
    "cancellations": "lastchunk.cli.cancellations",
    "refund": "lastchunk.cli.refund",
    "adjust": "lastchunk.cli.adjust",
    "verify": "lastchunk.cli.verify",
    "recover": "lastchunk.cli.recover",
    "migrate-ledger": "lastchunk.cli.migrate_ledger",
    "accuracy": "lastchunk.cli.accuracy",
    "keys": "lastchunk.cli.keys",
    "serve": "lastchunk.cli.serve",
    "simulate": "lastchunk.cli.simulate",
    "torture": "lastchunk.cli.torture",
    "demo": "lastchunk.cli.demo",
}
"""Each command and the module that holds it, as a click command of that name."""

SUMMARIES: dict[str, str] = {
    "calls": "List calls, the newest first.",
    "explain": "Show how one call was accounted for, line by line.",
    "report": "Sum up the spend, and how well it is known.",
    "departures": "Sum up what was done when callers left early.",
    "charges": "Show what another table of charges would have charged.",
    "cancellations": "Show whose callers leave early, and what is not charged.",
    "refund": "Give back what a call was charged.",
    "adjust": "Change what a call is charged, with a reason.",
    "verify": "Recompute every balance from the entries.",
    "recover": "Settle the calls whose process died.",
    "migrate-ledger": "Copy the ledger into another database.",
    "accuracy": "Judge the token counter on recorded exchanges.",
    "keys": "Make, list, rotate and revoke the gateway's keys.",
    "serve": "Run the gateway.",
    "simulate": "Run a provider that misbehaves on purpose.",
    "torture": "Break everything, and hold the ledger against the true bill.",
    "demo": "See it work, without a provider or a key.",
}
"""The help lines, here so that `lastchunk --help` imports no command."""

EXIT_REFUSED = 2
"""What was asked for cannot be done: a wrong option, no ledger, a wrong setting."""


class _Refused(click.ClickException):
    """An error of ours as one line on stderr."""

    exit_code = EXIT_REFUSED


class _Commands(click.Group):
    """The commands of the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module_name = COMMANDS[cmd_name]
        try:
            module = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name == module_name:
                raise _Refused(f"`lastchunk {cmd_name}` is not in this version.") from error
            raise _Refused(
                f"`lastchunk {cmd_name}` needs the package {error.name}: install it and try again."
            ) from error
        found = (one for one in vars(module).values() if isinstance(one, click.Command))
        return next((one for one in found if one.name == cmd_name), None)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except LastchunkError as error:
            raise _Refused(str(error)) from error


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    click.echo(f"lastchunk {__version__}")
    context.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The ledger is LASTCHUNK_LEDGER, or lastchunk.db in this directory.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def main() -> None:
    """What LLM calls cost, also the streams that never finish."""
