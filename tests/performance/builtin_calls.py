"""Counts calls into C and Rust by name: signatures, certificates, keys. Python's own functions are not counted."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["count_builtin_calls"]


@contextlib.contextmanager
def count_builtin_calls() -> Iterator[Counter[str]]:
    """Count what this thread calls in the body, by `__name__`: `verify`, `sign`, `load_pem_private_key` ..."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            calls[argument.__name__] += 1

    previous = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(previous)
