"""The pixel size of an inline image, from the header of its bytes."""

from __future__ import annotations

import base64
import binascii

HEADER_CHARACTERS = 1024 * 1024
"""Base64 decoded of one image. A JPEG may carry a thumbnail and a profile before its size."""

LARGEST_SIDE = 1_000_000
"""Pixels. A header that claims more lies, and the size is taken as not known."""

_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset(range(0xD0, 0xDA)) - {0xDA} | {0x01}


def pixel_size(url: str) -> tuple[int, int] | None:
    """Width and height in pixels of a `data:` URL; None for any other URL, or if unreadable.

    The bytes decide, whatever media type the URL claims.
    """
    if url[:5].lower() != "data:":
        return None
    comma = url.find(",", 0, 512)
    if comma < 0 or "base64" not in url[:comma].lower():
        return None
    return header_size(_decoded(url[comma + 1 : comma + 1 + HEADER_CHARACTERS]))


def header_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels by a PNG, GIF, WebP or JPEG header; None if there is none."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        size = _big(data, 16, 4), _big(data, 20, 4)
    elif data[:6] in (b"GIF87a", b"GIF89a"):
        size = _little(data, 6, 2), _little(data, 8, 2)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        size = _webp(data)
    elif data.startswith(b"\xff\xd8"):
        size = _jpeg(data)
    else:
        return None
    if all(0 < side <= LARGEST_SIDE for side in size):
        return size
    return None


def _decoded(text: str) -> bytes:
    clean = "".join(text.split())
    try:
        return base64.b64decode(clean[: len(clean) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _big(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
    if kind == b"VP8L":
        bits = _little(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    return 0, 0


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return 0, 0
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_ALONE:
            at += 2
        elif marker in _JPEG_SIZES:
            return _big(data, at + 7, 2), _big(data, at + 5, 2)
        else:
            at += 2 + max(2, _big(data, at + 2, 2))
    return 0, 0
