"""Who may publish and subscribe to what.

Reply topics are their session's own: whoever was told one may publish to it (its 128 random bits are the permission),
only its session may subscribe.
"""

from __future__ import annotations

from dataclasses import dataclass

from quicbus.topics import REPLY_PREFIX

__all__ = ["Permissions", "reply_prefix"]

_RESERVED = REPLY_PREFIX.split("/")[0] + "/"


def reply_prefix(node: bytes, session: bytes) -> str:
    """Return what the reply topics of a session begin with."""
    return f"{REPLY_PREFIX}{node.hex()}/{session.hex()}/"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Of one session."""

    own_reply_prefix: str

    def may_subscribe(self, filter: str) -> bool:
        """Whether a (valid) filter is allowed. One that may match a reply topic must match the session's own only."""
        if not filter.startswith(_RESERVED):
            return True  # leading wildcards match no `$` topics
        second = filter[len(_RESERVED) :].split("/", 1)[0]
        return second not in ("reply", "+", "#") or filter.startswith(self.own_reply_prefix)

    def may_publish(self, topic: bytes) -> bool:
        """Whether a topic is allowed: a reply topic must be a whole one."""
        if not topic.startswith(_REPLY_PREFIX):
            return True
        levels = topic[len(_REPLY_PREFIX) :].split(b"/", 2)
        return len(levels) == 3 and len(levels[0]) == 32 and len(levels[1]) == 32


_REPLY_PREFIX = REPLY_PREFIX.encode()
