"""Back-pressure of `block`: which publishers are held back, and by which full subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quicbus_broker.routing.outputs import Source
    from quicbus_broker.routing.subscription import Subscription

__all__ = ["Holds"]


class Holds:
    """A publisher is held while at least one full subscription holds it. Sources are told apart by identity."""

    def __init__(self) -> None:
        self._sources: dict[Subscription, dict[Source, None]] = {}
        self._subscriptions: dict[Source, dict[Subscription, None]] = {}

    def hold(self, subscription: Subscription, source: Source) -> None:
        """Hold a publisher back until `release(subscription)`; again is once."""
        self._sources.setdefault(subscription, {})[source] = None
        self._subscriptions.setdefault(source, {})[subscription] = None

    def is_held(self, source: Source) -> bool:
        return source in self._subscriptions

    def release(self, subscription: Subscription) -> list[Source]:
        """The subscription holds nobody any longer; returns the publishers that are free now."""
        free: list[Source] = []
        for source in self._sources.pop(subscription, ()):
            holders = self._subscriptions[source]
            del holders[subscription]
            if not holders:
                del self._subscriptions[source]
                free.append(source)
        return free

    def forget(self, source: Source) -> None:
        """The publisher has left."""
        for subscription in self._subscriptions.pop(source, ()):
            sources = self._sources[subscription]
            del sources[source]
            if not sources:
                del self._sources[subscription]
