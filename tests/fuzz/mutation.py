"""Changes to an input that a peer might make: by seeded chance, so that a run can be repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

__all__ = ["mutated"]


def mutated(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Change, cut, repeat, or splice with another input."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[at : at + rng.randint(1, 8)]
            case 2:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                changed[at : at + 4] = rng.choice([b"\xff" * 4, bytes(4), b"\x80\0\0\0", b"\x7f\xff\xff\xff"])
            case 4:
                changed[at:at] = changed[: rng.randint(1, 40)]
            case _:
                changed[at:] = other[min(at, len(other)) :]
    return bytes(changed)
