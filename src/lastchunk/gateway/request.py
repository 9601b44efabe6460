"""A request to a metered endpoint, read whole."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web
from yarl import URL

from lastchunk.gateway.access import Guest
from lastchunk.gateway.rules import Route, Rules
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import Body


@dataclass(frozen=True, slots=True)
class Request:
    """A metered request. `raw` is what goes upstream unless more is asked for, `body` is it parsed.

    `guest` sent it, `route` is where it goes, and `rules` hold for it to its end. `exact`: the
    caller asked for a stream, and `raw` asks for the whole answer in its place.
    """

    incoming: web.Request
    guest: Guest
    rules: Rules
    route: Route
    url: URL
    dialect: Dialect
    raw: bytes
    body: Body
    exact: bool = False
