"""A member of the mesh that lies: what it sends is dropped and counted, it loses its link, and the others go on."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from quicbus import limits
from quicbus.wire.bundles import KIND_DIRECT, KIND_RELAY, KIND_RETURNED, Bundle
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import STREAM_TYPE_CONTROL, STREAM_TYPE_LANE, Ping
from quicbus.wire.node_frames import (
    Claim,
    Discover,
    InterestEntry,
    InterestPiece,
    MemberRecord,
    Prune,
    Signed,
    Update,
)
from quicbus_broker.mesh.conduct import MAX_OFFENCES
from quicbus_broker.mesh.messages.broadcast import MAX_COPIES
from tests.system.brokers import brokers_of
from tests.system.buses import DEADLINE_S
from tests.system.hostile_node import TOPIC, HostileNode, Signer, batch, hostile_to
from tests.waiting import eventually, eventually_told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import quicbus
    from quicbus import Peer
    from quicbus_broker import Broker
    from tests.system.brokers import MeshOfBrokers

NAMES = ("tokyo", "osaka", "kyoto")


class Victims:
    """Three honest brokers. The first one has the link to the hostile node; subscribers are at it and at the third."""

    def __init__(
        self, mesh: MeshOfBrokers, publisher: quicbus.Client, subscriptions: list[quicbus.Subscription]
    ) -> None:
        self.mesh = mesh
        self.tokyo, self.osaka, self.kyoto = mesh.brokers
        self.publisher = publisher
        self._subscriptions = subscriptions
        self._published = 0

    def dropped(self, reason: str) -> int:
        return self.tokyo.statistics().mesh.dropped.get(reason, 0)

    def signer(self, broker: Broker) -> Signer:
        """The key of an honest node, as it signs."""
        return Signer(broker._opened_identity.credential, self.mesh.authority)

    def boot(self, broker: Broker) -> int:
        return broker._opened_identity.boot

    async def assert_unharmed(self, *first: bytes) -> None:
        """What is published comes to all, once and in order; before it nothing but `first` has come."""
        for _ in range(50):
            await self.publisher.publish(TOPIC.decode(), b"%d" % self._published)
            self._published += 1
        wanted = [*first, *(b"%d" % number for number in range(self._published - 50, self._published))]
        for messages in self._subscriptions:
            assert [(await messages.next(DEADLINE_S)).payload for _ in wanted] == wanted
            assert messages.pending == 0
        for broker in self.mesh.brokers:
            statistics = broker.statistics()
            assert statistics.books.balance == 0
            assert statistics.transport.handler_errors == 0
            # Whoever is suspected refutes, and the news takes its way: on a busy machine claims are still being read.
            await eventually_told(broker.bus.peers, _are_honest_alive)


@contextlib.asynccontextmanager
async def attacked(folder: Path) -> AsyncIterator[tuple[Victims, HostileNode]]:
    async with brokers_of(folder, *NAMES) as mesh:
        at_tokyo, publisher, at_kyoto = await mesh.clients()
        subscriptions = [await bus.subscribe(TOPIC.decode(), max_pending=1_000) for bus in (at_tokyo, at_kyoto)]
        await asyncio.gather(*(messages.wait_spread() for messages in subscriptions))
        victims = Victims(mesh, publisher, subscriptions)
        await victims.assert_unharmed()
        async with hostile_to(mesh.brokers[0], mesh.authority) as hostile:
            hostile.introduce(mesh.brokers[0].node_id)
            await eventually(lambda: all(_alive(broker) == len(NAMES) + 1 for broker in mesh.brokers))
            yield victims, hostile


def _are_honest_alive(peers: list[Peer]) -> bool:
    return [peer.state for peer in peers if peer.name in NAMES] == ["alive"] * len(NAMES)


def _alive(broker: Broker) -> int:
    return broker.statistics().mesh.members.get("alive", 0)


async def assert_thrown_out(hostile: HostileNode, why: str) -> None:
    termination = await hostile.wait_closed()
    assert termination.code == CloseCode.PROTOCOL_VIOLATION
    assert why in termination.reason


# --- bundles ----------------------------------------------------------------------------------------------------------


def forged(victims: Victims, hostile: HostileNode, number: int) -> Bundle:
    """It says that it is osaka's, and is signed by somebody else."""
    return hostile.broadcast(victims.osaka.node_id, 1, number, b"forged")


