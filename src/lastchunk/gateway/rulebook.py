"""The rules in force, and the upstreams that they name: read at the start, swapped by a reload."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lastchunk.config import Config, load_config
from lastchunk.errors import SettingsError
from lastchunk.gateway.rules import Rules, make_rules, rows_of
from lastchunk.gateway.upstream import LegName, Upstream
from lastchunk.settings import Settings


class RuleBook:
    """One gateway's. A request takes `rules` once, at its beginning, and keeps them to its end."""

    def __init__(
        self,
        config: Config,
        *,
        file: Path | None,
        only: str | None,
        read_seconds: float,
        leg: LegName = "thin",
        check: Callable[[Config], object] = lambda _: None,
    ) -> None:
        """Raises SettingsError where no upstream is named, or one cannot be used.

        `check` raises it for what others read from the file, before anything is swapped.
        """
        self._check = check
        self._file = file
        self._only = only
        self._read_seconds = read_seconds
        self._leg = leg
        self._upstreams: dict[str, Upstream] = {}
        """By URL. One that no rule names any longer is kept: calls may still be under way."""
        self._is_open = False
        self.rules = self._made(config)

    async def open(self) -> None:
        self._is_open = True
        for upstream in self._upstreams.values():
            await upstream.open()

    async def close(self) -> None:
        for upstream in self._upstreams.values():
            await upstream.close()

    async def reload(self) -> None:
        """Read the file again. Raises SettingsError, and the rules before it go on."""
        if self._file is None:
            return
        config = read_again(self._file, self.rules.config)
        self._check(config)
        before = set(self._upstreams)
        rules = self._made(config)
        for url in set(self._upstreams) - before:
            await self._upstreams[url].open()
        self.rules = rules

    def _made(self, config: Config) -> Rules:
        rows = rows_of(config, self._only)
        upstreams: dict[str, Upstream] = {}
        fresh: dict[str, Upstream] = {}
        for name, row in rows.items():
            known = self._upstreams.get(row.url) or fresh.get(row.url)
            if known is None:
                known = fresh[row.url] = Upstream(
                    row.url, read_seconds=self._read_seconds, leg=self._leg
                )
            upstreams[name] = known
        rules = make_rules(config, upstreams, only=self._only)
        self._upstreams |= fresh
        return rules


def read_again(file: Path, before: Config) -> Config:
    """The rules of a file that may have changed. Raises SettingsError, also where it is gone."""
    if not file.exists() and before != Config():
        raise SettingsError(f"{file} is gone")
    return load_config(file, tuple(Settings.model_fields))
