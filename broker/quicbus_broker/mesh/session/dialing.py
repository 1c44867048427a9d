"""Dialing other nodes: from `HOST:PORT` to open links, or to the reason why there is none. Pure: names are looked up
by the driver, connections begun by the endpoint.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Protocol

from quicbus import limits
from quicbus.transport.connection import shown_address
from quicbus.transport.engine import EngineConfiguration
from quicbus.wire.frames import ALPN
from quicbus_broker.mesh.session.attempts import Attempts
from quicbus_broker.mesh.session.link_dialer import LinkDialer, LinkDialerOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quicbus.identity import Credential
    from quicbus.transport.connection import Address, Connection
    from quicbus.transport.endpoint import Endpoint
    from quicbus_broker.mesh.outputs import Dial, DialFailed, NodeId
    from quicbus_broker.mesh.session.link import Link

__all__ = ["Dialing", "DialingOwner"]

MAX_DIALS = 64
"""Addresses that are dialed at a time; what is beyond fails, and is tried again as if nobody had answered."""


class DialingOwner(LinkDialerOwner, Protocol):
    """The node, and what dialing tells it."""

    def opened(self, dialer: LinkDialer, link: Link, observed: str) -> None: ...

    def dial_failed(self, failure: DialFailed) -> None: ...


class Dialing:
    """`look_up` begins to resolve the name of `attempts.dial.address`; `resolved` must follow."""

    def __init__(
        self,
        owner: DialingOwner,
        name: str,
        credential: Callable[[], Credential],
        clock: Callable[[], float],
        look_up: Callable[[Attempts], None],
        timeout_s: float,
    ) -> None:
        self.endpoint: Endpoint | None = None
        """Must be there before the first `dial`."""
        self._owner = owner
        self._name = name
        self._credential = credential
        self._clock = clock
        self._look_up = look_up
        self._timeout_s = timeout_s
        self._under_way: dict[Attempts, float] = {}
        self._deadlines: deque[tuple[float, Attempts]] = deque()
        self._of_dialer: dict[LinkDialer, Attempts] = {}

    def dial(self, dial: Dial, now: float) -> None:
        """Begin; every address of a name is tried, for there may be a node behind each."""
        attempts = Attempts(dial)
        deadline = now + self._timeout_s
        self._under_way[attempts] = deadline
        self._deadlines.append((deadline, attempts))
        if len(self._under_way) > MAX_DIALS:
            attempts.failed(None, f"{MAX_DIALS} others are being dialed")
            self.resolved(attempts, ())
        else:
            self._look_up(attempts)

    def resolved(self, attempts: Attempts, addresses: Sequence[Address]) -> None:
        """These are the addresses of the name; none where it has none, and `attempts.failed` was told why."""
        if attempts not in self._under_way:
            return
        for address in addresses[: limits.MAX_DIALED_ADDRESSES]:
            self._begin(attempts, address)
        attempts.is_resolving = False
        self._settle(attempts)

    def next_timer(self) -> float:
        while self._deadlines and self._deadlines[0][1] not in self._under_way:
            self._deadlines.popleft()
        return self._deadlines[0][0] if self._deadlines else math.inf

    def tick(self, now: float) -> None:
        while self.next_timer() <= now:
            _, attempts = self._deadlines.popleft()
            why = f"no answer within {self._timeout_s:g} s"
            if attempts.is_resolving:
                attempts.is_resolving = False
                attempts.failed(None, why)
            for dialer in list(attempts.pending):
                dialer.give_up(why)
            self._settle(attempts)

    def close(self) -> None:
        """Give up whatever is under way, and tell nobody."""
        self._under_way.clear()
        for dialer in list(self._of_dialer):
            dialer.give_up("this node is stopping")

    # --- DialerOwner: for dialers -------------------------------------------------------------------------------------

    def is_wanted(self, dialer: LinkDialer, node: NodeId) -> bool:
        attempts = self._of_dialer.get(dialer)
        return attempts is not None and attempts.meets(node)

    def opened(self, dialer: LinkDialer, link: Link, observed: str) -> None:
        attempts = self._of_dialer.pop(dialer, None)
        if attempts is not None:
            attempts.opened(dialer)
            self._settle(attempts)
        self._owner.opened(dialer, link, observed)

    def failed(self, dialer: LinkDialer, reason: str, is_final: bool) -> None:
        attempts = self._of_dialer.pop(dialer, None)
        if attempts is not None:
            attempts.failed(dialer, reason, is_final=is_final)
            self._settle(attempts)

    # --- connections --------------------------------------------------------------------------------------------------

    def _begin(self, attempts: Attempts, address: Address) -> None:
        assert self.endpoint is not None
        credential = self._credential()
        configuration = EngineConfiguration(
            is_client=True, alpn=ALPN, authority=credential.authority_pem, server_name=credential.server_name
        )
        try:
            self.endpoint.dial(address, configuration, lambda connection: self._make_dialer(attempts, connection))
        except OSError as error:
            attempts.failed(None, f"{shown_address(address)}: {error.strerror or error}")

    def _make_dialer(self, attempts: Attempts, connection: Connection) -> LinkDialer:
        dialer = LinkDialer(
            connection,
            self,
            self._owner,
            address=attempts.dial.address,
            name=self._name,
            expected=attempts.dial.node,
            credential=self._credential,
            clock=self._clock,
        )
        attempts.pending[dialer] = None
        self._of_dialer[dialer] = attempts
        return dialer

    def _settle(self, attempts: Attempts) -> None:
        """Forget a dialing that is over, and tell where it came to nothing."""
        if attempts.is_resolving or attempts.pending or self._under_way.pop(attempts, None) is None:
            return
        failure = attempts.failure
        if failure is not None:
            self._owner.dial_failed(failure)
