"""The operator's own prices, from a TOML file. They win over the snapshot.

All numbers are USD per million tokens, except `request_usd`, which is USD per request:

    [models."my-llama"]                      # a model's name, or a glob such as "llama-3*"
    input_usd_per_mtok = 0.10                # needed
    output_usd_per_mtok = 0.40               # needed; 0 means free, a missing line is an error
    input_cached_usd_per_mtok = 0.01         # without this line cached tokens cost as input does
    input_cache_write_usd_per_mtok = 0.125   # likewise: input_audio_, input_image_,
                                             # output_reasoning_, output_audio_, output_image_
    upstream = "llm.local:8000"           # only at this host (a glob; without port: any port)
    from = 2026-01-01                        # since this day (UTC) or moment; without: since ever

    [[models."my-llama".long_context]]       # for requests with more input than this
    above_input_tokens = 200_000
    input_usd_per_mtok = 0.20                # what is not repeated stays as above

    [models."my-llama".tiers.flex]           # the price in one service tier
    output_usd_per_mtok = 0.20               # what is not repeated stays as above

A model whose price changed is a list: the last `from` that has been reached applies.

    [[models."my-llama"]]
    input_usd_per_mtok = 0.20
    output_usd_per_mtok = 0.80

    [[models."my-llama"]]
    from = 2026-07-01
    input_usd_per_mtok = 0.10
    output_usd_per_mtok = 0.40

Where several prices fit a call: an exact name before a glob, with an upstream before without, the
latest start, then the later in the file.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path

from lastchunk.errors import SettingsError
from lastchunk.pricing.price import RATE_NAMES, Price, Rates, Step, identity, tier_named

_REQUEST_KEY = "request_usd"

_RATE_KEYS: dict[str, str] = {
    name if name == _REQUEST_KEY else name.removesuffix("_tokens") + "_usd_per_mtok": name
    for name in RATE_NAMES
}
"""The keys of the file, and the rate that each one sets."""

_NEEDED = ("input_usd_per_mtok", "output_usd_per_mtok")
_ABOVE = "above_input_tokens"
_MODEL_KEYS = frozenset({*_RATE_KEYS, "upstream", "from", "long_context", "tiers"})
_TIER_KEYS = frozenset({*_RATE_KEYS, "long_context"})
_STEP_KEYS = frozenset({*_RATE_KEYS, _ABOVE})

_Table = dict[str, object]


@dataclass(frozen=True, slots=True)
class OwnPrice:
    """One price of the file. `tiers` holds the standard price under None."""

    source: str
    model: str
    upstream: str | None
    from_ms: int | None
    tiers: tuple[tuple[str | None, tuple[Step, ...]], ...]

    def fits(self, model: str, upstream: str, at_ms: int) -> bool:
        """Whether it is the price of this model there and then."""
        if self.from_ms is not None and at_ms < self.from_ms:
            return False
        if self.model != model and not fnmatchcase(model, self.model):
            return False
        if self.upstream is None:
            return True
        host = upstream.lower()
        return any(fnmatchcase(one, self.upstream) for one in (host, host.rpartition(":")[0]))


def own_price(
    own: tuple[OwnPrice, ...], model: str, *, upstream: str, at_ms: int, tier: str | None
) -> Price | None:
    """The operator's price of this call, or None. `tier` as `tier_named` gives it."""
    fitting = [
        (one.model == model, one.upstream is not None, one.from_ms or 0, place)
        for place, one in enumerate(own)
        if one.fits(model, upstream, at_ms)
    ]
    if not fitting:
        return None
    chosen = own[max(fitting)[-1]]
    tiers = dict(chosen.tiers)
    served = tier if tier in tiers else None
    return Price(
        price_id=identity(f"{chosen.source}:{chosen.model}", served, tiers[served]),
        provider=chosen.source,
        model=chosen.model,
        tier=served,
        steps=tiers[served],
        matched_by="own",
        reasons=(f"tier_unpriced:{tier}",) if tier != served else (),
    )


def read_own(path: Path) -> tuple[OwnPrice, ...]:
    """All prices of a file. Raises SettingsError naming the file, the key and what to write."""
    try:
        document: _Table = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"The price file {path} cannot be read: {reason}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The price file {path} is not valid TOML: {error}.") from error
    return _Reader(path).prices(document)


