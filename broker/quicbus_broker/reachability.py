"""Where this node is reached, and telling other nodes where they are: both ends of looking behind a NAT.

A listener sees where a node's connection comes from. If that is none of the addresses that the node says of itself, the
listener dials it there, and tells the node when it answers: `Reached`. The node then says that address to all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from quicbus.transport.connection import shown_address
from quicbus.wire.node_frames import Reached
from quicbus_broker.addresses import is_for_others

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus_broker.addresses import AdvertisedAddresses
    from quicbus_broker.dial_back import DialBacks
    from quicbus_broker.mesh.session.link import Link

__all__ = ["Reachability"]

LOOK_AFTER_S = 2.0
"""By then the record of a node that is new has come, and first traffic is over."""
REFRESH_S = 30.0
"""How often the own addresses are looked at: interfaces come and go."""


class Reachability:
    """`said_by` returns what a node says of its addresses; `None` where it is not known or is not to be dialed."""

    def __init__(
        self,
        addresses: AdvertisedAddresses,
        dial_backs: DialBacks,
        *,
        said_by: Callable[[bytes], tuple[str, ...] | None],
        changed: Callable[[tuple[str, ...]], None],
        clock: Callable[[], float],
    ) -> None:
        """`changed` is called with the own addresses when they are no longer what they were."""
        self._addresses = addresses
        self._dial_backs = dial_backs
        self._said_by = said_by
        self._changed = changed
        self._clock = clock
        self.current = addresses.current(clock())
        """The own addresses, best first."""

    def arrived(self, link: Link) -> None:
        """A node has dialed this one: look after a while whether it is reached where it comes from."""
        asyncio.get_running_loop().call_later(LOOK_AFTER_S, self._look, link)

    def reached(self, address: str) -> None:
        """Another node says that it reached this one there."""
        if self._addresses.observed.confirm(address, self._clock()):
            self.refresh()

    def refresh(self) -> None:
        """Look at the own addresses again."""
        found = self._addresses.current(self._clock())
        if found != self.current:
            self.current = found
            self._changed(found)

    async def run(self) -> None:
        """Keep the own addresses up to date, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            self.refresh()

    async def close(self) -> None:
        """End what is under way. May be called twice."""
        await self._dial_backs.close()

    def _look(self, link: Link) -> None:
        address = link.connection.peer_address
        shown = shown_address(address)
        if link.is_closed or not is_for_others(shown):
            return
        said = self._said_by(link.node)
        if said is not None and shown not in said:
            self._dial_backs.begin(link.node, address, lambda shown: link.send(Reached(address=shown)))
