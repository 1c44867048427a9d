"""What the messages hold: readings as text, as an application sends them, the same for a seed.

Where a latency is measured, a payload begins with the time at which it was published.
"""

from __future__ import annotations

import random
import struct

__all__ = ["STAMP", "payload_pool"]

STAMP = struct.Struct("!q")
_POOL_SIZE = 4 * 1024 * 1024
_PLACES = ("kitchen", "hall", "cellar", "roof", "garage", "office", "garden", "stairs")


def payload_pool(size: int, seed: int) -> list[bytes]:
    """Return payloads of `size` bytes that are sent in turn: 64 small ones, fewer large ones."""
    rng = random.Random(seed)
    return [_readings(size, rng) for _ in range(max(4, min(64, _POOL_SIZE // max(1, size))))]


def _readings(size: int, rng: random.Random) -> bytes:
    text = bytearray()
    while len(text) < size:
        place, value = rng.choice(_PLACES), rng.gauss(20, 5)
        text += b'{"at":%d,"place":"%s-%d","value":%.3f,"id":"%016x"}\n' % (
            rng.randrange(10**12),
            place.encode(),
            rng.randrange(100),
            value,
            rng.getrandbits(64),
        )
    begin = rng.randrange(len(text) - size + 1)
    return bytes(text[begin : begin + size])
