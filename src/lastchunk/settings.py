"""Settings: from the environment (`LASTCHUNK_…`) and, below it, `lastchunk.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from lastchunk.accounts import is_account_pattern
from lastchunk.errors import SettingsError

SETTINGS_FILE = "lastchunk.toml"


class Settings(BaseSettings):
    """What can be set. Each field is `LASTCHUNK_<NAME>` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="LASTCHUNK_", toml_file=SETTINGS_FILE, extra="ignore"
    )

    ledger: str = "lastchunk.db"
    """The ledger: a path to a SQLite file, or a database URL."""

    prices: Path | None = None
    """A TOML file with your own prices, which win over the built-in ones."""

    account: str = Field(default="default", max_length=200)
    """Who spends when nobody says."""

    grace_seconds: float = Field(default=1.0, ge=0, le=30)
    """How long a stream whose finish was seen is read on for its usage chunk. 0: not at all."""

    when_client_leaves: tuple[dict[str, Any], ...] = ()
    """Rows of what to do when a caller leaves, [[when_client_leaves]] in the file: see the how-to
    page “When the client leaves”."""

    drain_seconds: float = Field(default=120.0, gt=0, le=3600)
    """How long an answer is read on, at the most, when its caller has left and it is drained."""

    drain_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    """How many bytes of an answer are drained at the most."""

    drain_tokens: int = Field(default=16_384, gt=0)
    """How many tokens of output, about, are drained at the most."""

    drains_at_once: int = Field(default=200, ge=0, le=100_000)
    """How many answers one process drains at the same time; what is beyond is cancelled."""
    exact_accounts: tuple[str, ...] = ()
    """Accounts that always use exact mode, as patterns: `["billing/*"]`. A path takes in all below
    it, a segment may be `*`."""

    running_usage: bool = True
    """Ask servers that may offer it for running usage in each chunk."""
    when_ledger_down: Literal["pass", "refuse"] = "pass"
    """While the ledger is away: `pass` lets calls go on and spools their entries on this machine,
    `refuse` refuses new calls before anything is sent."""

    ledger_wait_seconds: float = Field(default=0.5, ge=0.05, le=10)
    """How long the ledger may keep a call waiting before it counts as away."""

    spool: Path | None = None
    """The folder of the spool. Default: `<ledger>-spool` beside a SQLite ledger, else
    `lastchunk/spool` in `$XDG_STATE_HOME` or `~/.local/state`."""

    spool_bytes: int = Field(default=256 * 1024 * 1024, ge=64 * 1024)
    """The most that one process spools, in bytes."""

    upstream_leg: Literal["thin", "aiohttp"] = "thin"
    """What carries the gateway's requests: connections of its own, or aiohttp's client."""
    metrics_token: str | None = Field(default=None, min_length=8, repr=False)
    """What a scrape of the gateway's `/metrics` must present: `Authorization: Bearer …`. Without it
    whoever reaches the gateway may read them."""

    @field_validator("exact_accounts")
    @classmethod
    def _account_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not is_account_pattern(pattern):
                raise ValueError(
                    f"{pattern!r:.60} is no account path: segments between slashes, each whole or *"
                )
        return patterns

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


def load_settings(file: Path | None = None, **given: object) -> Settings:
    """The settings in force; arguments that are not None win over environment and file.

    `file` in the place of ./lastchunk.toml. Raises SettingsError naming the setting that cannot be
    used.
    """
    place = SettingsConfigDict(toml_file=file or SETTINGS_FILE)
    kind: type[Settings] = type("Settings", (Settings,), {"model_config": place})
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "LASTCHUNK_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(
            f"{name}: {first['msg']} (in the environment or {file or SETTINGS_FILE})"
        ) from None
    except ValueError as error:
        raise SettingsError(f"{file or SETTINGS_FILE} cannot be read: {error}") from None
