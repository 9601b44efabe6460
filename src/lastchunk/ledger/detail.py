"""The content of an entry as JSON text and back, tolerant of fields that later versions add."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from lastchunk.errors import LedgerUnavailable

Fact = TypeVar("Fact")

_encoder = msgspec.json.Encoder()
_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def encode(fact: object) -> str:
    """A fact (OpenCall, Settlement, Observation, Correction) as JSON; equal facts, equal text."""
    try:
        return _encoder.encode(fact).decode()
    except UnicodeEncodeError:  # a lone surrogate in an account or tag
        return _encoder.encode(_cleaned(msgspec.to_builtins(fact))).decode()


def decode(text: str, fact_type: type[Fact], call_id: str) -> Fact:
    """The fact again. Fields that this version does not know are left out.

    Raises LedgerUnavailable where the text says something this version cannot understand.
    """
    decoder = _decoders.get(fact_type)
    if decoder is None:
        decoder = _decoders[fact_type] = msgspec.json.Decoder(fact_type)
    try:
        fact: Fact = decoder.decode(text)
    except msgspec.DecodeError as error:
        raise LedgerUnavailable(
            f"call {call_id}: its {fact_type.__name__} cannot be read by this version of lastchunk"
            f" ({error}); read it with the version that wrote it, or a later one"
        ) from error
    return fact


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(item) for item in value]
    return value
