"""Which way a topic takes to the nodes that want it: straight to few, by broadcast to many, to one node for a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from quicbus.topics import REPLY_PREFIX

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.interest.interest_table import InterestTable
    from quicbus_broker.mesh.members.table import MemberTable
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["EMPTY_PLAN", "Forwarding", "GroupPlan", "MeshPlan", "are_few"]

CACHED_TOPICS: Final = 65_536
CACHED_TOPICS_SIZE: Final = 8 * 1024 * 1024
"""As in `routing/table.py`."""
NEAR_FACTOR: Final = 2.0
NEAR_SLACK_S: Final = 0.001
"""Nodes whose round trip is at most so much longer than the shortest are equally near."""
RANKED_PICKS: Final = 64
"""Round trips are compared again after so many batches."""

_REPLY_PREFIX: Final = REPLY_PREFIX.encode()
_NODE_SIZE: Final = 32


class GroupPlan:
    """Nodes elsewhere that have members of one group. The nearest take turns."""

    __slots__ = ("_near", "_picks", "_rtt_s", "_turn", "filter", "group", "nodes")

    def __init__(
        self, group: str, filter: str, nodes: Sequence[NodeId], turn: int, rtt_s: Callable[[NodeId], float | None]
    ) -> None:
        self.group = group
        self.filter = filter
        self.nodes = tuple(nodes)
        self._near: Sequence[NodeId] = self.nodes
        self._picks = 0
        self._turn = turn
        """Where to begin: not all origins with the same node."""
        self._rtt_s = rtt_s

    def pick(self, exclude: NodeId = b"") -> NodeId | None:
        """Return the node that gets the next batch, one other than `exclude`; `None` where there is no other."""
        if exclude:
            nodes = _nearest([node for node in self.nodes if node != exclude], self._rtt_s)
            if not nodes:
                return None
        else:
            if self._picks % RANKED_PICKS == 0 and len(self.nodes) > 1:
                self._near = _nearest(self.nodes, self._rtt_s)
            self._picks += 1
            nodes = self._near
        self._turn += 1
        return nodes[self._turn % len(nodes)]


@dataclass(frozen=True, slots=True)
class MeshPlan:
    """Who elsewhere gets a topic. `waits`: a subscriber there has the policy `block`."""

    direct: tuple[NodeId, ...] = ()
    """In the order of their ids."""
    is_broadcast: bool = False
    """To all nodes, in the place of `direct`."""
    groups: tuple[GroupPlan, ...] = ()
    waits: bool = False

    @property
    def is_empty(self) -> bool:
        """Nobody elsewhere wants it."""
        return not (self.direct or self.is_broadcast or self.groups)

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """All that may get a part of it, unless it is broadcast."""
        return self.direct + tuple(node for group in self.groups for node in group.nodes)


EMPTY_PLAN: Final = MeshPlan()


class Forwarding:
    """Plans are kept by topic until the interest that they stand on changes."""

    def __init__(
        self,
        me: NodeId,
        table: MemberTable,
        interest: InterestTable,
        config: MeshConfig,
        rng: random.Random,
        rtt_s: Callable[[NodeId], float | None],
    ) -> None:
        self._me = me
        self._table = table
        self._interest = interest
        self._config = config
        self._rng = rng
        self._rtt_s = rtt_s
        self._plans: dict[bytes, tuple[Sequence[tuple[str, str]], MeshPlan]] = {}
        self._plans_size = 0
        interest.on_change = self._on_change

    def plan(self, topic: bytes, local_groups: Sequence[tuple[str, str]] = ()) -> MeshPlan:
        """Return who elsewhere gets a valid topic. Groups (name, filter) with members here keep their share here."""
        if self._table.alive_count <= 1:
            return EMPTY_PLAN
        known = self._plans.get(topic)
        if known is not None and (known[0] is local_groups or known[0] == local_groups):
            return known[1]
        if topic.startswith(_REPLY_PREFIX):
            return self._plan_reply(topic)
        plan = self._make_plan(topic.decode(), local_groups)
        self._remember(topic, local_groups, plan)
        return plan

    def group(self, topic: bytes, group: str, filter: str) -> GroupPlan | None:
        """Return the nodes elsewhere with members of a group, whatever is here."""
        return next(
            (each for each in self.plan(topic, ()).groups if (each.group, each.filter) == (group, filter)), None
        )

    def _plan_reply(self, topic: bytes) -> MeshPlan:
        """A reply topic names its node; it is used once, so that its plan is not kept."""
        start = len(_REPLY_PREFIX)
        try:
            node = bytes.fromhex(topic[start : start + _NODE_SIZE].decode())
        except ValueError:
            return EMPTY_PLAN
        entry = self._table.get(node)
        if node == self._me or entry is None or not entry.is_alive:
            return EMPTY_PLAN
        return MeshPlan((node,))

    def _make_plan(self, topic: str, local_groups: Sequence[tuple[str, str]]) -> MeshPlan:
        match = self._interest.match(topic)
        groups = [
            (group, filter, nodes) for group, filter, nodes in match.groups if (group, filter) not in local_groups
        ]
        if not match.plain and not groups:
            return EMPTY_PLAN
        is_direct = are_few(len(match.plain), self._table.alive_count - 1, self._config)
        return MeshPlan(
            tuple(sorted(match.plain)) if is_direct else (),
            not is_direct,
            tuple([self._group_plan(group, filter, nodes) for group, filter, nodes in sorted(groups, key=_by_name)]),
            any(match.plain.values()) or any(any(nodes.values()) for _, _, nodes in groups),
        )

    def _group_plan(self, group: str, filter: str, nodes: dict[NodeId, bool]) -> GroupPlan:
        return GroupPlan(group, filter, sorted(nodes), self._rng.randrange(len(nodes)), self._rtt_s)

    def _remember(self, topic: bytes, local_groups: Sequence[tuple[str, str]], plan: MeshPlan) -> None:
        if len(self._plans) >= CACHED_TOPICS or self._plans_size + len(topic) > CACHED_TOPICS_SIZE:
            self._clear()
        if topic not in self._plans:
            self._plans_size += len(topic)
        self._plans[topic] = (local_groups, plan)

    def _on_change(self, topic: str | None) -> None:
        if topic is None:
            self._clear()
        elif self._plans:
            encoded = topic.encode()
            if self._plans.pop(encoded, None) is not None:
                self._plans_size -= len(encoded)

    def _clear(self) -> None:
        self._plans.clear()
        self._plans_size = 0


def are_few(interested: int, others: int, config: MeshConfig) -> bool:
    """Whether so many interested nodes, of so many other members, are served one by one rather than by broadcast.

    A broadcast costs the mesh a copy for each member, and each member a check of a signature. One by one the origin
    pays for all copies, and must dial those that it has no link to: so not for more than a quarter of the connections
    that it keeps for that.
    """
    return interested <= max(config.direct_max, min(config.max_contacts // 4, others // 64))


def _nearest(nodes: Sequence[NodeId], rtt_s: Callable[[NodeId], float | None]) -> Sequence[NodeId]:
    """Return the nodes that are about as near as the nearest. One that is not measured is far."""
    measured = [(rtt, node) for node in nodes if (rtt := rtt_s(node)) is not None]
    if not measured:
        return nodes
    most = NEAR_FACTOR * min(measured)[0] + NEAR_SLACK_S
    return [node for rtt, node in measured if rtt <= most]


def _by_name(group: tuple[str, str, dict[NodeId, bool]]) -> tuple[str, str]:
    return group[0], group[1]
