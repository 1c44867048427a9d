"""Since when a member is suspect, failed or left, who accuses it, and when that ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus_broker.mesh.config import suspicion_timeout_s
from quicbus_broker.mesh.members.calendar import SLOT_S, Calendar
from quicbus_broker.mesh.outputs import State

if TYPE_CHECKING:
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["Standings"]


class Standings:
    """Of the members that are not alive. `members`: how many there are, for the length of a suspicion."""

    __slots__ = ("_accusers", "_calendar", "_config", "_members", "_since", "_timeouts")

    def __init__(self, config: MeshConfig) -> None:
        self._config = config
        self._since: dict[NodeId, float] = {}
        self._accusers: dict[NodeId, tuple[NodeId, ...]] = {}
        """Of suspects, in the order in which they spoke up; no more than shorten the suspicion."""
        self._calendar = Calendar()
        self._members = 0
        self._timeouts: tuple[float, ...] = ()

    def since(self, node: NodeId) -> float:
        return self._since[node]

    def accusers(self, node: NodeId) -> tuple[NodeId, ...]:
        return self._accusers.get(node, ())

    # --- changes

    def suspected(self, node: NodeId, accuser: NodeId, now: float, members: int) -> None:
        """A suspicion begins."""
        self._since[node] = now
        self._accusers[node] = (accuser,)
        self._calendar.add(node, now + self._timeout(members, 0))

    def confirmed(self, node: NodeId, accuser: NodeId, members: int) -> bool:
        """Another accuses a suspect: the suspicion ends earlier. False where that says nothing new."""
        accusers = self._accusers[node]
        if accuser in accusers or len(accusers) > self._config.suspicion_confirmations:
            return False
        self._accusers[node] = (*accusers, accuser)
        self._calendar.add(node, self.suspicion_end(node, members))
        return True

    def withdrawn(self, node: NodeId, accuser: NodeId) -> bool:
        """One accuses a suspect no longer. True where nobody does any more: the suspicion is over."""
        accusers = tuple([other for other in self._accusers[node] if other != accuser])
        if accusers:
            self._accusers[node] = accusers
            return False
        self.cleared(node)
        return True

    def gone(self, node: NodeId, state: State, since: float) -> None:
        """It has failed or left: it will be forgotten."""
        self._accusers.pop(node, None)
        self._since[node] = since
        self._calendar.add(node, since + self._retention_s(state))

    def cleared(self, node: NodeId) -> None:
        """It is alive, or forgotten."""
        self._since.pop(node, None)
        self._accusers.pop(node, None)

    def had_time(self, node: NodeId, now: float) -> bool:
        """Whether it has been suspect for so long that news of it, and its answer, have come around."""
        if node not in self._accusers:
            return False
        return now - self._since[node] >= suspicion_timeout_s(self._config, 1, self._config.suspicion_confirmations) / 2

    # --- time

    def next_timer(self) -> float:
        return self._calendar.next_timer()

    def due(self, now: float) -> list[NodeId]:
        """Take out whose end may have come: see `is_over` and `again`."""
        return self._calendar.due(now)

    def is_over(self, node: NodeId, state: State, now: float, members: int) -> bool:
        """Whether a suspicion or a retention is over; not where it began anew since it was put down as due."""
        if state is State.SUSPECT:
            end = self.suspicion_end(node, members)
        else:
            end = self._since[node] + self._retention_s(state)
        return end <= now + SLOT_S / 2

    def again(self, node: NodeId, members: int) -> None:
        """Look at a suspect again: its time has grown with the mesh."""
        self._calendar.add(node, self.suspicion_end(node, members))

    def suspicion_end(self, node: NodeId, members: int) -> float:
        return self._since[node] + self._timeout(members, len(self._accusers[node]) - 1)

    def _retention_s(self, state: State) -> float:
        return self._config.left_retention_s if state is State.LEFT else self._config.failed_retention_s

    def _timeout(self, members: int, confirmations: int) -> float:
        # The time goes with the logarithm of `members`: it need not follow every single one.
        if abs(members - self._members) * 32 > self._members:
            self._members = members
            self._timeouts = tuple(
                suspicion_timeout_s(self._config, members, count)
                for count in range(self._config.suspicion_confirmations + 1)
            )
        return self._timeouts[confirmations]
