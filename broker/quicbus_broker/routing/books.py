"""The books of a broker: every delivery is handed over, dropped with a reason, or waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quicbus_broker.routing.subscription import Subscription

__all__ = ["RoutingBooks", "Settled"]


@dataclass(frozen=True, slots=True)
class RoutingBooks:
    """What was routed since the start. A delivery is a message times a matching subscription (a group counts as one).

    `deliveries` = `handed_over` + the sum of `dropped` + `queued`, always.
    """

    accepted: int
    """Messages taken from publishers."""
    unmatched: int
    """Messages among them that nobody subscribed to, here or, as far as is known, on another node."""
    deliveries: int
    handed_over: int
    dropped: Mapping[str, int]
    queued: int
    arrived: int = 0
    """Messages that other nodes sent. They make deliveries as accepted ones do."""
    forwarded: int = 0
    """Messages among the accepted that were sent to other nodes: those that deliver them keep the books of that."""

    @property
    def balance(self) -> int:
        """0, or the books are wrong."""
        return self.deliveries - self.handed_over - sum(self.dropped.values()) - self.queued


class Settled:
    """Sums of the books of subscriptions that have ended, and of what no subscription stands for."""

    def __init__(self) -> None:
        self.handed_over = 0
        self.dropped: dict[str, int] = {}

    def add(self, subscription: Subscription) -> None:
        self.handed_over += subscription.handed_over
        for reason, messages in subscription.dropped.items():
            self.count_dropped(reason, messages)

    def count_dropped(self, reason: str, messages: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + messages
