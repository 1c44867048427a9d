"""What a target is: a function of bytes whose only outcomes are a value and the documented errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Target", "chunks", "join", "parts"]


@dataclass(frozen=True, slots=True)
class Target:
    """`run` raises nothing but `allowed`; a failed assertion in it is a finding as well.

    `seeds` makes inputs out of real values. What is longer than `max_size` the fuzzer does not try.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    allowed: tuple[type[Exception], ...] = ()
    max_size: int = 2048

    def __call__(self, data: bytes) -> None:
        try:
            self.run(data)
        except self.allowed:
            pass


def parts(data: bytes) -> Iterator[bytes]:
    """Cut an input into pieces, each behind its length in two bytes; the last one may be cut short."""
    at = 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        yield data[at + 2 : at + 2 + size]
        at += 2 + size


def join(*pieces: bytes) -> bytes:
    """Make the input that `parts` cuts into these pieces."""
    return b"".join(len(piece).to_bytes(2, "big") + piece for piece in pieces)


def chunks(data: bytes) -> Iterator[bytes]:
    """Cut an input as a stream might: the first byte says how large the chunks are."""
    size = data[0] + 1 if data else 1
    for at in range(1, len(data), size):
        yield data[at : at + size]
