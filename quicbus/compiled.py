"""In which form the modules run that each message passes: compiled, or as their sources."""

from __future__ import annotations

from importlib.machinery import SOURCE_SUFFIXES

from quicbus.wire import records

__all__ = ["is_compiled"]


def is_compiled() -> bool:
    """Whether these modules are compiled, as in wheels that were built so (docs/design/compiled.md)."""
    return not str(records.__file__).endswith(tuple(SOURCE_SUFFIXES))
