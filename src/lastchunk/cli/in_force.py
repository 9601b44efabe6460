"""The operator's rules as one gateway process knows them, and who must hear of new ones."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from lastchunk.alerting import Watch, Watched, webhook_of
from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.config import Config, load_config
from lastchunk.errors import SettingsError
from lastchunk.gateway.app import Reloading
from lastchunk.gateway.budget import limits_of
from lastchunk.gateway.rulebook import RuleBook, read_again
from lastchunk.gateway.worker import WorkerPlace
from lastchunk.limits import Thresholds
from lastchunk.settings import SETTINGS_FILE, Settings
from lastchunk.startup import charges_of, leaving_house

_RELOADED = ("when_client_leaves", "exact_accounts")
"""Settings that a reload puts in force; the others are read at the start alone."""

log = logging.getLogger("lastchunk")


class InForce:
    """What holds now. `reloading` is the gateway's; `exact_accounts` is changed in its place."""

    def __init__(
        self,
        read: Callable[[], Settings],
        settings: Settings,
        config: Config,
        file: Path,
        only: str | None,
        bookkeeper: Bookkeeper,
        watch: Watch,
        place: WorkerPlace | None,
    ) -> None:
        """`read` reads the settings as they were read at the start; `only` is `--upstream`."""
        self.config = config
        self.reloading = Reloading(self._check, self._reloaded)
        self._read = read
        self._settings = self._checked = settings
        self.exact_accounts = list(settings.exact_accounts)
        self._file = file
        self._only = only
        self._bookkeeper = bookkeeper
        self._watch = watch
        self._place = place

    async def reload(self) -> None:
        """As SIGHUP does, of this process or all workers. Raises SettingsError for a bad file."""
        if self._place is None:
            assert self.reloading.now is not None, "it is asked once the gateway runs"
            await self.reloading.now()
            return
        config = read_again(self._file, self.config)
        RuleBook(config, file=None, only=self._only, read_seconds=0.0)
        self._check(config)
        self.config = config
        os.kill(os.getppid(), signal.SIGHUP)

    def _check(self, config: Config) -> None:
        settings = self._read()
        check_rest(settings, config)
        self._checked = settings

    def _reloaded(self, config: Config) -> None:
        """New rules hold from now on."""
        self.config = config
        self._bookkeeper.charges = charges_of(config)
        self._watch.watched = watched(config)
        before, self._settings = self._settings, self._checked
        self._bookkeeper.leaving.follow(leaving_house(self._settings))
        self.exact_accounts[:] = self._settings.exact_accounts
        now, then = self._settings.model_dump(), before.model_dump()
        if late := [name for name in now if now[name] != then[name] and name not in _RELOADED]:
            log.warning("changed, and in force after a restart only: %s", ", ".join(late))


def read_rules(file: Path | None) -> tuple[Config, Path]:
    """The rules, and the file that they are from. Raises SettingsError naming the line."""
    if file is not None and not file.exists():
        raise SettingsError(f"{file}: there is no such file")
    file = file or Path(SETTINGS_FILE)
    return load_config(file, tuple(Settings.model_fields)), file


def check_rest(settings: Settings, config: Config) -> None:
    """What else a start would refuse in the files. Raises SettingsError."""
    leaving_house(settings)
    if (webhook := webhook_of(config.warnings, SystemClock())) is not None:
        webhook.close(0)


def watched(config: Config) -> Watched:
    """What warnings are given of."""
    row = config.warnings
    thresholds = Thresholds(row.cancel_ratio, row.unbilled_share)
    return Watched(limits_of(config), thresholds, config.zone, row.at_percent)
