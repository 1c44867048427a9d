"""What members of the mesh say: signed records and interest, and the whole machine of a node between two others."""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import msgspec

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import encode_body
from quicbus.wire.bundles import (
    EVERYONE,
    KIND_BROADCAST,
    KIND_DIRECT,
    KIND_RETURNED,
    Bundle,
    BundleBatch,
    decode_bundle,
)
from quicbus.wire.frames import FrameParser, Trust, encode_frame
from quicbus.wire.node_frames import (
    NODE_FRAME_TYPES,
    Claim,
    DiscoveryResponse,
    Graft,
    Head,
    IHave,
    InterestEntry,
    InterestPiece,
    MemberRecord,
    Neighbor,
    Pause,
    PingRequest,
    Signed,
    Skipped,
    TrustVersion,
    Update,
)
from quicbus_broker.edge import Exchange
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.outputs import (
    BundleArrived,
    ConnectionClosed,
    ConnectionOpened,
    Deliver,
    FrameArrived,
    PauseChanged,
    Returned,
)
from quicbus_broker.mesh.session.node_signing import NodeSigning
from quicbus_broker.mesh.signing import Forged
from quicbus_broker.mesh.state import Mesh, Publication
from quicbus_broker.routing import Router
from tests.fuzz import samples
from tests.fuzz.target import Target, join, parts
from tests.fuzz.targets.identity import verifier
from tests.fuzz.targets.wire import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from quicbus.wire.frames import Frame
    from quicbus_broker.mesh.outputs import MeshInput, MeshOutput

__all__ = ["TARGETS", "direct_record"]

ME, OSLO, TOKYO = (bytes([number]) * 16 for number in (1, 2, 3))
FRAMES, BUNDLE, RECORD, INTEREST, PASS_TIME, PUBLISH, RECONNECT = range(7)
"""What a piece of an input does, by its first byte; an odd number in the next one means tokyo, an even one oslo."""
_encode = msgspec.msgpack.Encoder().encode
_T = TypeVar("_T", MemberRecord, InterestPiece)


# --- what is signed ---------------------------------------------------------------------------------------------------


@cache
def _signing() -> NodeSigning:
    return NodeSigning(samples.node, verifier(), lambda: samples.NOW)


def member_records(data: bytes) -> None:
    signature, payload = _two(data)
    opened = _signing().open_record(Signed(payload, signature))
    assert opened.node == samples.node().node_id


def interest_pieces(data: bytes) -> None:
    signature, payload = _two(data)
    _signing().open_record(_sealed_record())
    opened = _signing().open_interest(Signed(payload, signature))
    assert opened.node == samples.node().node_id


def _two(data: bytes) -> tuple[bytes, bytes]:
    first, second, *_ = [*parts(data), b"", b""]
    return first, second


@cache
def _sealed_record() -> Signed:
    member = MemberRecord(
        node=samples.node().node_id, name="oslo", boot=1, incarnation=1, mode="hybrid", addresses=("h:1",)
    )
    return _signing().seal_record(member)


def _record_seeds() -> Iterable[bytes]:
    sealed = _sealed_record()
    yield join(sealed.signature, sealed.payload)
    yield join(sealed.signature, _encode(MemberRecord(node=OSLO, name="x", boot=1, incarnation=1, mode="hybrid")))


def _piece_seeds() -> Iterable[bytes]:
    piece = InterestPiece(node=samples.node().node_id, boot=1, base=0, version=1, added=(InterestEntry("a/#", "g"),))
    sealed = _signing().seal_interest(piece)
    yield join(sealed.signature, sealed.payload)
    yield join(sealed.signature, _encode(_interest(OSLO)))


# --- the machine ------------------------------------------------------------------------------------------------------