def altered(victims: Victims, hostile: HostileNode, number: int) -> Bundle:
    """Osaka's own, with another message in it."""
    genuine = victims.signer(victims.osaka).broadcast(victims.osaka.node_id, 1, number, b"original")
    return replace(
        genuine, batches=(batch(number, b"altered!"),), signed=genuine.signed.replace(b"original", b"altered!")
    )


def forged_relay(victims: Victims, hostile: HostileNode, number: int) -> Bundle:
    """As if osaka had sent it to tokyo through the hostile node."""
    batches = (batch(number, b"forged"),)
    osaka, tokyo = victims.osaka.node_id, victims.tokyo.node_id
    return hostile.sealed(Bundle(KIND_RELAY, osaka, 1, number, tokyo, 1, batches, hops=1))


def misaddressed(victims: Victims, hostile: HostileNode, number: int) -> Bundle:
    """A broadcast for one node."""
    return hostile.broadcast(hostile.me, 1, number, b"misaddressed", target=victims.tokyo.node_id)


def direct_of_another(victims: Victims, hostile: HostileNode, number: int) -> Bundle:
    """Direct bundles bear no signature: who sends them is who they are from."""
    osaka, tokyo = victims.osaka.node_id, victims.tokyo.node_id
    return Bundle(KIND_DIRECT, osaka, 1, number, tokyo, 1, (batch(number, b"forged"),))


def returned_of_another(victims: Victims, hostile: HostileNode, number: int) -> Bundle:
    osaka, tokyo = victims.osaka.node_id, victims.tokyo.node_id
    return Bundle(KIND_RETURNED, osaka, 1, number, tokyo, 1, (batch(number, b"forged"),))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (forged, "forged"),
        (altered, "forged"),
        (forged_relay, "forged"),
        (misaddressed, "misaddressed"),
        (direct_of_another, "misbehaved"),
        (returned_of_another, "misbehaved"),
    ],
)
async def test_bundles_that_are_not_genuine_are_dropped_and_cost_the_link(
    make: Callable[[Victims, HostileNode, int], Bundle], reason: str, tmp_path: Path
) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        hostile.send(*(make(victims, hostile, number) for number in range(1, MAX_OFFENCES)))
        await eventually(lambda: victims.dropped(reason) == MAX_OFFENCES - 1)
        assert hostile.termination is None
        hostile.send(make(victims, hostile, MAX_OFFENCES))
        await assert_thrown_out(hostile, "no honest node sends")
        assert victims.dropped(reason) == MAX_OFFENCES
        # Nothing of it was passed on.
        assert victims.kyoto.statistics().mesh.dropped == {}
        await victims.assert_unharmed()


