"""Topics of quicbus itself: no table says anything of them, the edge has rules of its own."""

from __future__ import annotations

from typing import Final

from quicbus.topics import REPLY_PREFIX

__all__ = ["REPLIES", "RESERVED", "is_reply_topic"]

RESERVED: Final = b"$quicbus/"
REPLIES: Final = REPLY_PREFIX.encode()


def is_reply_topic(topic: bytes) -> bool:
    """Whether a topic is a whole reply topic: of one session of one node."""
    if not topic.startswith(REPLIES):
        return False
    levels = topic[len(REPLIES) :].split(b"/", 2)
    return len(levels) == 3 and len(levels[0]) == 32 and len(levels[1]) == 32