class _Lenient:
    """`Signing` that takes everything whose signature does not begin with a zero: to come behind the signatures."""

    def __init__(self) -> None:
        self._known: dict[bytes, None] = {}

    def seal_record(self, record: MemberRecord) -> Signed:
        return Signed(_encode(record), b"s")

    def open_record(self, signed: Signed) -> MemberRecord:
        opened = self._open(signed, MemberRecord)
        self._known[opened.node] = None
        return opened

    def seal_interest(self, piece: InterestPiece) -> Signed:
        return Signed(_encode(piece), b"s")

    def open_interest(self, signed: Signed) -> InterestPiece:
        return self._open(signed, InterestPiece)

    def sign_bundle(self, signed: bytes) -> bytes:
        return b"s"

    def check_bundle(self, origin: bytes, signed: bytes, signature: bytes) -> bool:
        return signature[:1] not in (b"", b"\x00")

    def knows(self, node: bytes) -> bool:
        return node in self._known

    def _open(self, signed: Signed, kind: type[_T]) -> _T:
        if signed.signature[:1] in (b"", b"\x00"):
            raise Forged("not signed")
        try:
            return msgspec.msgpack.decode(signed.payload, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Forged(str(error)) from None


class _Keeper:
    """A trust list of one byte for its version, and the ids that it revokes."""

    def __init__(self) -> None:
        self.version = 0
        self.signed = b""

    def take(self, signed: bytes) -> bool:
        if len(signed) < 1 or len(signed) % 16 != 1:
            raise Forged("not a list")
        if signed[0] <= self.version:
            return False
        self.version, self.signed = signed[0], signed
        return True

    def is_revoked(self, node: bytes) -> bool:
        return node in [self.signed[start : start + 16] for start in range(1, len(self.signed), 16)]


class _Node:
    """A node that has joined, with links to oslo and tokyo, and the exchange of its edge."""

    def __init__(self) -> None:
        self.now = 100.0
        self.mesh = Mesh(
            me=ME,
            name="me",
            boot=1,
            mode="hybrid",
            signing=_Lenient(),
            config=MeshConfig(),
            rng=random.Random(1),
            trust=_Keeper(),
        )
        self.exchange = Exchange(Router(block_timeout_s=30.0), origin=ME, boot=1, clock=lambda: self.now)
        self.connections = {OSLO: 1, TOKYO: 2}
        self.perform(self.mesh.start(addresses=(), seeds=(), remembered=(), now=self.now))
        for node in (OSLO, TOKYO):
            self.connect(node)
            self.frame(node, Update(records=(_member(node),)))
            self.frame(node, Neighbor(urgent=True))
        self.perform(self.mesh.end_turn(self.now))

    def connect(self, node: bytes) -> None:
        self.feed(ConnectionOpened(self.connections[node], node, 1, False, "h:1"))

    def frame(self, node: bytes, frame: Frame) -> None:
        self.feed(FrameArrived(self.connections[node], frame))

    def feed(self, event: MeshInput) -> None:
        self.perform(self.mesh.handle(event, self.now))

    def perform(self, outputs: Sequence[MeshOutput]) -> None:
        for output in outputs:
            match output:
                case Deliver(origin=origin, boot=boot, batch=batch, age_ms=age_ms):
                    self.exchange.take_remote(
                        *(origin, boot, batch.id, batch.first, batch.publisher, batch.body, age_ms),
                        *(batch.group, batch.filter),
                    )
                case Returned(node=node, batch=batch, age_ms=age_ms):
                    self.exchange.returned(
                        *(node, batch.id, batch.first, batch.publisher, batch.body, age_ms),
                        *(batch.group, batch.filter),
                    )
                case PauseChanged(node=node, filter=filter, is_paused=True):
                    self.exchange.hold(node, filter)
                case PauseChanged(node=node, filter=filter):
                    self.exchange.release(node, filter)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.mesh.next_timer()) <= end:
            self.now = max(self.now, due)
            self.perform(self.mesh.tick(self.now))
        self.now = end


def mesh_machine(data: bytes) -> None:
    """Frames, bundles, time: whatever two members send, nothing is raised, and the node goes on."""
    node = _Node()
    for piece in list(parts(data))[:32]:
        try:
            _act(node, piece)
        except ProtocolViolation:
            continue
    node.mesh.members()
    node.mesh.statistics()
    node.pass_time(60.0)


def _act(node: _Node, piece: bytes) -> None:
    if len(piece) < 2:
        return
    peer, data = (TOKYO if piece[1] & 1 else OSLO), piece[2:]
    kind = piece[0] % 7
    if kind == FRAMES:
        parser = FrameParser(limits.MAX_CONTROL_FRAME_SIZE, NODE_FRAME_TYPES)
        for frame in parser.feed(data):
            node.frame(peer, frame)
    elif kind == BUNDLE and data:
        node.feed(BundleArrived(node.connections[peer], decode_bundle(3 + data[0] % 4, data[1:])))
    elif kind == RECORD:
        node.frame(peer, Update(records=(Signed(data, b"s"),)))
    elif kind == INTEREST:
        node.frame(peer, Update(interest=(Signed(data, b"s"),)))
    elif kind == PASS_TIME:
        node.pass_time(piece[1] / 10)
    elif kind == PUBLISH:
        publication = Publication(1, "alice", b"a", encode_body(b"a", [b"x"], number=1), node.mesh.plan(b"a", ()))
        node.perform(node.mesh.publish(publication, node.now))
        node.perform(node.mesh.end_turn(node.now))
    elif kind == RECONNECT:
        node.feed(ConnectionClosed(node.connections[peer], "reset", False))
        node.connections[peer] += 2
        node.connect(peer)


