"""Settings: from the environment (`LASTCHUNK_…`) and, below it, `lastchunk.toml`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

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


def load_settings(**given: object) -> Settings:
    """The settings in force; arguments that are not None win over environment and file.

    Raises SettingsError naming the setting that cannot be used.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "LASTCHUNK_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(
            f"{name}: {first['msg']} (in the environment or {SETTINGS_FILE})"
        ) from None
    except ValueError as error:
        raise SettingsError(f"{SETTINGS_FILE} cannot be read: {error}") from None
