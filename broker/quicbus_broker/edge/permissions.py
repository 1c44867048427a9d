"""What one session may publish and subscribe to: the grant of its name, and the rules for topics of quicbus itself.

Reply topics are their session's own: whoever was told one may publish to it (its 128 random bits are the permission),
only its session may subscribe. Other topics below `$quicbus/` are for clients inside the processes of nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quicbus import limits
from quicbus.topics import REPLY_PREFIX
from quicbus.wire import frames
from quicbus_broker.permissions import REPLIES, RESERVED, Action, is_reply_topic

if TYPE_CHECKING:
    from quicbus_broker.permissions import Policy

__all__ = ["Permissions", "reply_prefix"]

_RESERVED_TEXT: Final = RESERVED.decode()
_MAX_TOLD_SIZE: Final = limits.MAX_CONTROL_FRAME_SIZE // 2
"""Bytes of filters that a client is told; it learns from refusals what is in a larger grant."""
_FILTER_OVERHEAD: Final = 5


def reply_prefix(node: bytes, session: bytes) -> str:
    """Return what the reply topics of a session begin with."""
    return f"{REPLY_PREFIX}{node.hex()}/{session.hex()}/"


class Permissions:
    """Of one session. `name` is `None` for a client inside this process, which no table restricts."""

    def __init__(self, policy: Policy, name: str | None, own_reply_prefix: str) -> None:
        self._policy = policy
        self._name = name
        self._own_reply_prefix = own_reply_prefix
        self.refresh()

    def refresh(self) -> None:
        """Go on with the table that the policy has now; what is asked here goes by it in any case."""
        self._table = self._policy.table
        self._grant = None if self._name is None else self._policy.grant(self._name)
        self._is_unrestricted = self._grant is None or self._grant.is_unrestricted

    @property
    def who(self) -> str:
        """The client, for people."""
        return self._name or "a client of this very process"

    @property
    def restricts(self) -> bool:
        return not self._is_unrestricted

    def told(self) -> frames.Permissions:
        """Return what the client is told: its filters, unless they are too many, or nothing where it may everything."""
        grant = self._grant
        if grant is None or grant.is_unrestricted:
            return frames.Permissions()
        lists = [grant.filters(action, is_deny=is_deny) for action in Action for is_deny in (False, True)]
        if sum(len(filter.encode()) + _FILTER_OVERHEAD for filters in lists for filter in filters) > _MAX_TOLD_SIZE:
            return frames.Permissions()
        publish, deny_publish, subscribe, deny_subscribe = map(tuple, lists)
        return frames.Permissions(
            publish=publish, deny_publish=deny_publish, subscribe=subscribe, deny_subscribe=deny_subscribe
        )

    def may_subscribe(self, filter: str) -> bool:
        """Whether a (valid) filter is allowed. One that may match a reply topic must match the session's own only."""
        if filter.startswith(_RESERVED_TEXT):  # leading wildcards match no `$` topics
            return filter.startswith(self._own_reply_prefix) or (self._name is None and not _may_match_reply(filter))
        if self._table is not self._policy.table:
            self.refresh()
        return self._grant is None or self._grant.decide(Action.SUBSCRIBE, filter).allowed

    def may_publish(self, topic: bytes) -> bool:
        """Whether a (valid) topic is allowed: a reply topic must be a whole one."""
        if topic.startswith(RESERVED):
            return is_reply_topic(topic) or (self._name is None and not topic.startswith(REPLIES))
        if self._table is not self._policy.table:
            self.refresh()
        grant = self._grant
        return self._is_unrestricted or grant is None or self._policy.may_publish(grant, topic)


def _may_match_reply(filter: str) -> bool:
    return filter[len(_RESERVED_TEXT) :].split("/", 1)[0] in ("reply", "+", "#")
