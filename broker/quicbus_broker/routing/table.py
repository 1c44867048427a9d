"""Who gets a topic: subscriptions by filter in a trie, and the answers for recent topics in a cache."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from quicbus.exceptions import InvalidTopic
from quicbus.topics import REPLY_PREFIX, TopicTrie, check_topic
from quicbus.values import make_structs
from quicbus_broker.routing.groups import Group

if TYPE_CHECKING:
    from quicbus.topics import Matching
    from quicbus_broker.routing.outputs import Destination
    from quicbus_broker.routing.subscription import Subscription

__all__ = ["Plan", "Planning", "Table"]

CACHED_TOPICS: Final = 65_536
CACHED_TOPICS_SIZE: Final = 8 * 1024 * 1024
"""Bytes of topics in the cache: a topic may have 64 KiB."""

PIECE_STEPS: Final = 512
"""Of a match, done at once: 0.2 ms. A table of ten thousand usual filters is matched in twenty."""

_REPLY_PREFIX: Final = REPLY_PREFIX.encode()


@final
@dataclass(init=False, slots=True)
class Plan:
    """Who gets a topic: the subscriptions of each destination, and the groups.

    `matching` counts deliveries per message: one for each subscription and each group.
    """

    destinations: Final[tuple[tuple[Destination, tuple[Subscription, ...]], ...]]
    groups: Final[tuple[Group, ...]]
    matching: Final[int]
    group_keys: Final[tuple[tuple[str, str], ...]]
    """Name and filter of each of the groups."""
    only: Final[Subscription | None]
    """The one that gets it, where there is just one and no group, as is common."""

    def __init__(
        self,
        destinations: tuple[tuple[Destination, tuple[Subscription, ...]], ...],
        groups: tuple[Group, ...],
        matching: int,
        group_keys: tuple[tuple[str, str], ...],
        only: Subscription | None,
    ) -> None:
        self.destinations = destinations
        self.groups = groups
        self.matching = matching
        self.group_keys = group_keys
        self.only = only


make_structs(globals(), Plan, frozen=True, gc=True)


class Table:
    """Subscriptions by filter. `known` answers for a topic that was asked for before, by a look-up in a dictionary."""

    def __init__(self) -> None:
        self.changes = 0
        """Grows with each change."""
        self._trie: TopicTrie[Subscription | Group] = TopicTrie()
        self._groups: dict[tuple[str, str], Group] = {}
        self._plans: dict[bytes, Plan] = {}
        self._plans_size = 0
        self.known: Callable[[bytes], Plan | None] = self._plans.get
        """Returns the plan of a topic, or `None` where it has to be made."""

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
        """Return who gets a topic, however long that takes; raises `InvalidTopic`. What is known was valid."""
        plan = self.known(topic)
        if plan is None:
            plan = self.begin(topic).go_on(sys.maxsize)
            assert plan is not None
        return plan

    def begin(self, topic: bytes) -> Planning:
        """Begin to make the plan of a topic; raises `InvalidTopic`."""
        try:
            text = topic.decode()
        except UnicodeDecodeError as error:
            raise InvalidTopic(repr(topic[:80]), "not UTF-8", error.start) from None
        check_topic(text)
        return Planning(self, topic, self._trie.begin(text))

    def planned(self, topic: bytes, plan: Plan, changes: int) -> None:
        """Keep a plan that was begun when there had been so many changes, unless there were more since."""
        # Every request has a reply topic of its own: it is not asked for again.
        if changes == self.changes and not topic.startswith(_REPLY_PREFIX):
            self._remember(topic, plan)

    def _remember(self, topic: bytes, plan: Plan) -> None:
        if len(self._plans) >= CACHED_TOPICS or self._plans_size + len(topic) > CACHED_TOPICS_SIZE:
            self._clear()
        self._plans[topic] = plan
        self._plans_size += len(topic)

    def _forget(self, filter: str) -> None:
        """Forget the plans that a change to this filter makes wrong."""
        self.changes += 1
        if "+" in filter or "#" in filter:
            self._clear()
        else:
            topic = filter.encode()
            if self._plans.pop(topic, None) is not None:
                self._plans_size -= len(topic)

    def _clear(self) -> None:
        self._plans.clear()
        self._plans_size = 0


class Planning:
    """A plan that is made a piece at a time, since hostile filters can make it long. It names all who are subscribed
    from its beginning to its end."""

    __slots__ = ("_changes", "_destinations", "_groups", "_matching", "_table", "_topic")

    def __init__(self, table: Table, topic: bytes, matching: Matching[Subscription | Group]) -> None:
        self._table = table
        self._topic = topic
        self._matching = matching
        self._changes = table.changes
        self._destinations: dict[Destination, list[Subscription]] = {}
        self._groups: list[Group] = []

    def go_on(self, steps: int = PIECE_STEPS) -> Plan | None:
        """Do a piece; returns the plan once it is whole. Route by it at once."""
        matching, destinations = self._matching, self._destinations
        is_over = matching.go_on(steps)
        for value in matching.take():
            if isinstance(value, Group):
                self._groups.append(value)
            else:
                destinations.setdefault(value.destination, []).append(value)
        if not is_over:
            return None
        if self._changes != self._table.changes:
            self._leave_out_those_that_left()
        plan = _plan_of(destinations, self._groups)
        self._table.planned(self._topic, plan, self._changes)
        return plan

    def _leave_out_those_that_left(self) -> None:
        self._groups = [group for group in self._groups if group.members]
        for destination, subscriptions in list(self._destinations.items()):
            is_open = [each for each in subscriptions if each.is_open]
            if is_open:
                self._destinations[destination] = is_open
            else:
                del self._destinations[destination]


def _plan_of(destinations: dict[Destination, list[Subscription]], groups: list[Group]) -> Plan:
    matching = sum(map(len, destinations.values())) + len(groups)
    return Plan(
        tuple([(destination, tuple(members)) for destination, members in destinations.items()]),
        tuple(groups),
        matching,
        tuple([(group.name, group.filter) for group in groups]),
        next(iter(destinations.values()))[0] if matching == 1 and destinations else None,
    )
