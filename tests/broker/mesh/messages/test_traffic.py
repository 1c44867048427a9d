"""Messages in and out of one node: direct, relayed, waiting for a connection, and what no honest node sends."""

from __future__ import annotations

import random
from zlib import crc32

from msgspec.structs import replace

from quicbus import limits
from quicbus.wire.batch import encode_body
from quicbus.wire.bundles import EVERYONE, KIND_DIRECT, KIND_RELAY, KIND_RETURNED, Bundle, BundleBatch, encode_bundle
from quicbus.wire.node_frames import Skipped
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.interest.forwarding import MeshPlan
from quicbus_broker.mesh.members.membership import Membership
from quicbus_broker.mesh.members.table import MemberTable
from quicbus_broker.mesh.messages.traffic import Publication, Traffic, Ways
from quicbus_broker.mesh.outputs import Deliver, Misbehaved, Output, Returned, SendBundle, SendFrame
from tests.broker.mesh.fake_signing import FakeSigning, node_id, sealed

ME, NODE, VIA, STRANGER = node_id(0), node_id(1), node_id(2), node_id(3)
BODY = encode_body(b"a", [b"one", b"two"], number=1)
LANE = crc32(b"a") % limits.LANES


class World:
    """One `Traffic`, and which nodes are connected or can be dialed."""

    def __init__(self) -> None:
        self.connected: dict[bytes, None] = {}
        self.dialable: dict[bytes, None] = {}
        self.wanted: list[bytes] = []
        self.signing = FakeSigning(ME)
        self.table = MemberTable()
        config = MeshConfig()
        rng = random.Random(1)
        membership = Membership(ME, self.table, self.signing, config, rng)
        membership.start("me", 10, "hybrid", (), 0.0, [])
        records = (sealed(NODE, boot=20, via=(VIA,), mode="client"), sealed(VIA, boot=30))
        membership.take(records, (), VIA, 0.0, [])
        self.neighbors: list[bytes] = []
        ways = Ways(self.connected.__contains__, self._want, lambda node, now: None, lambda: self.neighbors)
        self.traffic = Traffic(ME, 10, self.table, ways, self.signing, config, rng)

    def _want(self, node: bytes, now: float, outputs: list[Output]) -> bool:
        self.wanted.append(node)
        return node in self.dialable

    def publish(self, number: int, now: float = 0.0, node: bytes = NODE) -> list[Output]:
        outputs: list[Output] = []
        self.traffic.publish(Publication(number, "alice", b"a", BODY, MeshPlan((node,))), now, outputs)
        return outputs

    def take(self, source: bytes, bundle: Bundle) -> list[Output]:
        outputs: list[Output] = []
        self.traffic.on_bundle(source, bundle, 0.0, outputs)
        return outputs


def direct(origin: bytes = NODE, target: bytes = ME, boot: int = 10, kind: int = KIND_DIRECT, hops: int = 0) -> Bundle:
    batch = BundleBatch(1, 0, 1, 0, "alice", BODY)
    bundle = Bundle(kind, origin, 30 if origin == VIA else 20, 1, target, boot, (batch,), hops)
    signed = encode_bundle(bundle)
    return replace(bundle, signed=signed, signature=FakeSigning(origin).sign_bundle(signed))


def sent(outputs: list[Output]) -> list[tuple[bytes, int, int]]:
    bundles = [(each.node, each.bundle) for each in outputs if isinstance(each, SendBundle)]
    assert len(bundles) == len(outputs)
    return [(node, bundle.kind, bundle.batches[0].sequence) for node, bundle in bundles]


def test_a_connected_node_gets_numbered_bundles_unsigned() -> None:
    world = World()
    world.connected[NODE] = None
    first, second = world.publish(1), world.publish(2)
    assert sent(first + second) == [(NODE, KIND_DIRECT, 1), (NODE, KIND_DIRECT, 2)]
    assert isinstance(first[0], SendBundle)
    assert (first[0].bundle.target_boot, first[0].bundle.signature) == (20, b"")


