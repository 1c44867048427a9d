"""How a connection comes about in the simulated network: handshakes that take their time, and those that fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quicbus_broker.mesh.outputs import ConnectionOpened, DialFailed

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import NodeId
    from quicbus_broker.simulation.network import End, Host, Network

__all__ = ["Dialing"]

_FLIGHTS = 4
"""Of a handshake: what one lost packet may hold up."""
_FIRST_TIMEOUT_S = 0.3
"""Until a lost packet of a handshake is sent again; the round trip is not known yet."""


@dataclass(slots=True, eq=False)
class _Attempt:
    dialer: Host
    address: str
    node: NodeId | None
    deadline: float
    is_over: bool = False


class Dialing:
    """Dials as the driver does: each ends in `ConnectionOpened` or, at the latest when it times out, `DialFailed`."""

    def __init__(self, network: Network, timeout_s: float) -> None:
        self._network = network
        self._timeout_s = timeout_s

    def dial(self, dialer: Host, address: str, node: NodeId | None) -> None:
        """Begin a handshake: the listener has the session after 1.5 round trips, the dialer after two."""
        network, schedule = self._network, self._network.schedule
        attempt = _Attempt(dialer, address, node, schedule.now + self._timeout_s)
        schedule.at(attempt.deadline, self._fail, attempt, "no answer")
        listener = network.hosts.get(address)
        if listener is not None and listener.mode != "client":
            there_s = network.latency_s(dialer.place, listener.place)
            back_s = network.latency_s(listener.place, dialer.place)
            lost_s = sum(network.retransmission_s(_FIRST_TIMEOUT_S) for _ in range(_FLIGHTS)) if network.loss else 0.0
            schedule.after(2 * there_s + back_s + lost_s, self._reach, attempt, listener)

    def connect(self, dialer: Host, listener: Host) -> tuple[End, End]:
        """Make a connection that is open at both ends at once, for worlds that start converged; nobody is told."""
        near, far = self._network.pair(dialer, listener)
        self._network.open(near)
        self._network.open(far)
        return near, far

    def _reach(self, attempt: _Attempt, listener: Host) -> None:
        """The dialer's proof is at the listener, unless something was in the way."""
        if listener.is_paused:
            listener.when_running(lambda: self._reach(attempt, listener))
        elif not self._is_possible(attempt, listener):
            return
        elif attempt.node is not None and listener.node != attempt.node:
            self._fail(attempt, "another node answers there")
        else:
            self._open_far(attempt, listener)

    def _open_far(self, attempt: _Attempt, listener: Host) -> None:
        network, dialer = self._network, attempt.dialer
        near, far = network.pair(dialer, listener)
        network.schedule.after(far.latency_s, self._answered, attempt, near)
        opened = ConnectionOpened(far.number, dialer.node, dialer.boot, False, dialer.address, listener.address)
        network.open(far, opened)
        if far.is_open:
            network.listen(far)

    def _answered(self, attempt: _Attempt, near: End) -> None:
        """The listener's word that the proof is accepted is at the dialer."""
        network, dialer, far = self._network, attempt.dialer, near.peer
        if dialer.is_paused:
            dialer.when_running(lambda: self._answered(attempt, near))
        elif self._is_possible(attempt, far.host) and far.is_open:
            attempt.is_over = True
            opened = ConnectionOpened(
                near.number, far.host.node, far.host.boot, True, attempt.address, observed=dialer.address
            )
            near.is_open = True
            network.listen(far)
            network.listen(near)
            network.open(near, opened)

    def _is_possible(self, attempt: _Attempt, listener: Host) -> bool:
        there, back = attempt.dialer.place, listener.place
        return (
            not attempt.is_over
            and self._network.schedule.now < attempt.deadline
            and attempt.dialer.is_up
            and listener.is_up
            and not self._network.is_blocked(there, back)
            and not self._network.is_blocked(back, there)
        )

    def _fail(self, attempt: _Attempt, reason: str) -> None:
        if not attempt.is_over:
            attempt.is_over = True
            if attempt.dialer.is_up:
                attempt.dialer.receive(DialFailed(attempt.address, attempt.node, reason))
