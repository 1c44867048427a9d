"""Publishers on other nodes, as `block` knows them: held back by the filter of the subscription that is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus_broker.routing import Source

__all__ = ["RemoteSources"]

MAX_ORIGINS = 4096
"""Objects that stand for a node; further ones are made again when they are needed."""


class RemoteSources:
    """`pause` is called with origin, filter, and whether it is paused."""

    def __init__(self, pause: Callable[[bytes, str, bool], None]) -> None:
        self._pause = pause
        self._origins: dict[bytes, _Origin] = {}
        self._filters: dict[tuple[bytes, str], _PausedFilter] = {}

    def of(self, origin: bytes) -> Source:
        """Return all publishers of a node."""
        found = self._origins.get(origin)
        if found is None:
            if len(self._origins) >= MAX_ORIGINS:
                self._origins.clear()
            found = self._origins[origin] = _Origin(self, origin)
        return found

    def narrowed(self, origin: bytes, filter: str) -> _PausedFilter:
        key = (origin, filter)
        found = self._filters.get(key)
        if found is None:
            found = self._filters[key] = _PausedFilter(self, key)
        return found

    def changed(self, key: tuple[bytes, str], is_held: bool) -> None:
        if not is_held:
            del self._filters[key]
        self._pause(*key, is_held)


class _Origin:
    def __init__(self, sources: RemoteSources, origin: bytes) -> None:
        self._sources = sources
        self._origin = origin

    def narrowed(self, filter: str) -> Source:
        return self._sources.narrowed(self._origin, filter)

    def held(self) -> None:
        raise AssertionError("only its publishers to a filter are held")

    def released(self) -> None:
        raise AssertionError("only its publishers to a filter are held")


class _PausedFilter:
    """Kept while it is held: sources are told apart by identity."""

    def __init__(self, sources: RemoteSources, key: tuple[bytes, str]) -> None:
        self._sources = sources
        self._key = key

    def narrowed(self, filter: str) -> Source:
        return self

    def held(self) -> None:
        self._sources.changed(self._key, True)

    def released(self) -> None:
        self._sources.changed(self._key, False)
