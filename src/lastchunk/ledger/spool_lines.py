"""What waits in a spool, line by line: items as framed text and back. Pure.

    00c0ffee 000004d2 {"reserved": …}        CRC-32, bytes of JSON (both hexadecimal), JSON

JSON holds no line feed, so after a damaged line the next one is found again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from lastchunk.ledger.detail import encode
from lastchunk.ledger.entries import Correction, Entry
from lastchunk.ledger.in_flight import Process
from lastchunk.ledger.plan import Amendment, Item, Reservation, Resolution
from lastchunk.ledger.windows import NO_HOLDS, Holds

_FRAME = 18
"""Bytes before the JSON: two numbers of eight digits, a blank after each."""

Spoolable: TypeAlias = Reservation | Resolution | Amendment
"""What must not be lost; sightings, beats and lessons may be."""


@dataclass(frozen=True, slots=True)
class Line:
    """One item, or the process that owns the spool: exactly one of the four is not None."""

    reserved: Entry | None = None
    tags: tuple[tuple[str, str], ...] = ()
    resolved: Entry | None = None
    correction: Correction | None = None
    process_id: str = ""
    """The writer's of a correction."""
    if_better: bool = False
    if_corrected: int | None = None
    holds: Holds = NO_HOLDS
    """Of a reservation."""
    owner: Process | None = None

    @property
    def item(self) -> Spoolable | None:
        """None for the owner's line, and for a kind that a later version has added."""
        if self.reserved is not None:
            return Reservation(self.reserved, self.tags, holds=self.holds)
        if self.resolved is not None:
            return Resolution(self.resolved)
        if self.correction is not None:
            return Amendment(self.correction, self.process_id, self.if_better, self.if_corrected)
        return None


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no line; `offset` is where they begin."""

    offset: int
    data: bytes


_decoder = msgspec.json.Decoder(Line)


def is_spoolable(item: Item) -> bool:
    return isinstance(item, (Reservation, Resolution, Amendment))


def line_of(item: Spoolable) -> Line:
    """An item as it is spooled. Whether a reservation is admitted cannot be asked any more."""
    match item:
        case Reservation():
            return Line(reserved=item.entry, tags=item.tags, holds=item.holds)
        case Resolution():
            return Line(resolved=item.entry)
        case Amendment():
            return Line(
                correction=item.correction,
                process_id=item.process_id,
                if_better=item.if_better,
                if_corrected=item.if_corrected,
            )


def write_line(line: Line) -> bytes:
    """The line as bytes, framed, with its line feed."""
    told = encode(line).encode()
    return b"%08x %08x %b\n" % (zlib.crc32(told), len(told), told)


def read_lines(source: Iterable[bytes], offset: int) -> Iterator[tuple[int, Line | Damage]]:
    """Each line with the offset after it; `source` gives pieces that end at line feeds."""
    for piece in source:
        rest = piece
        while rest:
            found, length = _read_one(rest, offset)
            offset += length
            rest = rest[length:]
            yield offset, found


def _read_one(piece: bytes, offset: int) -> tuple[Line | Damage, int]:
    """The first line of a piece and its length; a line feed that is damaged joins two lines."""
    damage = Damage(offset, piece)
    try:
        told_crc, length = int(piece[:8], 16), int(piece[9:17], 16)
    except ValueError:
        return damage, len(piece)
    told = piece[_FRAME : _FRAME + length]
    if len(told) != length or length == 0 or zlib.crc32(told) != told_crc:
        return damage, len(piece)
    try:
        line = _decoder.decode(told)
    except msgspec.DecodeError:  # whole, but of a version that says it otherwise
        return Damage(offset, piece[: _FRAME + length + 1]), min(_FRAME + length + 1, len(piece))
    return line, min(_FRAME + length + 1, len(piece))
