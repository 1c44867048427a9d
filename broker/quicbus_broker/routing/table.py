"""Who gets a topic: subscriptions by filter in a trie, and the answers for recent topics in a cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quicbus.exceptions import InvalidTopic
from quicbus.topics import REPLY_PREFIX, TopicTrie, check_topic
from quicbus_broker.routing.groups import Group

if TYPE_CHECKING:
    from quicbus_broker.routing.outputs import Destination
    from quicbus_broker.routing.subscription import Subscription

__all__ = ["Plan", "Table"]

CACHED_TOPICS = 65_536
CACHED_TOPICS_SIZE = 8 * 1024 * 1024
"""Bytes of topics in the cache: a topic may have 64 KiB."""

_REPLY_PREFIX = REPLY_PREFIX.encode()


@dataclass(frozen=True, slots=True)
class Plan:
    """Who gets a topic: the subscriptions of each destination, and the groups.

    `matching` counts deliveries per message: one for each subscription and each group.
    """

    destinations: tuple[tuple[Destination, tuple[Subscription, ...]], ...]
    groups: tuple[Group, ...]
    matching: int
    group_keys: tuple[tuple[str, str], ...] = ()
    """Name and filter of each of the groups."""


class Table:
    """Subscriptions by filter. `plan` costs a dictionary look-up for a topic that was asked for before."""

    def __init__(self) -> None:
        self._trie: TopicTrie[Subscription | Group] = TopicTrie()
        self._groups: dict[tuple[str, str], Group] = {}
        self._plans: dict[bytes, Plan] = {}
        self._plans_size = 0

    def add(self, subscription: Subscription) -> None:
        name = subscription.group
        if name is None:
            self._trie.add(subscription.filter, subscription)
        else:
            key = (name, subscription.filter)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = Group(*key)
                self._trie.add(subscription.filter, group)
            group.members.append(subscription)
        self._forget(subscription.filter)

    def discard(self, subscription: Subscription) -> Group | None:
        """Take a subscription out; returns its group while that still has members."""
        name = subscription.group
        self._forget(subscription.filter)
        if name is None:
            self._trie.discard(subscription.filter, subscription)
            return None
        key = (name, subscription.filter)
        group = self._groups[key]
        group.members.remove(subscription)
        if group.members:
            return group
        del self._groups[key]
        self._trie.discard(subscription.filter, group)
        return None

    def group(self, name: str, filter: str) -> Group | None:
        """Return a group that has members."""
        return self._groups.get((name, filter))

    def plan(self, topic: bytes) -> Plan:
        """Return who gets a topic; raises `InvalidTopic`. What is in the cache was valid."""
        plan = self._plans.get(topic)
        return self._make_plan(topic) if plan is None else plan

    def _make_plan(self, topic: bytes) -> Plan:
        try:
            text = topic.decode()
        except UnicodeDecodeError as error:
            raise InvalidTopic(repr(topic[:80]), "not UTF-8", error.start) from None
        check_topic(text)
        destinations: dict[Destination, list[Subscription]] = {}
        groups: list[Group] = []
        for value in self._trie.match(text):
            if isinstance(value, Group):
                groups.append(value)
            else:
                destinations.setdefault(value.destination, []).append(value)
        matching = sum(map(len, destinations.values())) + len(groups)
        plan = Plan(
            tuple((destination, tuple(members)) for destination, members in destinations.items()),
            tuple(groups),
            matching,
            tuple((group.name, group.filter) for group in groups),
        )
        # Every request has a reply topic of its own: it is not asked for again.
        if not topic.startswith(_REPLY_PREFIX):
            self._remember(topic, plan)
        return plan

    def _remember(self, topic: bytes, plan: Plan) -> None:
        if len(self._plans) >= CACHED_TOPICS or self._plans_size + len(topic) > CACHED_TOPICS_SIZE:
            self._clear()
        self._plans[topic] = plan
        self._plans_size += len(topic)

    def _forget(self, filter: str) -> None:
        """Forget the plans that a change to this filter makes wrong."""
        if "+" in filter or "#" in filter:
            self._clear()
        else:
            topic = filter.encode()
            if self._plans.pop(topic, None) is not None:
                self._plans_size -= len(topic)

    def _clear(self) -> None:
        self._plans.clear()
        self._plans_size = 0
