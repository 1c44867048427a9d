"""A dictionary that stays known to the collector, for large tables of strings, numbers and tuples."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["TrackedDict"]

K = TypeVar("K")
V = TypeVar("V")


class TrackedDict(dict[K, V]):
    """Visited once and set aside (`collecting.py`), as what lives long should be.

    Up to Python 3.13 a full collection forgets a plain `dict` that holds nothing with references of its own
    (`untrack_dicts` and `MAINTAIN_TRACKING` in CPython). The next tuple that is put in makes it as young as if it were
    new, and the next collection of what is young visits all of it: 5 ms where 40,000 filters are kept. Subclasses are
    never forgotten.
    """

    __slots__ = ()
