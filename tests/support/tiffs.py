"""Gray TIFF files of any depth, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def tiff(data: bytes, size: tuple[int, int], bits: int, *, white_is_zero: bool = False, **tags: int) -> bytes:
    """An uncompressed TIFF of one strip; size is (H, W); other tags are named t254=1."""
    entries = {
        **{256: size[1], 257: size[0], 258: bits, 259: 1, 262: int(not white_is_zero), 273: 8, 277: 1},
        **{278: size[0], 279: len(data), **{int(name[1:]): value for name, value in tags.items()}},
    }
    directory = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in sorted(entries.items()))
    start = struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data
    return start + struct.pack("<H", len(entries)) + directory + bytes(4)


def packed_12_bits(rows: Sequence[Sequence[int]]) -> bytes:
    """Rows of 12-bit values, two in three bytes, the high bits first; each row begins a new byte."""
    packed = b""
    for row in rows:
        bits = "".join(f"{value:012b}" for value in row)
        bits += "0" * (-len(bits) % 8)
        packed += int(bits, 2).to_bytes(len(bits) // 8, "big")
    return packed
