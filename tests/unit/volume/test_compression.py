"""Bounded gzip."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zlib

import pytest

from deepgrow3d_app.errors import UnreadableVolume
from deepgrow3d_app.volume.compression import READ_BYTES, deflate, inflate

DATA = bytes(range(256)) * 1000


def test_deflate_is_read_by_gzip():
    assert gzip.decompress(deflate(DATA[:100], memoryview(DATA[100:]))) == DATA


@pytest.mark.parametrize("n_bytes", [0, 1, 70_000, len(DATA)])
def test_inflate_gives_the_first_bytes(n_bytes):
    assert inflate(io.BytesIO(gzip.compress(DATA)), n_bytes, "x") == DATA[:n_bytes]


def test_inflate_starts_at_the_position_of_the_file():
    source = io.BytesIO(b"header" + gzip.compress(DATA))
    source.seek(6)
    assert inflate(source, len(DATA), "x") == DATA


def test_members_in_a_row_are_one_stream():
    parts = b"".join(gzip.compress(DATA[at : at + 1000]) for at in range(0, len(DATA), 1000))
    assert inflate(io.BytesIO(parts), len(DATA), "x") == DATA


def member(data: bytes, flags: int = 0) -> bytes:
    """A gzip member with the optional parts of its header that ``flags`` ask for, its data as it is."""
    header = b"\x1f\x8b\x08" + bytes((flags, 0, 0, 0, 0, 2, 3))
    header += struct.pack("<H", 6) + b"BC\x02\x00ab" if flags & 4 else b""
    header += b"volume.nii\0" if flags & 8 else b""
    header += b"a comment\0" if flags & 16 else b""
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF) if flags & 2 else b""
    stream = zlib.compressobj(0, zlib.DEFLATED, -15)
    return header + stream.compress(data) + stream.flush() + struct.pack("<II", zlib.crc32(data), len(data))


@pytest.mark.parametrize("flags", [0, 2, 4, 8, 12, 31])
@pytest.mark.parametrize("n_before", [1, 9, 11, 17, 30, 40])
def test_a_header_may_lie_across_two_reads(flags, n_before):
    noise = random.Random(0).randbytes(READ_BYTES)
    n_overhead = len(member(noise)) - len(noise)
    first = noise[: READ_BYTES - n_overhead - n_before]
    parts = member(first) + member(DATA, flags)
    assert READ_BYTES - 50 < len(member(first)) < READ_BYTES
    assert inflate(io.BytesIO(parts), len(first) + len(DATA), "x") == first + DATA


def test_padding_after_the_stream_is_ignored():
    assert inflate(io.BytesIO(gzip.compress(DATA) + b"\0" * 512), len(DATA), "x") == DATA


@pytest.mark.parametrize("n_lost", [1, 8, 500])
def test_truncation_is_told(n_lost):
    with pytest.raises(UnreadableVolume, match=r"'x': it is truncated: \d+ of 256000 bytes"):
        inflate(io.BytesIO(gzip.compress(DATA)[:-n_lost]), len(DATA), "x")


def test_a_wrong_checksum_is_told():
    damaged = bytearray(gzip.compress(DATA))
    damaged[-8] ^= 1
    with pytest.raises(UnreadableVolume, match=r"damaged .*incorrect data check"):
        inflate(io.BytesIO(damaged), len(DATA), "x")


def test_a_promise_beyond_the_format_is_refused_before_it_is_allocated():
    with pytest.raises(UnreadableVolume, match="promises 4000000000000 bytes, more than"):
        inflate(io.BytesIO(gzip.compress(DATA)), 4 * 10**12, "x")


def test_a_bomb_yields_what_was_promised_and_no_more():
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    megabyte = bytes(1 << 20)
    bomb = b"".join([*(stream.compress(megabyte) for _ in range(64)), stream.flush()])
    assert len(bomb) < 1 << 17
    assert inflate(io.BytesIO(bomb), 1000, "x") == bytes(1000)


def test_empty_members_do_not_go_on_for_ever():
    with pytest.raises(UnreadableVolume, match="empty part"):
        inflate(io.BytesIO(gzip.compress(b"") * 1000), 10, "x")
