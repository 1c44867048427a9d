"""The rest of the mesh, as the exchange knows it: who elsewhere gets a topic, and the way there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus_broker.routing import Batch

__all__ = ["Remote", "RemotePlan"]


class RemotePlan(Protocol):
    """Who elsewhere gets a topic. What else it holds is for `Remote.forward`."""

    @property
    def is_empty(self) -> bool: ...

    @property
    def waits(self) -> bool:
        """A subscriber there has the policy `block`: where the way is full publishers wait."""
        ...


class Remote(Protocol):
    """All of it answers at once and never raises. Nodes are 16 bytes."""

    @property
    def is_joined(self) -> bool:
        """Whether the first full exchange with the mesh is done: what is not known before may exist."""
        ...

    def plan(self, topic: bytes, local_groups: Sequence[tuple[str, str]]) -> RemotePlan:
        """Return who gets a valid topic; groups (name, filter) that have members here are left out."""
        ...

    def forward(self, batch: Batch, plan: RemotePlan) -> None:
        """Send a batch of this node; the plan was just asked for."""
        ...

    def is_full(self, plan: RemotePlan) -> bool:
        """Whether a way that a batch with this plan may take is full; the plan was just asked for."""
        ...

    def send_share(self, batch: Batch, group: str, filter: str, exclude: bytes) -> bool:
        """Send a batch of this node to a member of a group on a node other than `exclude`; False: there is none.

        `exclude` is empty where every node will do.
        """
        ...

    def give_back(self, batch: Batch, group: str, filter: str) -> bool:
        """Return a batch to its origin, another node: the group has no member here. False: there is no way."""
        ...

    def interest_added(self, filter: str, group: str, blocks: bool) -> None:
        """A subscription begins here; `group` is empty for none. `blocks`: it has the policy `block`."""
        ...

    def interest_discarded(self, filter: str, group: str, blocks: bool) -> None: ...

    def pause(self, origin: bytes, filter: str, is_paused: bool) -> None:
        """Have a node hold back, or let go, who publishes there to a filter."""
        ...
