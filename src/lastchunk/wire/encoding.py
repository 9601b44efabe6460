"""Content encodings undone on a copy: the caller's own bytes stay as they came."""

from __future__ import annotations

import importlib
import zlib
from typing import Any, Protocol

MAX_INFLATED_BYTES = 64 * 1024 * 1024
"""What one piece of the wire may inflate to; more is an attack on memory, not an answer."""


class Decoder(Protocol):
    """Undoes one content encoding, piece by piece."""

    def decode(self, piece: bytes) -> bytes:
        """The plain bytes that this piece brings. Raises UndecodableError."""
        ...


class UndecodableError(Exception):
    """The bytes do not follow their content encoding, or the encoding is not known here."""


def decoder_for(content_encoding: str | None) -> Decoder | None:
    """A decoder for a Content-Encoding header; None where the bytes are plain."""
    name = (content_encoding or "identity").strip().lower()
    if name in ("identity", ""):
        return None
    if name in ("gzip", "x-gzip", "deflate"):
        return _Inflater()
    if name in ("br", "zstd"):
        return _from_package(name)
    return _Unknown(name)


def can_decode(content_encoding: str | None) -> bool:
    """Whether `decoder_for` knows this encoding, or there is none to undo."""
    return not isinstance(decoder_for(content_encoding), _Unknown)


class _Inflater:
    """gzip and deflate (with or without its zlib header), several members in a row.

    What follows a member and begins no other one is not part of the answer, and is left out.
    """

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._head = b""
        self._begun = False
        self._members = 0

    def decode(self, piece: bytes) -> bytes:
        if not self._begun:
            self._head = piece = self._head + piece
            if len(piece) < 2:  # two bytes tell whether there is a header
                return b""
            self._begun, self._head = True, b""
            self._inflate = zlib.decompressobj(_window_of(piece))
        try:
            return self._decode(piece)
        except zlib.error as error:
            raise UndecodableError(str(error)) from None

    def _decode(self, piece: bytes) -> bytes:
        plain = b""
        while piece:
            try:
                plain += self._inflate.decompress(piece, MAX_INFLATED_BYTES - len(plain))
            except zlib.error:
                if not self._members:
                    raise
                return plain
            if self._inflate.unconsumed_tail or len(plain) >= MAX_INFLATED_BYTES:
                raise UndecodableError(f"inflates to more than {MAX_INFLATED_BYTES} bytes")
            piece = self._inflate.unused_data if self._inflate.eof else b""
            if self._inflate.eof:
                self._members += 1
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        return plain


def _window_of(head: bytes) -> int:
    """zlib's word for the format that begins so: with a header, or deflate alone."""
    try:
        zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(head[:2])
    except zlib.error:
        return -zlib.MAX_WBITS
    return zlib.MAX_WBITS | 32


def _from_package(name: str) -> Decoder:
    """br and zstd, which only arrive where the client's own packages asked for them."""
    try:
        if name == "br":
            return _Wrapped(importlib.import_module("brotli").Decompressor().process)
        return _Wrapped(
            importlib.import_module("zstandard").ZstdDecompressor().decompressobj().decompress
        )
    except (ImportError, AttributeError):
        return _Unknown(name)


class _Wrapped:
    def __init__(self, decompress: Any) -> None:
        self._decompress = decompress

    def decode(self, piece: bytes) -> bytes:
        try:
            return bytes(self._decompress(piece))
        except Exception as error:  # each package has its own error class
            raise UndecodableError(str(error)) from None


class _Unknown:
    def __init__(self, name: str) -> None:
        self._name = name

    def decode(self, piece: bytes) -> bytes:
        raise UndecodableError(f"content encoding {self._name!r} is not known here")
