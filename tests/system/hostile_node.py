"""A node with a valid certificate that sends what no honest one does, over the project's own transport and links."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from quicbus.identity import Verifier
from quicbus.transport.connection import shown_address
from quicbus.transport.endpoint import Endpoint
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.wire.batch import encode_body
from quicbus.wire.bundles import EVERYONE, KIND_BROADCAST, Bundle, BundleBatch, encode_bundle
from quicbus.wire.frames import ALPN, Ping, Pong
from quicbus.wire.node_frames import MemberRecord, Neighbor, NeighborReply, Update
from quicbus_broker.mesh.session.link_dialer import LinkDialer
from quicbus_broker.mesh.session.node_signing import NodeSigning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quicbus.identity import Authority, Credential
    from quicbus.transport.connection import Connection
    from quicbus.transport.engine import Terminated
    from quicbus.wire.close_codes import CloseCode
    from quicbus.wire.frames import Frame
    from quicbus_broker import Broker
    from quicbus_broker.mesh.session.link import Link

__all__ = ["HostileNode", "Signer", "hostile_to"]

TOPIC = b"news"
MAX_HOPS = 32


class Signer:
    """What a node signs with its key, or, for somebody else, with the wrong one."""

    def __init__(self, credential: Credential, authority: Authority) -> None:
        self.node = credential.node_id
        self.name = credential.name
        verifier = Verifier(authority.certificate_pem, authority.mesh)
        self.signing = NodeSigning(lambda: credential, verifier, lambda: datetime.now(UTC))

    def broadcast(self, origin: bytes, boot: int, number: int, payload: bytes, *, target: bytes = EVERYONE) -> Bundle:
        """A bundle with one message to `TOPIC`, in the first lane."""
        return self.sealed(
            Bundle(KIND_BROADCAST, origin, boot, number, target, 0, (batch(number, payload),), hops=MAX_HOPS)
        )

    def sealed(self, bundle: Bundle) -> Bundle:
        signed = encode_bundle(bundle)
        return replace(bundle, signed=signed, signature=self.signing.sign_bundle(signed))


def batch(number: int, payload: bytes) -> BundleBatch:
    return BundleBatch(number, 0, number, 0, "nobody", encode_body(TOPIC, [payload], number=number))


class HostileNode(Signer):
    """Made by `hostile_to`. Until a test has it do otherwise it answers as a neighbour does."""

    boot = 1

    def __init__(self, credential: Credential, authority: Authority) -> None:
        super().__init__(credential, authority)
        self.me = credential.node_id
        self.frames: list[Frame] = []
        self.bundles: list[Bundle] = []
        self.termination: Terminated | None = None
        self._link: Link | None = None
        self._changed = asyncio.Event()
        self._numbers = 0

    @property
    def link(self) -> Link:
        assert self._link is not None
        return self._link

    def introduce(self, neighbor: bytes) -> None:
        """Become a member that is reached through the node at the other end, and ask that one to be a neighbour."""
        record = MemberRecord(
            node=self.me, name=self.name, boot=self.boot, incarnation=self.boot, mode="client", via=(neighbor,)
        )
        self.link.send(Update(records=(self.signing.seal_record(record),)))
        self.link.send(Neighbor(urgent=True))

    def send(self, *bundles: Bundle) -> None:
        for bundle in bundles:
            self.link.send_bundle(bundle, False)

    def send_lane(self, data: bytes) -> None:
        """Send any bytes on a stream of their own."""
        self.link.connection.send(self.link.connection.open_stream(), data)

    async def wait_link(self) -> None:
        while self._link is None:
            assert self.termination is None, self.termination
            self._changed.clear()
            await self._changed.wait()

    async def wait_frame(self, kind: type[Frame]) -> None:
        while not any(isinstance(frame, kind) for frame in self.frames):
            assert self.termination is None, self.termination
            self._changed.clear()
            await self._changed.wait()

    async def wait_closed(self) -> Terminated:
        while self.termination is None:
            self._changed.clear()
            await self._changed.wait()
        return self.termination

    # --- LinkDialerOwner and LinkOwner

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def is_refused(self, node: bytes) -> bool:
        return False

    def met_itself(self, boot: int, address: str) -> None: ...

    def frame_arrived(self, link: Link, frame: Frame) -> None:
        if isinstance(frame, Ping):
            link.send(Pong(id=frame.id))
        elif isinstance(frame, Neighbor):
            link.send(NeighborReply(granted=True))
        self.frames.append(frame)
        self._changed.set()

    def bundle_arrived(self, link: Link, bundle: Bundle) -> None:
        self.bundles.append(bundle)

    def turn_ends(self) -> None: ...

    def congestion_changed(self, link: Link) -> None: ...

    def violated(self, link: Link, code: CloseCode, reason: str) -> None: ...

    def closed(self, link: Link, termination: Terminated) -> None:
        self.termination = termination
        self._changed.set()

    # --- DialerOwner

    def is_wanted(self, dialer: LinkDialer, node: bytes) -> bool:
        return True

    def opened(self, dialer: LinkDialer, link: Link, observed: str) -> None:
        self._link = link
        self._changed.set()

    def failed(self, dialer: LinkDialer, reason: str, is_final: bool) -> None:
        raise AssertionError(reason)


@contextlib.asynccontextmanager
async def hostile_to(
    broker: Broker, authority: Authority, name: str = "mallory", credential: Credential | None = None
) -> AsyncIterator[HostileNode]:
    """A node of the mesh, unknown so far unless it has a credential, with an open link to a broker."""
    credential = credential or authority.issue_node(name)
    node = HostileNode(credential, authority)
    clock = asyncio.get_running_loop().time
    configuration = EngineConfiguration(
        is_client=True, alpn=ALPN, authority=credential.authority_pem, server_name=credential.server_name
    )

    def make(connection: Connection) -> LinkDialer:
        return LinkDialer(
            connection,
            node,
            node,
            address=shown_address(broker.address),
            name=name,
            expected=None,
            credential=lambda: credential,
            clock=clock,
        )

    async with await Endpoint.open(bind=None, engine=engine_named(broker.engine)) as endpoint:
        endpoint.dial(broker.address, configuration, make)
        await node.wait_link()
        yield node
