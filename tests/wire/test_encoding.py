"""Content encodings: undone for every cutting; lies and bombs are errors, never more."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lastchunk.wire.encoding import MAX_INFLATED_BYTES, UndecodableError, decoder_for


def raw_deflate(plain: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush()


def flushed_often(plain: bytes) -> bytes:
    """As a server does that sends each event at once."""
    packer = zlib.compressobj(wbits=31)
    pieces = [plain[i : i + 5] for i in range(0, len(plain), 5)]
    told = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return b"".join(told) + packer.flush()


def two_members(plain: bytes) -> bytes:
    half = len(plain) // 2
    return gzip.compress(plain[:half]) + gzip.compress(plain[half:])


PACKED = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-Gzip ", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "flushed": ("gzip", flushed_often),
    "members": ("gzip", two_members),
    "garbage behind": ("gzip", lambda plain: gzip.compress(plain) + b"\0\0\0 and more"),
}


def decoded(name: str, pieces: list[bytes]) -> bytes:
    decoder = decoder_for(name)
    assert decoder is not None
    return b"".join([decoder.decode(piece) for piece in pieces])


@pytest.mark.parametrize("way", PACKED)
@given(plain=st.binary(max_size=200), size=st.integers(1, 50))
@example(plain=b"", size=1)
@example(plain=b"data: x\n\n", size=1)
def test_any_cutting_decodes_to_the_same(way, plain, size):
    name, pack = PACKED[way]
    packed = pack(plain)
    pieces = [packed[i : i + size] for i in range(0, len(packed), size)]
    assert decoded(name, [packed]) == plain
    assert decoded(name, pieces) == plain


@pytest.mark.parametrize("name", [None, "", "identity", " Identity "])
def test_plain_bytes_need_no_decoder(name):
    assert decoder_for(name) is None


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["gzip", "deflate", "br", "zstd", "x"]))
def test_a_lie_is_an_error_of_one_kind(raw, name):
    try:
        assert isinstance(decoded(name, [raw, raw]), bytes)
    except UndecodableError:
        pass


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, raw_deflate])
def test_a_bomb_is_refused_within_bounds(pack):
    bomb = pack(bytes(MAX_INFLATED_BYTES + 4096))
    with pytest.raises(UndecodableError):
        decoded("gzip" if pack is gzip.compress else "deflate", [bomb])


def test_many_members_in_one_piece_are_bounded_together():
    member = gzip.compress(bytes(MAX_INFLATED_BYTES // 3))
    with pytest.raises(UndecodableError):
        decoded("gzip", [member * 4])