def _member(node: bytes, **fields: object) -> Signed:
    values = {"name": "n", "boot": 1, "incarnation": 1, "mode": "hybrid", "addresses": ("h:1",)} | fields
    return Signed(_encode(MemberRecord(node=node, **values)), b"s")  # type: ignore[arg-type]


def _interest(node: bytes) -> InterestPiece:
    return InterestPiece(node=node, boot=1, base=0, version=1, reset=True, added=(InterestEntry("a", "", True),))


def _machine_seeds() -> Iterable[bytes]:
    interest = bytes([INTEREST, 0]) + _encode(_interest(OSLO))
    publish, later = bytes([PUBLISH, 0]), bytes([PASS_TIME, 40])
    for frame in samples.node_frames():
        yield join(_frames(frame), later)
    yield join(bytes([RECORD, 0]) + _member(OSLO, incarnation=2).payload, interest, publish, later)
    yield join(_frames(Update(claims=(Claim(TOKYO, 1, "suspect", OSLO), Claim(ME, 1, "failed", OSLO)))), later)
    yield join(_frames(Update(claims=(Claim(TOKYO, 1, "failed", OSLO),))), bytes([RECONNECT, 1]), later)
    yield join(interest, _frames(Pause(filter="a")), publish, bytes([RECONNECT, 0]), later)
    yield join(_frames(IHave(bundles=((TOKYO, 1, 1),))), later, _bundle(KIND_BROADCAST, TOKYO, EVERYONE, 0), later)
    yield join(_frames(Graft(bundles=((ME, 1, 1),)), PingRequest(id=1, target=TOKYO)), publish)
    yield join(_frames(Skipped(boot=1, lane=0, first=1, last=9, messages=1)), _bundle(KIND_DIRECT, OSLO, ME, 1), later)
    yield join(_bundle(KIND_RETURNED, OSLO, ME, 0, "g"), _bundle(KIND_DIRECT, OSLO, ME, 1, "g"))
    yield join(_frames(Trust(signed=b"\x05" + TOKYO)), later, _frames(Trust(signed=b"\x06" + ME)), publish)
    yield join(_frames(TrustVersion(version=9), TrustVersion(version=0)), later)
    grouped = _encode(InterestPiece(node=OSLO, boot=1, base=0, version=1, reset=True, added=(InterestEntry("a", "g"),)))
    yield join(bytes([INTEREST, 0]) + grouped, publish, *[_bundle(KIND_RETURNED, OSLO, ME, 0, "g", "alice")] * 2)
    yield join(later, later, later, later, _frames(DiscoveryResponse(buckets=(-1, 64))), later)
    yield join(_frames(DiscoveryResponse(heads=(Head(TOKYO, 9, 9, (1, 2)),), records=(_member(bytes(16)),))), later)


def _frames(*frames: Frame) -> bytes:
    return bytes([FRAMES, 0]) + b"".join(map(encode_frame, frames))


def _bundle(
    kind: int, origin: bytes, target: bytes, target_boot: int, group: str = "", publisher: str = "bob"
) -> bytes:
    return bytes([BUNDLE, 0, kind - 3]) + _record(kind, origin, target, target_boot, group, publisher)[5:]


def direct_record() -> bytes:
    """Return a bundle as it stands on a lane."""
    return _record(KIND_DIRECT, OSLO, ME, 1, "")


def _record(kind: int, origin: bytes, target: bytes, target_boot: int, group: str, publisher: str = "bob") -> bytes:
    body = encode_body(b"a", [b"x"], number=1)
    batch = BundleBatch(1, 0, 2, 0, publisher, body, group, "a" if group else "", after=((EVERYONE, 0, 1),))
    return record(Bundle(kind, origin, 1, 1, target, target_boot, (batch,), 3, 0, b"", b"s"))


TARGETS = (
    Target("member_records", member_records, _record_seeds, (Forged,)),
    Target("interest_pieces", interest_pieces, _piece_seeds, (Forged,)),
    Target("mesh_machine", mesh_machine, _machine_seeds, max_size=4096),
)