def test_without_a_connection_a_node_that_has_one_passes_it_on_signed() -> None:
    world = World()
    world.connected[VIA] = None
    (output,) = world.publish(1)
    assert isinstance(output, SendBundle)
    assert (output.node, output.bundle.kind, output.bundle.target) == (VIA, KIND_RELAY, NODE)
    assert FakeSigning(ME).sign_bundle(output.bundle.signed) == output.bundle.signature


def test_without_any_way_it_waits_while_one_is_dialed() -> None:
    world = World()
    world.dialable[VIA] = None
    assert world.publish(1, now=1.0) == []
    assert world.wanted == [NODE, VIA]
    assert world.publish(2, now=2.0) == []
    world.connected[VIA] = None
    outputs: list[Output] = []
    world.traffic.connected(VIA, 3.0, outputs)
    assert sent(outputs) == [(VIA, KIND_RELAY, 1), (VIA, KIND_RELAY, 2)]
    assert [each.bundle.age_ms for each in outputs if isinstance(each, SendBundle)] == [2000, 1000]


def test_numbers_that_were_dropped_are_told_though_what_came_later_took_another_way() -> None:
    world = World()
    assert world.publish(1) == []
    world.dialable[VIA] = None
    assert world.publish(2) == []
    world.connected[VIA] = None
    outputs: list[Output] = []
    world.traffic.connected(VIA, 1.0, outputs)
    assert sent(outputs) == [(VIA, KIND_RELAY, 2)]
    world.connected[NODE] = None
    later: list[Output] = []
    world.traffic.connected(NODE, 2.0, later)
    assert later == [SendFrame(NODE, Skipped(boot=20, lane=LANE, first=1, last=1, messages=0))]


def test_what_waits_goes_before_what_comes_later() -> None:
    world = World()
    world.dialable[NODE] = None
    world.publish(1)
    world.connected[NODE] = None
    assert world.publish(2) == []
    outputs: list[Output] = []
    world.traffic.connected(NODE, 1.0, outputs)
    assert sent(outputs + world.publish(3)) == [(NODE, KIND_DIRECT, number) for number in (1, 2, 3)]


def test_a_node_that_cannot_be_reached_has_its_messages_counted_and_is_told_the_numbers_later() -> None:
    world = World()
    assert world.publish(1) == []
    assert world.traffic.dropped["unreachable"] == 2
    world.connected[NODE] = None
    outputs: list[Output] = []
    world.traffic.connected(NODE, 0.0, outputs)
    assert outputs == [SendFrame(NODE, Skipped(boot=20, lane=crc32(b"a") % limits.LANES, first=1, last=1, messages=0))]
    assert sent(world.publish(2)) == [(NODE, KIND_DIRECT, 2)]


def test_a_dial_that_takes_too_long_gives_up_what_waits() -> None:
    world = World()
    world.dialable[NODE] = None
    world.publish(1)
    world.traffic.tick(world.traffic.next_timer(), [])
    assert world.traffic.dropped["unreachable"] == 2


def test_one_that_is_no_member_is_counted() -> None:
    world = World()
    assert world.publish(1, node=STRANGER) == []
    assert world.traffic.dropped["unreachable"] == 2


def test_a_direct_bundle_is_delivered_once() -> None:
    world = World()
    (output,) = world.take(NODE, direct())
    assert isinstance(output, Deliver)
    assert (output.origin, output.boot, output.batch.body, output.hops) == (NODE, 20, BODY, 1)
    assert world.take(NODE, direct()) == []


def test_direct_bundles_of_or_for_others_are_offences() -> None:
    world = World()
    for bundle in (direct(origin=VIA), direct(target=VIA), direct(kind=KIND_RETURNED, origin=VIA)):
        (output,) = world.take(NODE, bundle)
        assert isinstance(output, Misbehaved)


