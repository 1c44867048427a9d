"""Variable-length integers as RFC 9000 section 16 writes them: 1, 2, 4 or 8 bytes, up to 2^62 - 1."""

from __future__ import annotations

__all__ = ["decode_varint", "encode_varint"]


def encode_varint(value: int) -> bytes:
    """Return the shortest form of `value`; raises `ValueError` outside 0 to 2^62 - 1."""
    if 0 <= value < 0x40:
        return bytes((value,))
    if 0 <= value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if 0 <= value < 0x4000_0000:
        return (value | 0x8000_0000).to_bytes(4, "big")
    if 0 <= value < 0x4000_0000_0000_0000:
        return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")
    raise ValueError(f"{value} does not fit a variable-length integer")


def decode_varint(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int] | None:
    """Return the value at `offset` and the offset after it, or `None` when `data` ends before it does."""
    if offset >= len(data):
        return None
    first = data[offset]
    size = 1 << (first >> 6)
    end = offset + size
    if end > len(data):
        return None
    return int.from_bytes(data[offset:end], "big") & ((1 << (8 * size - 2)) - 1), end
