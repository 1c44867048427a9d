"""What the edge enforces on each client."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from quicbus import limits

__all__ = ["EDGE_LIMITS", "EdgeLimits", "no_hits"]

EDGE_LIMITS: Final = (
    "handshake_timeout_s",
    "max_connections",
    "max_filter_size",
    "max_filters_size",
    "max_message_size",
    "max_pending",
    "max_pending_size",
    "max_publish_bytes",
    "max_publish_rate",
    "max_subscriptions",
    "max_unread_size",
)
"""Names of the settings that the edge counts when they are met."""


def no_hits() -> Counter[str]:
    """Return the counters of the limits, all 0: what is never met is shown too."""
    return Counter(dict.fromkeys(EDGE_LIMITS, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimits:
    """Sizes in bytes, times in seconds; what each is for stands with the setting of the same name."""

    max_message_size: int = limits.MAX_MESSAGE_SIZE
    max_connections: int = limits.MAX_CONNECTIONS
    max_subscriptions: int = limits.MAX_SUBSCRIPTIONS
    max_filter_size: int = limits.MAX_TOPIC_SIZE
    max_filters_size: int = limits.MAX_FILTERS_SIZE
    max_publish_rate: int = 0
    max_publish_bytes: int = 0
    max_unread_size: int = limits.MAX_UNREAD_SIZE
    max_pending: int = 16 * limits.MAX_PENDING
    max_pending_size: int = 4 * limits.MAX_PENDING_SIZE
    handshake_timeout_s: float = limits.HANDSHAKE_TIMEOUT_S

    @property
    def for_own_process(self) -> EdgeLimits:
        """For `broker.bus`, by which the node itself asks and answers: no limit of clients holds it."""
        return replace(
            self,
            max_message_size=max(self.max_message_size, limits.MIN_OWN_MESSAGE_SIZE),
            max_subscriptions=limits.MAX_SUBSCRIPTIONS,
            max_filter_size=limits.MAX_TOPIC_SIZE,
            max_filters_size=max(self.max_filters_size, limits.MAX_FILTERS_SIZE),
            max_publish_rate=0,
            max_publish_bytes=0,
            max_pending=max(self.max_pending, limits.MAX_PENDING),
            max_pending_size=max(self.max_pending_size, limits.MAX_PENDING_SIZE),
        )

    @property
    def max_body_size(self) -> int:
        """Of the largest batch."""
        return self.max_message_size + limits.BATCH_OVERHEAD

    @property
    def max_record_size(self) -> int:
        """Of the largest batch with its kind, as `RecordParser` counts."""
        return 1 + self.max_body_size

    @property
    def publish_window(self) -> int:
        """Two of the largest batches fit, so that one can be under way while the other is taken."""
        return max(limits.PUBLISH_WINDOW, 2 * (self.max_message_size + limits.BATCH_OVERHEAD))

    @property
    def max_waiting_control_size(self) -> int:
        """Of control frames that wait for a later turn: a client that comes back may renew all of its subscriptions."""
        renewed = 2 * self.max_filters_size + limits.SUBSCRIBE_SIZE * self.max_subscriptions
        return max(limits.MIN_WAITING_CONTROL_SIZE, renewed)
