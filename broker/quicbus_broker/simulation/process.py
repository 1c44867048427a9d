"""One process of one node in the simulation: performs what its machine asks for, and can be stopped, slowed and killed.

Its monotonic clock has an arbitrary zero, as on a real machine, so that a time of one node means nothing to another.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from quicbus.wire.close_codes import CloseCode
from quicbus_broker.mesh.outputs import (
    CloseConnection,
    Deliver,
    Dial,
    SendBundle,
    SendFrame,
    UseConnection,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quicbus_broker.mesh.outputs import MeshInput, MeshOutput, NodeId
    from quicbus_broker.simulation.dialing import Dialing
    from quicbus_broker.simulation.network import End, Network

__all__ = ["Machine", "Observer", "Process", "StuckTimer"]

_TICKS_MAX = 1_000
"""At one instant; a timer that does not move on would hang the simulation."""


class StuckTimer(Exception):
    """A machine's `next_timer` stays in the past, however often `tick` is called."""


class Machine(Protocol):
    """What a process runs: the mesh machine, or what a test puts in its place."""

    def handle(self, event: MeshInput, now: float) -> list[MeshOutput]: ...

    def tick(self, now: float) -> list[MeshOutput]: ...

    def next_timer(self) -> float: ...


class Observer(Protocol):
    """Is told what machines do beside sending."""

    def delivered(self, process: Process, deliver: Deliver) -> None: ...

    def happened(self, process: Process, output: MeshOutput) -> None:
        """Any other output that is not for the network."""
        ...


class Process:
    """Runs one machine from `start` to `crash`. `zero` is what its clock shows at the beginning of the simulation."""

    __slots__ = (
        "_dialing",
        "_inbox",
        "_network",
        "_observer",
        "_schedule",
        "_tick_count",
        "_ticked_at",
        "_wake_at",
        "address",
        "boot",
        "ends",
        "is_paused",
        "is_up",
        "machine",
        "mode",
        "name",
        "node",
        "place",
        "using",
        "zero",
    )

    def __init__(
        self,
        *,
        node: NodeId,
        name: str,
        boot: int,
        place: int,
        address: str,
        mode: str,
        zero: float,
        machine: Machine,
        network: Network,
        dialing: Dialing,
        observer: Observer,
    ) -> None:
        self.node = node
        self.name = name
        self.boot = boot
        self.place = place
        self.address = address
        self.mode = mode
        self.zero = zero
        self.machine = machine
        self.is_up = True
        self.is_paused = False
        self.ends: dict[int, End] = {}
        self.using: dict[NodeId, int] = {}
        self._network = network
        self._schedule = network.schedule
        self._dialing = dialing
        self._observer = observer
        self._inbox: list[Callable[[], None]] = []
        self._wake_at = math.inf
        self._ticked_at = -math.inf
        self._tick_count = 0
        network.attach(self)

    def __repr__(self) -> str:
        return f"{self.name}/{self.boot}"

    @property
    def now(self) -> float:
        """The time on its own clock."""
        return self._schedule.now + self.zero

    # --- running ------------------------------------------------------------------------------------------------------

    def receive(self, event: MeshInput) -> None:
        if self.is_paused:
            self._inbox.append(lambda: self.receive(event))
        elif self.is_up:
            self.perform(self.machine.handle(event, self._schedule.now + self.zero))

    def when_running(self, action: Callable[[], None]) -> None:
        if self.is_paused:
            self._inbox.append(action)
        else:
            action()

    def perform(self, outputs: Sequence[MeshOutput]) -> None:
        """Do what the machine said, in order, and set its timer."""
        for output in outputs:
            if isinstance(output, SendFrame):
                end = self.ends.get(self.using.get(output.node, 0))
                if end is not None:
                    self._network.send_frame(end, output.frame)
            elif isinstance(output, SendBundle):
                end = self.ends.get(self.using.get(output.node, 0))
                if end is not None:
                    self._network.send_bundle(end, output.bundle)
            elif isinstance(output, Deliver):
                self._observer.delivered(self, output)
            else:
                self._perform_rare(output)
        due = self.machine.next_timer() - self.zero
        if due < self._wake_at:
            self._wake_at = due
            self._schedule.at(due, self._wake, due)

    def _perform_rare(self, output: MeshOutput) -> None:
        if isinstance(output, UseConnection):
            if output.connection is None:
                self.using.pop(output.node, None)
            else:
                self.using[output.node] = output.connection
        elif isinstance(output, Dial):
            self._dialing.dial(self, output.address, output.node)
        elif isinstance(output, CloseConnection):
            end = self.ends.get(output.connection)
            if end is not None:
                self._network.close(end, output.code, output.reason)
        self._observer.happened(self, output)

    def _wake(self, due: float) -> None:
        if due != self._wake_at or not self.is_up:
            return
        self._wake_at = math.inf
        if self.is_paused:
            return
        timer = self.machine.next_timer()
        due = timer - self.zero
        if due > self._schedule.now:
            # It has been put off.
            self._wake_at = due
            self._schedule.at(due, self._wake, due)
            return
        self._guard_against_standstill()
        self.perform(self.machine.tick(max(timer, self.now)))

    def _guard_against_standstill(self) -> None:
        if self._ticked_at != self._schedule.now:
            self._ticked_at = self._schedule.now
            self._tick_count = 0
        self._tick_count += 1
        if self._tick_count > _TICKS_MAX:
            raise StuckTimer(f"{self} at {self._schedule.now}")

    # --- what is done to it -------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """SIGSTOP: nothing is handled, no timer fires, peers hear nothing."""
        if self.is_up and not self.is_paused:
            self.is_paused = True
            self._network.hearing_changed(self)

    def resume(self, *, timers_first: bool = False) -> None:
        """SIGCONT. What came in between is handled before the timers that are overdue, or after them."""
        if not self.is_up or not self.is_paused:
            return
        self.is_paused = False
        self._network.hearing_changed(self)
        inbox, self._inbox = self._inbox, []
        if timers_first:
            self._tick_overdue()
        for action in inbox:
            action()
        self._tick_overdue()

    def _tick_overdue(self) -> None:
        if self.is_up and self.machine.next_timer() <= self.now:
            self.perform(self.machine.tick(self.now))
        elif self.is_up:
            self.perform(())

    def crash(self) -> None:
        """kill -9, or the plug: its peers are not told."""
        if self.is_up:
            self.is_up = False
            self.is_paused = False
            self._inbox.clear()
            self._network.detach(self)

    def stop(self) -> None:
        """End as a broker does: say goodbye on every connection."""
        if self.is_up:
            for end in list(self.ends.values()):
                self._network.close(end, CloseCode.GOODBYE, "the broker stops")
            self.crash()