async def test_a_bundle_that_is_sent_again_and_again_is_delivered_once_and_costs_the_link(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        genuine = hostile.broadcast(hostile.me, hostile.boot, 1, b"hostile, and genuine")
        hostile.send(*([genuine] * (1 + MAX_COPIES)))
        await eventually(lambda: victims.kyoto.statistics().mesh.received == 1)
        hostile.send(*([genuine] * MAX_OFFENCES))
        await assert_thrown_out(hostile, "replayed")
        assert victims.tokyo.statistics().mesh.duplicates >= MAX_OFFENCES
        await victims.assert_unharmed(b"hostile, and genuine")


async def test_bundles_of_a_boot_that_is_over_are_not_delivered(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        osaka = victims.signer(victims.osaka)
        boot = victims.boot(victims.osaka)
        hostile.send(osaka.broadcast(osaka.node, boot, 1, b"of this boot"))
        await eventually(lambda: victims.kyoto.statistics().mesh.received == 1)
        hostile.send(*(osaka.broadcast(osaka.node, boot - 1, number, b"replayed") for number in range(1, 21)))
        await eventually(lambda: victims.dropped("old_boot") == 20)
        await victims.assert_unharmed(b"of this boot")


# --- what it says about nodes -----------------------------------------------------------------------------------------


def leave_of_another(victims: Victims, hostile: HostileNode) -> Update:
    osaka = MemberRecord(
        node=victims.osaka.node_id, name="osaka", boot=1 << 60, incarnation=1 << 60, mode="hybrid", left=True
    )
    return Update(records=(hostile.signing.seal_record(osaka),))


def unreadable_record(victims: Victims, hostile: HostileNode) -> Update:
    return Update(records=(Signed(b"\xff" * 100, b"\x00" * 70),))


def another_name(victims: Victims, hostile: HostileNode) -> Update:
    mine = MemberRecord(node=hostile.me, name="osaka", boot=1, incarnation=1 << 40, mode="hybrid")
    return Update(records=(hostile.signing.seal_record(mine),))


def interest_of_another(victims: Victims, hostile: HostileNode) -> Update:
    wanted = InterestPiece(
        node=victims.osaka.node_id,
        boot=victims.boot(victims.osaka),
        base=0,
        version=1 << 40,
        reset=True,
        added=(InterestEntry("#"),),
    )
    return Update(interest=(hostile.signing.seal_interest(wanted),))


@pytest.mark.parametrize("make", [leave_of_another, unreadable_record, another_name, interest_of_another])
async def test_what_is_not_signed_by_whom_it_is_about_is_ignored_and_costs_the_link(
    make: Callable[[Victims, HostileNode], Update], tmp_path: Path
) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        for _ in range(MAX_OFFENCES):
            hostile.link.send(make(victims, hostile))
        await assert_thrown_out(hostile, "no honest node sends")
        assert victims.dropped("misbehaved") == MAX_OFFENCES
        await victims.assert_unharmed()


async def test_claims_that_a_node_has_failed_are_refuted_by_it(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        mesh = victims.tokyo._opened_mesh.mesh
        entry = mesh._table.get(victims.kyoto.node_id)
        assert entry is not None
        incarnation = entry.record.incarnation
        hostile.link.send(Update(claims=(Claim(victims.kyoto.node_id, incarnation, "failed", hostile.me),)))
        await eventually(lambda: victims.kyoto.statistics().mesh.refutations == 1)
        await eventually(lambda: all(_alive(broker) == len(NAMES) + 1 for broker in victims.mesh.brokers))
        await victims.assert_unharmed()


# --- bytes ------------------------------------------------------------------------------------------------------------


def oversize_record(hostile: HostileNode) -> None:
    hostile.send_lane(
        bytes((STREAM_TYPE_LANE,)) + struct.pack("<IB", limits.MAX_BUNDLE_SIZE + 1, 0x03) + bytes(1_000_000)
    )


def truncated_bundle(hostile: HostileNode) -> None:
    hostile.send_lane(bytes((STREAM_TYPE_LANE,)) + struct.pack("<IB", 21, 0x03) + bytes(20))


def second_control_stream(hostile: HostileNode) -> None:
    hostile.send_lane(bytes((STREAM_TYPE_CONTROL,)))


def garbage_frames(hostile: HostileNode) -> None:
    hostile.link.connection.send(hostile.link._control._stream_id, b"\x22\x05\xc1\xc1\xc1\xc1\xc1")


def too_many_lanes(hostile: HostileNode) -> None:
    for _ in range(limits.LANES + 1):
        hostile.send_lane(bytes((STREAM_TYPE_LANE,)))


@pytest.mark.parametrize(
    "send", [oversize_record, truncated_bundle, second_control_stream, garbage_frames, too_many_lanes]
)
async def test_what_is_no_protocol_costs_the_link_at_once(send: Callable[[HostileNode], None], tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        send(hostile)
        termination = await hostile.wait_closed()
        assert termination.code == CloseCode.PROTOCOL_VIOLATION
        assert victims.tokyo._opened_mesh.driver.violations == 1
        await victims.assert_unharmed()


# --- floods -----------------------------------------------------------------------------------------------------------


async def test_a_flood_of_what_is_allowed_harms_nobody(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        for number in range(20_000):
            hostile.link.send(Ping(id=number))
        for _ in range(1_000):
            hostile.link.send(Discover())
            hostile.link.send(Prune())
        hostile.send(*(hostile.broadcast(hostile.me, 1, 2 * number, b"") for number in range(1, 500)))
        await victims.assert_unharmed()


async def test_a_node_that_wants_everything_and_takes_nothing_costs_the_others_nothing(tmp_path: Path) -> None:
    count = (limits.LINK_WINDOW + limits.LINK_QUEUE_SIZE) // limits.MAX_MESSAGE_SIZE + 20
    async with attacked(tmp_path) as (victims, hostile):
        hostile.link._report_taken = lambda: None  # type: ignore[method-assign]
        wanted = InterestPiece(
            node=hostile.me, boot=hostile.boot, base=0, version=1, reset=True, added=(InterestEntry("large"),)
        )
        hostile.link.send(Update(interest=(hostile.signing.seal_interest(wanted),)))
        mesh = victims.osaka._opened_mesh.mesh
        await eventually(lambda: not mesh.plan(b"large", ()).is_empty)
        for _ in range(count):
            await victims.tokyo.bus.publish("large", bytes(limits.MAX_MESSAGE_SIZE))
        await eventually(lambda: victims.dropped("link_overflow"))
        await victims.assert_unharmed()
