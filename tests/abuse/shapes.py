"""Frames and batches as attackers make them."""

from __future__ import annotations

from quicbus.wire.frames import Subscribe

__all__ = ["subscribe"]


def subscribe(id: int, filter: str, *, group: str | None = None, overflow: str = "drop_oldest") -> Subscribe:
    """A subscription that may have a hundred messages pending."""
    return Subscribe(
        id=id,
        filter=filter,
        group=group,
        overflow=overflow,
        max_pending=100,
        max_pending_size=100_000,
        window_messages=50,
        window_size=50_000,
    )
