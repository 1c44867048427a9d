"""The network between the machines: connections as QUIC gives them, over links with latency, loss and partitions.

On a connection that lives nothing is ever missing: loss is delay. Control frames arrive in order; so do the bundles of
one lane, while those of others overtake them. An end that hears nothing for `IDLE_TIMEOUT_S` dies without a word, as in
RFC 9000, section 10.1; a close that is said is lost where the way is blocked. Bandwidth has no end here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from quicbus.wire.close_codes import CloseCode
from quicbus_broker.mesh.outputs import BundleArrived, ConnectionClosed, FrameArrived
from quicbus_broker.simulation.on_the_wire import bundle_over_the_wire, frame_over_the_wire

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from quicbus.wire.bundles import Bundle
    from quicbus.wire.frames import Frame
    from quicbus_broker.mesh.outputs import MeshInput, NodeId
    from quicbus_broker.simulation.schedule import Schedule

__all__ = ["CONTROL", "IDLE_TIMEOUT_S", "End", "Host", "Meter", "Network"]

IDLE_TIMEOUT_S = 30.0
CONTROL = -1
"""Among the streams of a connection, the one for frames; lanes are counted from 0."""
_PROBE_MAX_S = 8.0
"""The longest pause between two probes of a sender that hears nothing, as long as its connection lives."""
_CLEAN = (CloseCode.GOODBYE, CloseCode.REPLACED)


class Host(Protocol):
    """What runs on the network: one process of one node, at one address."""

    node: NodeId
    boot: int
    place: int
    """The machine it runs on: latency and partitions are between places, and outlive processes."""
    address: str
    mode: str
    is_up: bool
    is_paused: bool
    ends: dict[int, End]

    def receive(self, event: MeshInput) -> None:
        """Handle this now; a paused process does when it goes on."""
        ...

    def when_running(self, action: Callable[[], None]) -> None:
        """Do this now; a paused process does when it goes on, before or after what it received in between."""
        ...


class Meter(Protocol):
    """Is told of everything that is sent."""

    def frame(self, host: Host, frame: Frame) -> None: ...

    def bundle(self, host: Host, bundle: Bundle) -> None: ...


class End:
    """One end of a connection, with the way to the other."""

    __slots__ = ("early", "free_at", "held", "host", "is_open", "latency_s", "number", "peer", "silent_since")

    def __init__(self, number: int, host: Host, latency_s: float) -> None:
        self.number = number
        self.host = host
        self.peer = self
        self.is_open = False
        self.latency_s = latency_s
        """To the peer."""
        self.free_at: dict[int, float] = {}
        """When the last that was sent arrives, by stream: nothing on it arrives earlier."""
        self.held: list[tuple[int, MeshInput]] = []
        """What a blocked way keeps."""
        self.early: list[MeshInput] | None = []
        """What arrived before this end was open: the peer's may be half a round trip earlier. `None` afterwards."""
        self.silent_since: float | None = None


