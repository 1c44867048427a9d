"""Back-pressure of `block`: which publishers are held back, and by what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.topics import TopicTrie

if TYPE_CHECKING:
    from collections.abc import Hashable

    from quicbus_broker.routing.outputs import Source

__all__ = ["Holds", "PausedFilters"]


class Holds:
    """A publisher is held while at least one holder holds it: a full subscription, or anything else that is hashable.

    Sources are told apart by identity.
    """

    def __init__(self) -> None:
        self._sources: dict[Hashable, dict[Source, None]] = {}
        self._holders: dict[Source, dict[Hashable, None]] = {}

    def hold(self, holder: Hashable, source: Source) -> bool:
        """Hold a publisher back until `release(holder)`, again is once; tells whether nothing held it before."""
        holders = self._holders.setdefault(source, {})
        was_free = not holders
        holders[holder] = None
        self._sources.setdefault(holder, {})[source] = None
        return was_free

    def is_held(self, source: Source) -> bool:
        return source in self._holders

    def release(self, holder: Hashable) -> list[Source]:
        """The holder holds nobody any longer; returns the publishers that are free now."""
        free: list[Source] = []
        for source in self._sources.pop(holder, ()):
            holders = self._holders[source]
            del holders[holder]
            if not holders:
                del self._holders[source]
                free.append(source)
        return free

    def forget(self, source: Source) -> None:
        """The publisher has left."""
        for holder in self._holders.pop(source, ()):
            sources = self._sources[holder]
            del sources[source]
            if not sources:
                del self._sources[holder]


class PausedFilters:
    """Filters whose publishers others want held back: pairs of who wants it, and the filter. Each pair is a holder."""

    def __init__(self) -> None:
        self._trie: TopicTrie[tuple[Hashable, str]] = TopicTrie()

    def __len__(self) -> int:
        return len(self._trie)

    def add(self, key: Hashable, filter: str) -> None:
        """Begin to hold who publishes to a valid filter; again is once."""
        self._trie.add(filter, (key, filter))

    def discard(self, key: Hashable, filter: str) -> None:
        self._trie.discard(filter, (key, filter))

    def holders(self, topic: bytes) -> list[tuple[Hashable, str]]:
        """Return what holds a publisher to this valid topic."""
        return self._trie.match(topic.decode())