def test_a_bundle_for_an_earlier_boot_of_this_node_is_dropped() -> None:
    world = World()
    assert world.take(NODE, direct(boot=9)) == []
    assert world.traffic.dropped["old_boot"] == 2


def test_a_relay_for_this_node_counts_only_with_the_signature_of_its_origin() -> None:
    world = World()
    relay = direct(kind=KIND_RELAY)
    forged = replace(relay, signature=b"x" * 16)
    unknown = direct(origin=STRANGER, kind=KIND_RELAY)
    assert [type(each) for each in world.take(VIA, forged)] == [Misbehaved]
    assert world.take(VIA, unknown) == []
    assert (world.traffic.dropped["forged"], world.traffic.dropped["unknown_origin"]) == (2, 2)
    assert [type(each) for each in world.take(VIA, relay)] == [Deliver]


def test_a_relay_of_who_is_no_member_or_of_an_earlier_boot_is_dropped() -> None:
    world = World()
    old = replace(direct(kind=KIND_RELAY), boot=19)
    signed = encode_bundle(old)
    old = replace(old, signed=signed, signature=FakeSigning(NODE).sign_bundle(signed))
    assert world.take(VIA, old) == []
    world.table.remove(NODE)
    assert world.take(VIA, direct(kind=KIND_RELAY)) == []
    assert world.traffic.dropped == {"old_boot": 2, "unknown_origin": 2}


def test_a_relay_for_another_node_is_passed_on_once_and_only_over_a_connection() -> None:
    world = World()
    relay = direct(origin=VIA, target=NODE, boot=20, kind=KIND_RELAY, hops=1)
    assert world.take(VIA, relay) == []
    assert world.traffic.dropped["no_route"] == 2
    world.connected[NODE] = None
    (output,) = world.take(VIA, relay)
    assert isinstance(output, SendBundle)
    assert (output.node, output.bundle.hops, output.bundle.signed) == (NODE, 0, relay.signed)
    assert world.take(VIA, replace(relay, hops=0)) == []


def test_where_this_node_can_dial_nobody_a_neighbor_passes_it_on() -> None:
    world = World()
    world.connected[VIA] = None
    world.neighbors = [VIA]
    Membership(ME, world.table, world.signing, MeshConfig(), random.Random(1)).take(
        (sealed(STRANGER, boot=40, mode="server"),), (), VIA, 0.0, []
    )
    (output,) = world.publish(1, node=STRANGER)
    assert isinstance(output, SendBundle)
    assert (output.node, output.bundle.kind, output.bundle.target) == (VIA, KIND_RELAY, STRANGER)


def test_who_passes_on_dials_the_target_and_tells_it_nothing_of_numbers_that_are_not_its_own() -> None:
    world = World()
    relay = direct(origin=VIA, target=NODE, boot=20, kind=KIND_RELAY, hops=1)
    world.dialable[NODE] = None
    assert world.take(VIA, relay) == []
    outputs: list[Output] = []
    world.traffic.connected(NODE, 1.0, outputs)
    (output,) = outputs
    assert isinstance(output, SendBundle)
    assert (output.node, output.bundle.hops, output.bundle.signed) == (NODE, 0, relay.signed)
    assert world.take(VIA, relay) == []
    world.traffic.unreachable(NODE)
    outputs = []
    world.traffic.connected(NODE, 9.0, outputs)
    assert outputs == []
    assert world.traffic.dropped["unreachable"] == 2


def test_a_relay_for_a_node_that_nobody_dials_goes_to_one_that_has_a_link_to_it() -> None:
    world = World()
    relay = direct(origin=VIA, target=NODE, boot=20, kind=KIND_RELAY, hops=2)
    world.signing.open_record(sealed(STRANGER, boot=40))
    world.connected[VIA] = None
    (output,) = world.take(STRANGER, relay)
    assert isinstance(output, SendBundle)
    assert (output.node, output.bundle.hops, output.bundle.signed) == (VIA, 1, relay.signed)
    assert world.take(STRANGER, replace(relay, hops=1)) == []
    assert world.traffic.dropped["no_route"] == 2


