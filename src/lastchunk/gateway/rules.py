"""The operator's rules as the gateway uses them: one object, swapped whole by a reload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from zoneinfo import ZoneInfo

from multidict import CIMultiDict

from lastchunk.config import Config, UpstreamRow
from lastchunk.errors import SettingsError
from lastchunk.gateway.access import KEYS_UNREAD, Denied, Guest
from lastchunk.gateway.budget import limits_of
from lastchunk.gateway.upstream import Upstream
from lastchunk.limits import Limit, Terms

ONLY = "default"
"""The name of the one upstream that `--upstream URL` gives."""

_CREDENTIALS = (
    "authorization",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "cookie",
    "openai-organization",
    "openai-project",
)
"""Where callers put keys, and whose budget they spend: where the key is not theirs, none of it."""


@dataclass(frozen=True, slots=True)
class Route:
    """One provider: where, for which models, and the key that we bring (None: the caller's)."""

    name: str
    upstream: Upstream
    row: UpstreamRow
    secret: str | None

    def serves(self, model: str) -> bool:
        return self.row.serves(model)

    def authorize(self, headers: CIMultiDict[str], *, drop_callers: bool) -> None:
        """Put the provider's key in the place of the caller's.

        `drop_callers`: what the caller sent is a key of ours, and never goes to a provider.
        """
        if self.secret is None and not drop_callers:
            return
        for name in _CREDENTIALS:
            headers.popall(name, None)
        if self.secret is None:
            return
        if self.row.auth == "bearer":
            headers["authorization"] = f"Bearer {self.secret}"
        else:
            headers["api-key"] = self.secret


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for a request from its beginning to its end."""

    routes: tuple[Route, ...]
    limits: tuple[Limit, ...]
    zone: tzinfo
    config: Config

    @property
    def terms(self) -> Terms:
        """What is asked when a call is opened."""
        return Terms(self.limits, self.zone)

    def route(self, model: str | None, guest: Guest) -> Route | Denied:
        """The first upstream that serves the model and that this caller may use.

        A request that names no model goes to the first of all. Our own key for a provider is spent
        for nobody as long as it is not known who may.
        """
        serving = [route for route in self.routes if model is None or route.serves(model)]
        if not serving:
            return Denied(404, "model_not_found", f"No upstream of this gateway serves {model!r}.")
        for route in serving:
            if guest.may_use(model, route.name):
                ours = route.secret is not None
                return KEYS_UNREAD if ours and not guest.is_known else route
        what = repr(model) if model else "requests that name no model"
        return Denied(403, "model_not_allowed", f"This key is not for {what}.")


def make_rules(
    config: Config, upstreams: Mapping[str, Upstream], *, only: str | None = None
) -> Rules:
    """The rules of a file, with an open upstream for each of its rows by name.

    `only` is the URL that the command line gave: it serves every model, after the file's own.
    Raises SettingsError where a key is missing.
    """
    rows = rows_of(config, only)
    if not rows:
        raise SettingsError(
            "no upstream: give --upstream URL, or [upstreams.NAME] in lastchunk.toml"
        )
    routes = tuple(Route(name, upstreams[name], row, row.api_key()) for name, row in rows.items())
    return Rules(routes, limits_of(config), ZoneInfo(config.timezone), config)


def rows_of(config: Config, only: str | None) -> dict[str, UpstreamRow]:
    """All upstreams by name: those of the file, then the one of the command line."""
    rows = dict(config.upstreams)
    if only is not None:
        rows[ONLY] = UpstreamRow.model_construct(url=only)  # `Upstream` checks it
    return rows
