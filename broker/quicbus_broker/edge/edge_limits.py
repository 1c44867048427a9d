"""What the edge enforces on each client."""

from __future__ import annotations

from dataclasses import dataclass

from quicbus import limits

__all__ = ["EdgeLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimits:
    """Sizes in bytes, times in seconds; what each is for stands with the setting of the same name."""

    max_message_size: int = limits.MAX_MESSAGE_SIZE
    max_connections: int = limits.MAX_CONNECTIONS
    max_subscriptions: int = limits.MAX_SUBSCRIPTIONS
    max_filters_size: int = limits.MAX_FILTERS_SIZE
    max_publish_rate: int = 0
    max_pending: int = 16 * limits.MAX_PENDING
    max_pending_size: int = 4 * limits.MAX_PENDING_SIZE
    handshake_timeout_s: float = limits.HANDSHAKE_TIMEOUT_S

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
