"""The options of `lastchunk serve` that open the admin API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lastchunk.admin import AdminOptions, AdminServer
from lastchunk.admin.auth import VARIABLE, find_admin_key
from lastchunk.errors import SettingsError
from lastchunk.gateway.worker import WorkerPlace

Command = TypeVar("Command", bound=Callable[..., Any])

FIRST_WORKER = 1
"""Of several workers the first one answers for all: everything is read from the ledger."""


def with_admin(command: Command) -> Command:
    """`--admin-port`, `--admin-host` and `--admin-key-file`."""
    command = click.option(
        "--admin-key-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Holds the key of the admin API  [default: ${VARIABLE}]",
    )(command)
    command = click.option(
        "--admin-host",
        default="127.0.0.1",
        show_default=True,
        help="The address of the admin API.",
    )(command)
    return click.option(
        "--admin-port",
        type=click.IntRange(0, 65_535),
        metavar="PORT",
        help="Open the admin API on this port of its own; 0 takes a free one.",
    )(command)


def admin_options(
    host: str,
    port: int | None,
    key_file: Path | None,
    *,
    public_port: int,
    place: WorkerPlace | None,
) -> AdminOptions | None:
    """Where the admin API listens; None where this process has none.

    Raises SettingsError for a key that cannot be used, and for the public port.
    """
    if port is None:
        return None
    if port == public_port and port != 0:
        raise SettingsError(f"the admin API needs a port of its own: {port} is the public one")
    key = find_admin_key(key_file)
    if key is None or (place is not None and place.number != FIRST_WORKER):
        return None
    return AdminOptions(key, host, port, shares_port=place is not None)


def admin_said(admin: AdminServer | None, port: int | None) -> str:
    """Whether there is one, for people; empty where nobody asked for one."""
    if admin is not None:
        return f"admin API: {admin.url}/admin/openapi.json"
    if port is None:
        return ""
    return f"admin API: off, it has no key: set {VARIABLE} or give --admin-key-file"
