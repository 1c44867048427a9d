"""Dials under way: one per node or seed, over its addresses in turn."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from quicbus_broker.mesh.outputs import Dial

if TYPE_CHECKING:
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.outputs import DialFailed, NodeId, Output

__all__ = ["Attempt", "Dials", "Purpose"]

_OVERDUE_FACTOR = 4
"""An answer that takes so many dial time-outs does not come: the driver lost it, or this process stood still."""


class Purpose(IntEnum):
    """What a connection is wanted for; of two purposes the higher one counts."""

    CONTACT = 0
    SPARE = 1
    """A link in exchange for another."""
    LINK = 2
    BRIDGE = 3
    """A link to a part of the mesh that this node may know nothing of, even over the target."""


class Attempt(msgspec.Struct):
    key: NodeId | str
    node: NodeId | None
    addresses: tuple[str, ...]
    purpose: Purpose
    until: float
    tried: int = 1


class Dials:
    def __init__(self, config: MeshConfig) -> None:
        self._timeout_s = _OVERDUE_FACTOR * config.dial_timeout_s
        self._late_s = 2 * config.dial_timeout_s
        # By node, or by address where any node is meant. All wait equally long, so the first is due first.
        self._attempts: dict[NodeId | str, Attempt] = {}

    def __contains__(self, key: NodeId | str) -> bool:
        return key in self._attempts

    def __len__(self) -> int:
        return len(self._attempts)

    def count(self, *purposes: Purpose) -> int:
        return sum(1 for attempt in self._attempts.values() if attempt.purpose in purposes)

    def begin(
        self, node: NodeId | None, addresses: tuple[str, ...], purpose: Purpose, now: float, outputs: list[Output]
    ) -> None:
        """Dial the first address; with a dial under way for this node only its purpose may grow."""
        key = node if node is not None else addresses[0]
        if (running := self._attempts.get(key)) is not None:
            running.purpose = max(running.purpose, purpose)
            return
        self._attempts[key] = Attempt(key, node, addresses, purpose, now + self._timeout_s)
        outputs.append(Dial(addresses[0], node))

    def opened(self, node: NodeId, address: str, *, is_dialer: bool) -> Purpose | None:
        """Return what the connection was wanted for. A peer's own dial serves as well as ours."""
        purposes = [attempt.purpose for attempt in (self._attempts.pop(node, None),) if attempt]
        if is_dialer and (attempt := self._attempts.pop(address, None)):
            purposes.append(attempt.purpose)
        return max(purposes, default=None)

    def failed(self, event: DialFailed, now: float, outputs: list[Output]) -> Attempt | None:
        """Go on with the next address; return the attempt when all have failed, `None` otherwise."""
        key = event.node if event.node is not None else event.address
        attempt = self._attempts.get(key)
        if attempt is None or event.address != attempt.addresses[attempt.tried - 1]:
            return None
        del self._attempts[key]
        if attempt.tried >= len(attempt.addresses):
            return attempt
        attempt.tried += 1
        attempt.until = now + self._timeout_s
        self._attempts[key] = attempt
        outputs.append(Dial(attempt.addresses[attempt.tried - 1], attempt.node))
        return None

    def is_late(self, attempt: Attempt, now: float) -> bool:
        """Return whether the answer took so much longer than a time-out that it says more about this process."""
        return now > attempt.until - self._timeout_s + self._late_s

    def next_timer(self) -> float:
        for attempt in self._attempts.values():
            return attempt.until
        return math.inf

    def pop_overdue(self, now: float) -> list[Attempt]:
        overdue = [attempt for attempt in self._attempts.values() if attempt.until <= now]
        for attempt in overdue:
            del self._attempts[attempt.key]
        return overdue