class Network:
    """All links. `latency_s` gives the one-way latency between two places, which are any integers."""

    def __init__(
        self, schedule: Schedule, rng: random.Random, latency_s: Callable[[int, int], float], *, jitter: float = 0.1
    ) -> None:
        self.schedule = schedule
        self.loss = 0.0
        """Share of packets lost, everywhere."""
        self.is_encoding = False
        """Everything is encoded and decoded again, rather than handed over as it is."""
        self.meter: Meter | None = None
        self.hosts: dict[str, Host] = {}
        """Who listens at an address."""
        self._rng = rng
        self._latency_s = latency_s
        self._jitter = jitter
        self._blocks: dict[tuple[int, int], tuple[int, float]] = {}
        self._slow: dict[tuple[int, int], float] = {}
        self._at: dict[int, dict[Host, None]] = {}
        self._number = 0

    # --- hosts --------------------------------------------------------------------------------------------------------

    def attach(self, host: Host) -> None:
        """A process begins to listen at its address."""
        self.hosts[host.address] = host
        self._at.setdefault(host.place, {})[host] = None

    def detach(self, host: Host) -> None:
        """The process is gone, without a word."""
        if self.hosts.get(host.address) is host:
            del self.hosts[host.address]
        del self._at[host.place][host]
        for end in list(host.ends.values()):
            self.shut(end)

    def hearing_changed(self, host: Host) -> None:
        """The process was paused or goes on: its peers hear nothing of it, or something again."""
        for end in host.ends.values():
            if end.peer.is_open:
                self.listen(end.peer)

    # --- links --------------------------------------------------------------------------------------------------------

    def latency_s(self, source: int, target: int) -> float:
        return self._latency_s(source, target) + self._slow.get((source, target), 0.0)

    def slow(self, source: int, target: int, extra_s: float) -> None:
        """Add so much latency to one way; zero takes it back."""
        self._slow[source, target] = extra_s
        for end in self._ends_between(source, target):
            end.latency_s = self.latency_s(source, target)

    def is_blocked(self, source: int, target: int) -> bool:
        return (source, target) in self._blocks

    def block(self, source: int, target: int) -> None:
        """Let nothing through from one place to another, until `unblock` was called as often."""
        count, since = self._blocks.get((source, target), (0, self.schedule.now))
        self._blocks[source, target] = count + 1, since
        if not count:
            for end in self._ends_between(source, target):
                if end.peer.is_open:
                    self.listen(end.peer)

    def unblock(self, source: int, target: int) -> None:
        count, since = self._blocks[source, target]
        if count > 1:
            self._blocks[source, target] = count - 1, since
            return
        del self._blocks[source, target]
        for end in self._ends_between(source, target):
            if end.peer.is_open:
                self.listen(end.peer)
            self._release(end, self.schedule.now - since)

    def _ends_between(self, source: int, target: int) -> list[End]:
        return [end for host in self._at.get(source, ()) for end in host.ends.values() if end.peer.host.place == target]

    def _release(self, end: End, outage_s: float) -> None:
        """Send what a partition kept: QUIC probes at growing pauses, up to as long again (RFC 9002, 6.2)."""
        held, end.held = end.held, []
        if held:
            probe_s = self._rng.uniform(0.0, min(outage_s, _PROBE_MAX_S))
            for stream, event in held:
                self._put(end, stream, event, probe_s)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send_frame(self, end: End, frame: Frame) -> None:
        if self.is_encoding:
            frame = frame_over_the_wire(frame)
        if self.meter is not None:
            self.meter.frame(end.host, frame)
        self._put(end, CONTROL, FrameArrived(end.peer.number, frame), 0.0)

    def send_bundle(self, end: End, bundle: Bundle) -> None:
        if self.is_encoding:
            bundle = bundle_over_the_wire(bundle)
        if self.meter is not None:
            self.meter.bundle(end.host, bundle)
        self._put(end, bundle.batches[0].lane, BundleArrived(end.peer.number, bundle), 0.0)

    def _put(self, end: End, stream: int, event: MeshInput, delay_s: float) -> None:
        if self._blocks and (end.host.place, end.peer.host.place) in self._blocks:
            end.held.append((stream, event))
            return
        schedule = self.schedule
        latency_s = end.latency_s
        time = schedule.now + delay_s + latency_s
        if self._jitter:
            time += latency_s * self._jitter * self._rng.random()
        if self.loss:
            time += self.retransmission_s(latency_s)
        free_at = end.free_at
        if time < free_at.get(stream, 0.0):
            time = free_at[stream]
        free_at[stream] = time
        schedule.at(time, self._arrive, end.peer, event)

    def retransmission_s(self, latency_s: float) -> float:
        """Return how much later a packet arrives for being lost: one probe time-out, then twice as long each.

        Not longer than a second and a round trip: what is sent meanwhile brings ACKs that tell of the loss.
        """
        time_s, timeout_s = 0.0, 3 * latency_s + 0.025
        while self._rng.random() < self.loss:
            time_s += timeout_s
            timeout_s = min(2 * timeout_s, 1.0 + 2 * latency_s)
        return time_s

    def _arrive(self, end: End, event: MeshInput) -> None:
        if end.is_open:
            end.host.receive(event)
        elif end.early is not None:
            end.early.append(event)

    # --- opening, silence and closing ---------------------------------------------------------------------------------

    def pair(self, dialer: Host, listener: Host) -> tuple[End, End]:
        """Make both ends of a connection; they are not open yet."""
        self._number += 2
        near = End(self._number - 1, dialer, self.latency_s(dialer.place, listener.place))
        far = End(self._number, listener, self.latency_s(listener.place, dialer.place))
        near.peer, far.peer = far, near
        return near, far

    def open(self, end: End, event: MeshInput | None = None) -> None:
        """Tell the host that its end is open, by this event, and what has come for it since."""
        end.is_open = True
        end.host.ends[end.number] = end
        early, end.early = end.early or [], None
        if event is not None:
            end.host.receive(event)
        for each in early:
            self._arrive(end, each)

    def listen(self, end: End) -> None:
        """Look whether an open end still hears its peer; if not, it dies unless that changes in time."""
        peer = end.peer
        if peer.is_open and not peer.host.is_paused and not self.is_blocked(peer.host.place, end.host.place):
            end.silent_since = None
        elif end.silent_since is None:
            end.silent_since = self.schedule.now
            self.schedule.after(IDLE_TIMEOUT_S, self._expire, end, end.silent_since)

    def _expire(self, end: End, since: float) -> None:
        if end.is_open and end.silent_since == since:
            self.shut(end)
            end.host.receive(ConnectionClosed(end.number, "nothing was heard for too long", is_clean=False))

    def close(self, end: End, code: int, reason: str) -> None:
        """Close an end, which is told as the driver does, and tell the other.

        What is under way to that one is lost if it comes later.
        """
        if not end.is_open:
            return
        closed = ConnectionClosed(end.number, reason, is_clean=code in _CLEAN)
        self.schedule.at(self.schedule.now, end.host.receive, closed)
        is_heard = not self.is_blocked(end.host.place, end.peer.host.place)
        self.shut(end)
        if is_heard:
            delay_s = end.latency_s * (1 + self._jitter) + self.retransmission_s(end.latency_s)
            self.schedule.after(delay_s, self._closed_by_peer, end.peer, code, reason)

    def _closed_by_peer(self, end: End, code: int, reason: str) -> None:
        if end.is_open:
            self.shut(end)
            end.host.receive(ConnectionClosed(end.number, reason, is_clean=code in _CLEAN))

    def shut(self, end: End) -> None:
        """Forget an end; the other only hears nothing any more."""
        end.is_open = False
        end.held.clear()
        end.host.ends.pop(end.number, None)
        if end.peer.is_open:
            self.listen(end.peer)
