"""What the broker that is connected permits, as far as it has told: what is not is refused without asking. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.exceptions import InvalidTopic, ProtocolViolation
from quicbus.topics import SplitFilter, check_filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus.wire.frames import Permissions

__all__ = ["Permitted"]

_RESERVED = "$quicbus/"
"""Below it the filters say nothing: the broker tells."""


class Permitted:
    """Of one session. What is not known is taken for allowed: the broker decides."""

    def __init__(self) -> None:
        self._publish: list[SplitFilter] | None = None
        self._deny_publish: list[SplitFilter] = []
        self._subscribe: list[SplitFilter] | None = None
        self._deny_subscribe: list[SplitFilter] = []
        self._decided: dict[str, bool] = {}

    def told(self, frame: Permissions) -> None:
        """Forget what was known before. Raises `ProtocolViolation` for what is no valid filter."""
        self._publish = None if frame.publish is None else _split(frame.publish)
        self._deny_publish = _split(frame.deny_publish)
        self._subscribe = None if frame.subscribe is None else _split(frame.subscribe)
        self._deny_subscribe = _split(frame.deny_subscribe)
        self._decided.clear()

    def refused(self, topic: str) -> None:
        """The broker did not permit to publish there."""
        self._remember(topic, allowed=False)

    def may_publish(self, topic: str) -> bool:
        """Whether publishing to a valid topic is allowed. Costs a look-up for one asked for before."""
        allowed = self._decided.get(topic)
        if allowed is not None:
            return allowed
        # Each reply has a topic of its own: it is not asked for again.
        if (self._publish is None and not self._deny_publish) or topic.startswith(_RESERVED):
            return True
        return self._remember(topic, allowed=_allows(self._publish, self._deny_publish, topic))

    def may_subscribe(self, filter: str) -> bool:
        """Whether subscribing to a valid filter is allowed."""
        return _allows(self._subscribe, self._deny_subscribe, filter)

    def _remember(self, topic: str, *, allowed: bool) -> bool:
        if len(self._decided) >= limits.TOPIC_CACHE_SIZE:
            self._decided.clear()
        self._decided[topic] = allowed
        return allowed


def _allows(allowed: Sequence[SplitFilter] | None, denied: Sequence[SplitFilter], subject: str) -> bool:
    if subject.startswith(_RESERVED):
        return True
    wanted = SplitFilter(subject)
    if any(filter.overlaps(wanted) for filter in denied):
        return False
    return allowed is None or any(filter.covers(wanted) for filter in allowed)


def _split(filters: Sequence[str]) -> list[SplitFilter]:
    try:
        for filter in filters:
            check_filter(filter)
    except InvalidTopic as error:
        raise ProtocolViolation(f"Permissions: {error}") from None
    return [SplitFilter(filter) for filter in filters]
