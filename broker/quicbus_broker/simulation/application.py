"""The clients of a node in the simulation: who subscribes there, who publishes, and what everybody got.

One `Ledger` for the whole world knows every message and every subscription, and raises `Broken` the moment a promise is
broken: delivered at most once, in order per publisher and topic, one member of a group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from zlib import crc32

from quicbus import limits
from quicbus.topics import matches
from quicbus.wire.batch import encode_body
from quicbus_broker.mesh.state import Publication

if TYPE_CHECKING:
    from quicbus_broker.mesh.interest.forwarding import MeshPlan
    from quicbus_broker.mesh.outputs import Deliver, NodeId
    from quicbus_broker.simulation.process import Process

__all__ = ["Broken", "Ledger", "Message", "Subscription"]


class Broken(AssertionError):
    """The mesh broke a promise."""


@dataclass(slots=True, eq=False)
class Message:
    """One that was published; `id` counts per process, `order` in the whole world."""

    origin: NodeId
    boot: int
    id: int
    publisher: str
    topic: str
    sent_at: float
    is_broadcast: bool
    lane: int
    targets: dict[NodeId, None]
    """The nodes that it was sent to: directly, or, as a broadcast, those that had joined."""
    arrived: dict[Process, None] = field(default_factory=dict)
    """Where it came out of the mesh, as no share of a group."""
    got: dict[Subscription, float] = field(default_factory=dict)
    shares: dict[tuple[str, str], Subscription] = field(default_factory=dict)
    """Who got the share of a group (name, filter)."""

    def __repr__(self) -> str:
        return f"message {self.id} of {self.publisher} about {self.topic}, sent at {self.sent_at:.3f}"


@dataclass(slots=True, eq=False)
class Subscription:
    process: Process
    filter: str
    group: str
    since: float
    latest: dict[tuple[NodeId, int, str, str], int] = field(default_factory=dict)
    """The last message by origin, boot, publisher and topic."""
    received: int = 0

    def __repr__(self) -> str:
        return f"subscription {self.filter!r} {self.group!r} at {self.process}"


class Ledger:
    """All messages and subscriptions. What is handed over is checked at once."""

    def __init__(self) -> None:
        self.messages: dict[tuple[NodeId, int, int], Message] = {}
        self.subscriptions: dict[Process, dict[Subscription, None]] = {}
        self.returned = 0
        self.handed_over = 0
        self._next_id: dict[tuple[NodeId, int], int] = {}

    def subscribe(self, process: Process, filter: str, group: str, now: float) -> Subscription:
        subscription = Subscription(process, filter, group, now)
        self.subscriptions.setdefault(process, {})[subscription] = None
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self.subscriptions[subscription.process].pop(subscription, None)

    def at(self, process: Process) -> list[Subscription]:
        return list(self.subscriptions.get(process, ()))

    def local_groups(self, process: Process, topic: str) -> list[tuple[str, str]]:
        """Return the groups that have a member at this process for a topic."""
        groups = {
            (each.group, each.filter): None
            for each in self.subscriptions.get(process, ())
            if each.group and matches(each.filter, topic)
        }
        return list(groups)

    def publish(self, process: Process, publisher: str, topic: str, plan: MeshPlan, now: float) -> Publication:
        """Note a message and hand it to those at its own node; returns it for the mesh."""
        key = (process.node, process.boot)
        id = self._next_id[key] = self._next_id.get(key, 0) + 1
        lane = crc32(topic.encode()) % limits.LANES
        targets = dict.fromkeys(plan.direct)
        message = Message(process.node, process.boot, id, publisher, topic, now, plan.is_broadcast, lane, targets)
        self.messages[process.node, process.boot, id] = message
        groups: dict[tuple[str, str], None] = {}
        for subscription in self.at(process):
            if not matches(subscription.filter, topic):
                continue
            group = (subscription.group, subscription.filter)
            if not subscription.group:
                self._hand_over(message, subscription, now)
            elif group not in groups:
                groups[group] = None
                self._share(message, subscription, now)
        body = encode_body(topic.encode(), [b"%d" % id], number=id)
        return Publication(id, publisher, topic.encode(), body, plan)

    def deliver(self, process: Process, output: Deliver, now: float) -> bool:
        """Route what the mesh brought; False where it is the share of a group without a member here."""
        batch = output.batch
        message = self.messages.get((output.origin, output.boot, batch.id))
        if message is None:
            raise Broken(f"{process} got message {batch.id} of {output.origin.hex()}, which nobody published")
        if not batch.group:
            message.arrived[process] = None
        found = [
            each
            for each in self.at(process)
            if each.group == batch.group
            and matches(each.filter, message.topic)
            and (not batch.group or each.filter == batch.filter)
        ]
        if batch.group:
            if not found:
                return False
            self._share(message, found[batch.id % len(found)], now)
            return True
        for subscription in found:
            self._hand_over(message, subscription, now)
        return True

    def _share(self, message: Message, subscription: Subscription, now: float) -> None:
        group = (subscription.group, subscription.filter)
        if group in message.shares:
            raise Broken(f"{message} went to {message.shares[group]} and to {subscription}")
        message.shares[group] = subscription
        message.got[subscription] = now
        subscription.received += 1

    def _hand_over(self, message: Message, subscription: Subscription, now: float) -> None:
        if subscription in message.got:
            raise Broken(f"{subscription} got {message} twice")
        flow = (message.origin, message.boot, message.publisher, message.topic)
        latest = subscription.latest.get(flow, 0)
        if latest >= message.id:
            raise Broken(f"{subscription} got {message} after message {latest}")
        subscription.latest[flow] = message.id
        message.got[subscription] = now
        subscription.received += 1
        self.handed_over += 1