class _Reader:
    """Reads one file; knows its name, to say where a mistake is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prices(self, document: _Table) -> tuple[OwnPrice, ...]:
        self._only(document, frozenset({"models"}), "")
        models = document.get("models")
        if not isinstance(models, dict) or not models:
            raise self._wrong("models", 'is missing: write at least one table [models."MODEL"]')
        return tuple(
            self._price(model, table, place)
            for model, value in models.items()
            for table, place in self._tables(value, f'models."{model}"')
        )

    def _price(self, model: str, table: _Table, place: str) -> OwnPrice:
        self._only(table, _MODEL_KEYS, place)
        for key in _NEEDED:
            if key not in table:
                raise self._wrong(f"{place}.{key}", "is missing: write USD per million tokens")
        standard = self._steps(table, None, place)
        upstream = table.get("upstream")
        if upstream is not None and not (isinstance(upstream, str) and upstream):
            raise self._wrong(f"{place}.upstream", 'is no host: write one, like "llm.local:8000"')
        return OwnPrice(
            source=f"own:{self._path.name}",
            model=model,
            upstream=upstream.lower() if isinstance(upstream, str) else None,
            from_ms=self._from_ms(table.get("from"), f"{place}.from"),
            tiers=((None, standard), *self._tiers(table, standard, place)),
        )

    def _tiers(
        self, table: _Table, standard: tuple[Step, ...], place: str
    ) -> list[tuple[str, tuple[Step, ...]]]:
        tiers = table.get("tiers", {})
        if not isinstance(tiers, dict):
            raise self._wrong(f"{place}.tiers", "is no table: write [models.….tiers.TIER]")
        priced: list[tuple[str, tuple[Step, ...]]] = []
        for name, tier in tiers.items():
            here = f"{place}.tiers.{name}"
            if (named := tier_named(name)) is None:
                raise self._wrong(here, "is the standard tier: write its price without a tier")
            if any(named == known for known, _ in priced):
                raise self._wrong(here, f"repeats the tier {named}: write each tier once")
            if not isinstance(tier, dict):
                raise self._wrong(here, "is no table: write its prices under it")
            self._only(tier, _TIER_KEYS, here)
            priced.append((named, self._steps(tier, standard, here)))
        return priced

    def _steps(
        self, table: _Table, standard: tuple[Step, ...] | None, place: str
    ) -> tuple[Step, ...]:
        """The base price and its long contexts; what is not written is as in `standard`."""
        inherited = standard[0].rates if standard else None
        base = self._rates(table, inherited, place)
        steps = {-1: Step(-1, base)}
        for step in standard[1:] if standard and "long_context" not in table else ():
            steps[step.above_input_tokens] = Step(
                step.above_input_tokens, self._rates(table, step.rates, place)
            )
        for long, here in self._tables(table.get("long_context", []), f"{place}.long_context"):
            self._only(long, _STEP_KEYS, here)
            above = long.get(_ABOVE)
            if isinstance(above, bool) or not isinstance(above, int) or above < 0:
                raise self._wrong(f"{here}.{_ABOVE}", "must be a whole number, like 200_000")
            if above in steps:
                raise self._wrong(f"{here}.{_ABOVE}", f"repeats {above}: write each length once")
            steps[above] = Step(above, self._rates(long, base, here))
        return tuple(steps[above] for above in sorted(steps))

    def _rates(self, table: _Table, inherited: Rates | None, place: str) -> Rates:
        written = {
            name: self._number(table[key], f"{place}.{key}")
            for key, name in _RATE_KEYS.items()
            if key in table
        }
        return replace(inherited, **written) if inherited is not None else Rates(**written)

    def _number(self, value: object, place: str) -> Decimal:
        # bool is an int in Python; `true` is no price.
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            number = Decimal(value)
            if number.is_finite() and number >= 0:
                return number
        raise self._wrong(place, f"is {value!s:.40}: write a number of USD from 0 up, like 0.15")

    def _from_ms(self, value: object, place: str) -> int | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        elif isinstance(value, date):
            moment = datetime(value.year, value.month, value.day, tzinfo=UTC)
        else:
            raise self._wrong(place, "is no date: write one without quotes, like 2026-01-01")
        return int(moment.timestamp() * 1000)

    def _tables(self, value: object, place: str) -> list[tuple[_Table, str]]:
        """One table, or a list of tables, each with its place in words."""
        if isinstance(value, dict):
            return [(value, place)]
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            return [(one, f"{place}[{number}]") for number, one in enumerate(value, 1)]
        raise self._wrong(place, f"is no table: write [{place}] and its prices under it")

    def _only(self, table: _Table, known: frozenset[str], place: str) -> None:
        for key in table:
            if key not in known:
                where = f"{place}.{key}" if place else key
                raise self._wrong(where, f"is not known here: write one of {_listed(known)}")

    def _wrong(self, place: str, what: str) -> SettingsError:
        return SettingsError(f"The price file {self._path}: {place} {what}.")


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
