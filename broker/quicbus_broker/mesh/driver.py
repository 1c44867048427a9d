"""The I/O of the mesh: connections, names and time go into the machine, what comes out is performed in order.

It never waits for a single peer. All of it runs in the event loop of the endpoint, most of it in the endpoint's turns:
what arrives in a turn, and what that brings about for other nodes and for the clients here, leaves in the same turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from quicbus.identity import ProofRefused
from quicbus.logs import logger_for
from quicbus.transport.connection import shown_address
from quicbus.transport.names import addresses_of
from quicbus.wire.batch import peek_body
from quicbus.wire.bundles import KIND_BROADCAST, KIND_DIRECT
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Ping, Pong
from quicbus.wire.node_frames import Reached, Skipped
from quicbus_broker.mesh.outputs import (
    BundleArrived,
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    Deliver,
    Dial,
    FrameArrived,
    MemberChanged,
    MemberRevoked,
    PauseChanged,
    Returned,
    SelfRevoked,
    SendBundle,
    SendFrame,
    SpreadReached,
    State,
    Superseded,
    TrustLearned,
    UseConnection,
)
from quicbus_broker.mesh.session.dialing import Dialing
from quicbus_broker.mesh.session.link import Link
from quicbus_broker.mesh.session.link_dialer import describe_end
from quicbus_broker.mesh.trust.expelling import REVOKED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from quicbus.identity import Credential
    from quicbus.transport.connection import Address
    from quicbus.transport.endpoint import Endpoint
    from quicbus.transport.engine import Terminated
    from quicbus.wire.bundles import Bundle
    from quicbus.wire.frames import Frame
    from quicbus_broker.mesh.outputs import DialFailed, MeshInput, MeshOutput, NodeId
    from quicbus_broker.mesh.session.attempts import Attempts
    from quicbus_broker.mesh.session.link_dialer import LinkDialer
    from quicbus_broker.mesh.session.ports import Arrival, DriverEvents, Receiver
    from quicbus_broker.mesh.state import Mesh

__all__ = ["MeshDriver"]

LEAVE_TIMEOUT_S = 1.0
"""How long neighbours have to take what is on its way to them when this node leaves."""
REPLACED_TIMEOUT_S, REPLACED_CHECK_S = 10.0, 0.1
"""Likewise on a connection that another one has replaced, and how often that is looked at."""
GOODBYE_PING = 2**63 - 1
TIMER_GRANULARITY_S = 0.001


class MeshDriver:
    """The edge's `Nodes`. Set `receiver`, `start` it and keep `run` running; `leave` ends it."""

    receiver: Receiver

    def __init__(
        self,
        mesh: Mesh,
        events: DriverEvents,
        *,
        credential: Callable[[], Credential],
        clock: Callable[[], float],
        dial_timeout_s: float,
    ) -> None:
        self.mesh = mesh
        self.me = mesh.me
        self.boot = mesh.boot
        self.dropped: Counter[str] = Counter()
        """Messages that were for one neighbour and could not be kept, by reason."""
        self.violations = 0
        self.on_arrival: Callable[[Link], object] = lambda link: None
        """Called with each link that another node has dialed."""
        self.on_reached: Callable[[str], object] = lambda address: None
        """Called with `HOST:PORT` where another node has reached this one, see `Reached`."""
        self.on_dial_failed: Callable[[DialFailed], object] = lambda failure: None
        """Called with each address that could not be dialed."""
        self._events = events
        self._credential = credential
        self._clock = clock
        self._links: dict[int, Link] = {}
        self._in_use: dict[NodeId, Link] = {}
        self._congested: dict[Link, None] = {}
        self._dialing = Dialing(self, mesh.name, credential, clock, self._look_up, dial_timeout_s)
        self._resolving: set[asyncio.Task[None]] = set()
        self._inputs: deque[MeshInput] = deque()
        self._outputs: deque[MeshOutput] = deque()
        self._is_busy = False
        self._last_number = 0
        self._wants_end_turn = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._wants_timer = False
        self._has_started = self._is_closed = False
        self._unanswered: dict[NodeId, None] | None = None
        """While this node leaves: the neighbours that may not have heard of it yet."""
        self._is_done = asyncio.Event()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._log = logger_for("quicbus_broker.mesh", node=self.me.hex())
        self._performers: dict[type, Callable[[Any], None]] = {
            SendFrame: self._send_frame,
            SendBundle: self._send_bundle,
            Dial: self._dial,
            UseConnection: self._use_connection,
            CloseConnection: self._close_connection,
            Deliver: self._deliver,
            Returned: lambda output: self.receiver.returned(output.node, output.batch, output.age_ms),
            PauseChanged: lambda output: self.receiver.pause_changed(output.node, output.filter, output.is_paused),
            SpreadReached: lambda output: events.spread_reached(output.version),
            Superseded: lambda output: events.superseded(output.boot, output.addresses),
            MemberChanged: self._member_changed,
            MemberRevoked: self._member_revoked,
            SelfRevoked: lambda output: events.self_revoked(),
            TrustLearned: lambda output: events.trust_learned(output.signed),
        }

    # --- its life -----------------------------------------------------------------------------------------------------

    def start(
        self,
        endpoint: Endpoint,
        *,
        addresses: tuple[str, ...],
        seeds: tuple[str, ...] = (),
        remembered: tuple[tuple[NodeId, str], ...] = (),
    ) -> None:
        """Begin on an endpoint that is open; its listener hands nodes over to `take`."""
        self._dialing.endpoint = endpoint
        self._has_started = True
        now = self._clock()
        self._run(self.mesh.start(addresses=addresses, seeds=seeds, remembered=remembered, now=now))

    async def run(self) -> None:
        """Wait for ever, or raise what went wrong in here."""
        await self._failure

    async def leave(self) -> None:
        """Tell the mesh that this node leaves, and close all links once everything has arrived there.

        Takes at most `LEAVE_TIMEOUT_S` and a little.
        """
        if self._is_closed or not self._has_started:
            return
        self.end_turn()
        self._run(self.mesh.leave(self._clock()))
        # The answer shows that all frames before it were read.
        self._unanswered = dict.fromkeys(self._in_use)
        for node in self._unanswered:
            self._in_use[node].send(Ping(id=GOODBYE_PING))
        self._check_goodbye()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._is_done.wait()
        self.close()

    def close(self) -> None:
        """Close everything as it is; may be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._resolving:
            task.cancel()
        self._dialing.close()
        for link in list(self._links.values()):
            link.close(CloseCode.GOODBYE, "the node has left")

    # --- what the rest of the broker calls ----------------------------------------------------------------------------

    @property
    def links(self) -> Iterable[Link]:
        """The connections with other nodes that are open."""
        return self._links.values()

    def is_connected(self, node: NodeId) -> bool:
        return node in self._in_use

    def is_full(self, node: NodeId) -> bool:
        """Whether what publishers wait for should not be sent to a node now; one that is not connected may be."""
        link = self._in_use.get(node)
        return link is None or link in self._congested

    def perform(self, outputs: list[MeshOutput]) -> None:
        """Do what a call to the machine returned; what it gathered leaves at the end of this turn."""
        self._run(outputs)
        self.wants_end_turn()

    def wants_end_turn(self) -> None:
        """Have `end_turn` called at the end of this turn: the own interest changed, or there is a broadcast."""
        if self._wants_end_turn or self._is_closed:
            return
        self._wants_end_turn = True
        # At the end of the endpoint's turn, if it has one now; where no link is open that is nobody's concern.
        for link in self._links.values():
            link.connection.transmit_soon()
            break
        asyncio.get_running_loop().call_soon(self.turn_ends)

    def end_turn(self) -> None:
        """Seal what the turn brought, and send it."""
        self._wants_end_turn = False
        self._run(self.mesh.end_turn(self._clock()))
        if self.mesh.wants_turn:
            self.wants_end_turn()

    # --- Nodes: what the edge calls -----------------------------------------------------------------------------------

    def refusal(self, node: NodeId, boot: int) -> ProofRefused | None:
        """Return why a node that has proved who it is may not come in."""
        if not self._has_started or self._is_closed:
            return ProofRefused(CloseCode.GOING_AWAY, "this node is not part of the mesh now; try again later")
        if self.mesh.mode == "client":
            return ProofRefused(CloseCode.LIMIT_EXCEEDED, "mode client: this node dials others and accepts none")
        if self.is_refused(node):
            return ProofRefused(CloseCode.CREDENTIAL_REVOKED, REVOKED)
        if node != self.me:
            return None
        if boot == self.boot:
            return ProofRefused(CloseCode.GOODBYE, "this is the node itself")
        self.met_itself(boot, "")
        why = f"another process, of boot {self.boot}, has this node's key; one data folder serves one broker"
        return ProofRefused(CloseCode.REPLACED, why)

    def take(self, arrival: Arrival) -> Link:
        link = Link(
            arrival.connection,
            arrival.control,
            arrival.frames,
            arrival.control_id,
            self,
            number=self.next_number(),
            node=arrival.node,
            boot=arrival.boot,
            name=arrival.name,
            clock=self._clock,
            on_proof=arrival.on_proof,
        )
        self._links[link.number] = link
        address = shown_address(arrival.connection.peer_address)
        self._feed(ConnectionOpened(link.number, link.node, link.boot, False, address))
        self.on_arrival(link)
        return link

    # --- LinkOwner and DialerOwner ------------------------------------------------------------------------------------

    def next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def opened(self, dialer: LinkDialer, link: Link, observed: str) -> None:
        self._links[link.number] = link
        self._log.info("= connected to node %s", link.node.hex(), extra=_peer(link))
        self._feed(ConnectionOpened(link.number, link.node, link.boot, True, dialer.address, observed))

    def dial_failed(self, failure: DialFailed) -> None:
        level = self._log.warning if failure.is_final and not failure.is_self else self._log.debug
        level("= no link to %s: %s", failure.address, failure.reason)
        self.on_dial_failed(failure)
        self._feed(failure)

    def is_refused(self, node: NodeId) -> bool:
        return self.mesh.is_refused(node, self._clock())

    def met_itself(self, boot: int, address: str) -> None:
        if boot > self.boot:
            self._events.superseded(boot, (address,) if address else ())
        else:
            self._log.warning("= another process runs with this node's key, boot %d: it must stop %s", boot, address)

    def frame_arrived(self, link: Link, frame: Frame) -> None:
        if isinstance(frame, Reached):
            self.on_reached(frame.address)
        elif self._unanswered is not None and isinstance(frame, Pong) and frame.id == GOODBYE_PING:
            self._unanswered.pop(link.node, None)
        else:
            self._feed(FrameArrived(link.number, frame))

    def bundle_arrived(self, link: Link, bundle: Bundle) -> None:
        self._feed(BundleArrived(link.number, bundle))

    def turn_ends(self) -> None:
        self._check_goodbye()
        if self._wants_end_turn and not self._is_busy and not self._is_closed:
            self._guarded(self.end_turn)

    def congestion_changed(self, link: Link) -> None:
        was_congested = bool(self._congested)
        if link.outbox.is_congested and link.number in self._links:
            self._congested[link] = None
        else:
            self._congested.pop(link, None)
        if bool(self._congested) != was_congested:
            self.receiver.congestion_changed(not was_congested)

    def violated(self, link: Link, code: CloseCode, reason: str) -> None:
        self.violations += 1
        self._log.warning("> closed with %s: %s", code.name, reason, extra=_peer(link))

    def closed(self, link: Link, termination: Terminated) -> None:
        if self._links.pop(link.number, None) is None:
            return
        self._check_goodbye()
        left = link.outbox.withdraw(self._clock())
        if link.outbox.possibly_lost:
            self.dropped["possibly_lost"] += link.outbox.possibly_lost
        self.congestion_changed(link)
        reason = describe_end(termination)
        is_clean = termination.is_application and termination.code in (CloseCode.GOODBYE, CloseCode.REPLACED)
        self._log.info("= node %s is disconnected: %s", link.node.hex(), reason, extra=_peer(link))
        if self._is_closed:
            return
        self._feed(ConnectionClosed(link.number, reason, is_clean))
        for bundle, waits in left:
            self._send_again(link, bundle, waits)

    def _check_goodbye(self) -> None:
        if self._unanswered is not None and not any(
            link.node in self._unanswered or not link.outbox.is_empty or link.outbox.under_way
            for link in self._links.values()
        ):
            self._is_done.set()

    # --- the machine --------------------------------------------------------------------------------------------------

    def _feed(self, event: MeshInput) -> None:
        if self._is_closed:
            return
        self._inputs.append(event)
        if not self._is_busy:
            self._run([])

    def _run(self, outputs: list[MeshOutput]) -> None:
        """Perform outputs in order, and what they bring about after them."""
        self._outputs += outputs
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._outputs or self._inputs:
                if self._outputs:
                    output = self._outputs.popleft()
                    self._performers[type(output)](output)
                else:
                    self._outputs += self.mesh.handle(self._inputs.popleft(), self._clock())
        finally:
            self._is_busy = False
        if not self._wants_timer and not self._is_closed:  # Once for all that this turn brings.
            self._wants_timer = True
            asyncio.get_running_loop().call_soon(self._guarded, self._arm_timer)

    def _arm_timer(self) -> None:
        self._wants_timer = False
        if self._is_closed:
            return
        when = min(self.mesh.next_timer(), self._dialing.next_timer())
        if self._timer is not None:
            if self._timer_at <= when:
                return  # It comes too early and is set again then: dearer to move with each event.
            self._timer.cancel()
            self._timer = None
        if when < math.inf:
            self._timer_at = max(when, self._clock() + TIMER_GRANULARITY_S)
            delay = self._timer_at - self._clock()
            self._timer = asyncio.get_running_loop().call_later(delay, self._guarded, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._clock()
        self._dialing.tick(now)
        self._run(self.mesh.tick(now) if self.mesh.next_timer() <= now else [])

    def _guarded(self, action: Callable[[], None]) -> None:
        """What goes wrong outside of a connection's calls ends the broker, with its reason."""
        try:
            action()
        except Exception as error:
            if not self._failure.done():
                self._failure.set_exception(error)

    # --- outputs ------------------------------------------------------------------------------------------------------

    def _send_frame(self, output: SendFrame) -> None:
        link = self._in_use.get(output.node)
        if link is not None:
            link.send(output.frame)

    def _send_bundle(self, output: SendBundle) -> None:
        link = self._in_use.get(output.node)
        if link is None or link.is_closed:
            self._drop(output.bundle, "no_link")
            return
        for dropped in link.send_bundle(output.bundle, output.waits):
            self._drop(dropped, "link_overflow")
            if dropped.kind == KIND_DIRECT:
                self._tell_skipped(link, dropped)

    def _send_again(self, lost: Link, bundle: Bundle, waits: bool) -> None:
        """A connection was lost with a bundle that had not left; where there is another one it goes there."""
        link = self._in_use.get(lost.node)
        if link is None or link.boot != lost.boot:
            self._drop(bundle, "link_lost")
        else:
            self._run([SendBundle(lost.node, bundle, waits)])

    def _drop(self, bundle: Bundle, reason: str) -> None:
        if bundle.kind != KIND_BROADCAST:  # that one is announced, and asked for
            self.dropped[reason] += sum(peek_body(batch.body)[0] for batch in bundle.batches)

    def _tell_skipped(self, link: Link, bundle: Bundle) -> None:
        for batch in bundle.batches:
            number, messages = batch.sequence, peek_body(batch.body)[0]
            link.send(Skipped(boot=bundle.target_boot, lane=batch.lane, first=number, last=number, messages=messages))

    def _use_connection(self, output: UseConnection) -> None:
        link = self._links.get(output.connection or 0)
        if link is None:
            self._in_use.pop(output.node, None)
        else:
            self._in_use[output.node] = link

    def _close_connection(self, output: CloseConnection) -> None:
        link = self._links.get(output.connection)
        if link is not None:
            self._close_link(link, output, self._clock() + REPLACED_TIMEOUT_S)

    def _close_link(self, link: Link, output: CloseConnection, until: float) -> None:
        """Close now or, where another one with the same process is used, once what was sent on this one is taken."""
        used = self._in_use.get(link.node)
        is_replaced = used is not None and used is not link and used.boot == link.boot and not link.is_closed
        if is_replaced and link.outbox.under_way and self._clock() < until:
            asyncio.get_running_loop().call_later(REPLACED_CHECK_S, self._close_link, link, output, until)
        else:
            link.close(output.code, output.reason)

    def _deliver(self, output: Deliver) -> None:
        if not self.receiver.deliver(output):
            self._run(self.mesh.give_back(output.origin, output.batch, output.age_ms, self._clock()))

    def _member_changed(self, output: MemberChanged) -> None:
        # Who was warned of trouble hears of its end too.
        is_trouble = any(state in (State.SUSPECT, State.FAILED) for state in (output.before, output.after))
        level = self._log.warning if is_trouble else self._log.info
        level("= node %s (%s) is %s", output.name, output.node.hex(), output.after)
        self._events.member_changed(output)

    def _member_revoked(self, output: MemberRevoked) -> None:
        self._log.warning("= node %s (%s) is revoked", output.name, output.node.hex())
        self._events.member_revoked(output)

    # --- names --------------------------------------------------------------------------------------------------------

    def _dial(self, output: Dial) -> None:
        self._dialing.dial(output, self._clock())

    def _look_up(self, attempts: Attempts) -> None:
        task = asyncio.create_task(self._resolve(attempts), name=f"mesh-resolver[{self.me.hex()[:4]}]")
        self._resolving.add(task)
        task.add_done_callback(self._resolving.discard)

    async def _resolve(self, attempts: Attempts) -> None:
        found: list[Address] = []
        try:
            found = await addresses_of(attempts.dial.address)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            attempts.failed(None, f"{attempts.dial.address.rpartition(':')[0]}: {(why or str(error)).lower()}")
        if not self._is_closed:
            self._guarded(lambda: self._dialing.resolved(attempts, found))


def _peer(link: Link) -> dict[str, str]:
    return {"peer": f"{link.node.hex()}@{shown_address(link.connection.peer_address)}"}