def test_broadcasts_are_numbered_without_holes_whatever_goes_directly_in_between() -> None:
    world = World()
    world.connected[NODE] = None
    world.traffic.broadcast.neighbor_up(NODE)
    numbers = []
    for number in range(1, 4):
        world.publish(2 * number)
        outputs: list[Output] = []
        world.traffic.publish(Publication(2 * number + 1, "alice", b"a", BODY, MeshPlan(is_broadcast=True)), 0.0, [])
        world.traffic.seal(0.0, outputs)
        numbers += [each.bundle.number for each in outputs if isinstance(each, SendBundle)]
    assert numbers == [1, 2, 3]


def test_a_share_comes_back_to_its_origin() -> None:
    world = World()
    outputs: list[Output] = []
    world.connected[NODE] = None
    world.traffic.send_share(Publication(1, "alice", b"a", BODY, MeshPlan()), NODE, "workers", "a", 0.0, outputs)
    share = outputs.pop()
    assert isinstance(share, SendBundle)
    (batch,) = share.bundle.batches
    returned = Bundle(KIND_RETURNED, NODE, 20, 1, ME, 0, (batch,))
    assert world.take(NODE, returned) == [Returned(NODE, batch)]
    assert world.take(NODE, returned) == []
    assert world.traffic.dropped["unknown_share"] == 2
    world.connected.clear()
    assert not world.traffic.give_back(NODE, returned.batches[0], 7, outputs)
    world.connected[NODE] = None
    assert world.traffic.give_back(NODE, returned.batches[0], 7, outputs)
    assert isinstance(outputs[0], SendBundle)
    assert (outputs[0].bundle.kind, outputs[0].bundle.age_ms) == (KIND_RETURNED, 7)


def test_a_share_that_comes_back_with_other_messages_is_an_offence() -> None:
    world = World()
    outputs: list[Output] = []
    world.connected[NODE] = None
    world.traffic.send_share(Publication(1, "alice", b"a", BODY, MeshPlan()), NODE, "workers", "a", 0.0, outputs)
    altered = BundleBatch(1, LANE, 1, 0, "alice", encode_body(b"a", [b"one", b"2"], number=1), "workers", "a")
    (offence,) = world.take(NODE, Bundle(KIND_RETURNED, NODE, 20, 1, ME, 0, (altered,)))
    assert isinstance(offence, Misbehaved)
    assert world.traffic.dropped["altered_share"] == 2


def test_a_turn_is_broadcast_as_one_bundle_under_one_signature() -> None:
    world = World()
    world.traffic.broadcast.neighbor_up(NODE)
    outputs: list[Output] = []
    plan = MeshPlan(is_broadcast=True)
    for number in range(1, 4):
        world.traffic.publish(Publication(number, "alice", b"a", BODY, plan), 0.0, outputs)
    assert outputs == []
    world.traffic.seal(0.0, outputs)
    world.traffic.seal(0.0, outputs)
    (output,) = outputs
    assert isinstance(output, SendBundle)
    assert (output.bundle.target, [batch.id for batch in output.bundle.batches]) == (EVERYONE, [1, 2, 3])
    assert FakeSigning(ME).sign_bundle(encode_bundle(output.bundle)) == output.bundle.signature


def test_large_turns_are_cut_into_bundles() -> None:
    world = World()
    world.traffic.broadcast.neighbor_up(NODE)
    outputs: list[Output] = []
    large = encode_body(b"a", [bytes(300_000)], number=1)
    for number in range(1, 4):
        publication = Publication(number, "alice", b"a", large, MeshPlan(is_broadcast=True))
        world.traffic.publish(publication, 0.0, outputs)
    world.traffic.seal(0.0, outputs)
    assert [len(each.bundle.batches) for each in outputs if isinstance(each, SendBundle)] == [2, 1]
