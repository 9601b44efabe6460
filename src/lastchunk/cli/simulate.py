"""`lastchunk simulate`: a provider that misbehaves on purpose."""

from __future__ import annotations

import click

from lastchunk.simulator import read_script, serve_forever
from lastchunk.simulator.script import BadScript


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8791, show_default=True, help="The port; 0 takes a free one.")
@click.option(
    "--seed", default=0, show_default=True, help="What calls without a script are drawn from."
)
@click.option(
    "--script",
    "script_json",
    metavar="JSON",
    help="What every call does, unless its own x-sim header says otherwise.",
)
def simulate(host: str, port: int, seed: int, script_json: str | None) -> None:
    """Run an OpenAI-compatible provider that cuts, stalls and lies, and keeps the true bill.

    Without --script each call's script is drawn from the seed: about half of them end well. A
    request's `x-sim` header says what that call does: {"kind":"tool_call","output_tokens":80,
    "pacing_s":0.02,"fault":{"kind":"rst","at":"mid"}}. GET /_bill is the true bill as JSON.
    """
    try:
        script = None if script_json is None else read_script(script_json)
    except BadScript as error:
        raise click.BadParameter(str(error), param_hint="--script") from error

    def started(base_url: str) -> None:
        click.echo(f"a simulated provider at {base_url}")
        click.echo(f"its true bill: {base_url.removesuffix('/v1')}/_bill")
        click.echo("stop with Ctrl-C")

    try:
        bill = serve_forever(host, port, script=script, seed=seed, on_start=started)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror}") from error
    tokens = sum(call.prompt_tokens + call.output_tokens for call in bill if call.billed)
    click.echo(f"stopped; {len(bill)} calls, {tokens:,} tokens billed")
