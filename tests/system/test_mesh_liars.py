"""A member whose frames are all well formed, and lies: about others, what it has, what it wants, what it gives back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.wire.batch import encode_body
from quicbus.wire.bundles import KIND_RETURNED, Bundle, BundleBatch
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.node_frames import (
    Claim,
    Discover,
    DiscoveryResponse,
    Graft,
    IHave,
    InterestEntry,
    InterestPiece,
    MemberRecord,
    Neighbor,
    Pause,
    PingRequest,
    Reached,
    Summary,
    Update,
)
from quicbus_broker.mesh.conduct import MAX_OFFENCES
from tests.system.buses import DEADLINE_S
from tests.system.hostile_node import TOPIC, HostileNode
from tests.system.test_mesh_hostile import NAMES, Victims, _alive, assert_thrown_out, attacked
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quicbus_broker import Broker


def wants(hostile: HostileNode, *entries: InterestEntry, version: int = 1) -> None:
    piece = InterestPiece(node=hostile.me, boot=1, base=version - 1, version=version, reset=version == 1, added=entries)
    hostile.link.send(Update(interest=(hostile.signing.seal_interest(piece),)))


def incarnation_of(victims: Victims, of: Broker) -> int:
    entry = victims.tokyo._opened_mesh.mesh._table.get(of.node_id)
    assert entry is not None
    return entry.record.incarnation


# --- about others -----------------------------------------------------------------------------------------------------


async def test_claims_without_end_break_no_link_between_honest_nodes(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        kyoto = victims.kyoto.node_id
        for _ in range(300):
            incarnation = incarnation_of(victims, victims.kyoto)
            claims = tuple(Claim(kyoto, incarnation + ahead, "failed", hostile.me) for ahead in range(20))
            hostile.link.send(Update(claims=claims))
        await eventually(lambda: victims.kyoto.statistics().mesh.refutations)
        await eventually(lambda: all(_alive(broker) == len(NAMES) + 1 for broker in victims.mesh.brokers))
        await victims.assert_unharmed()
        assert victims.kyoto.statistics().mesh.refutations <= 40
        assert [broker.statistics().mesh.links for broker in victims.mesh.brokers] == [3, 2, 2]


async def test_invented_members_are_asked_for_only_where_it_was_asked_about_them(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        invented = tuple(Summary(number.to_bytes(16, "big"), 1, "alive", 1, 9) for number in range(2_000))
        hostile.frames.clear()
        for _ in range(50):
            hostile.link.send(DiscoveryResponse(buckets=tuple(range(64)), summaries=invented, more=True))
        hostile.link.send(PingRequest(id=7, target=victims.kyoto.node_id))
        await victims.assert_unharmed()
        wanted = sum(len(frame.want) for frame in hostile.frames if isinstance(frame, Discover))
        assert wanted <= 2 * len(invented)
        assert victims.tokyo.statistics().mesh.members == {"alive": len(NAMES) + 1}


async def test_its_own_record_without_end_is_passed_on_so_often(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        for number in range(2, 302):
            moved = MemberRecord(
                node=hostile.me,
                name=hostile.name,
                boot=1,
                incarnation=number,
                mode="client",
                addresses=(f"h:{number}",),
            )
            hostile.link.send(Update(records=(hostile.signing.seal_record(moved),)))
        await eventually(lambda: victims.dropped("records_too_often") > 200)
        await victims.assert_unharmed()


# --- what it asks for -------------------------------------------------------------------------------------------------


def everything(hostile: HostileNode, number: int) -> None:
    hostile.link.send(Discover())


def everybody(hostile: HostileNode, number: int) -> None:
    hostile.link.send(Discover(want=(hostile.me,) * 1_001))


def neighbor_again(hostile: HostileNode, number: int) -> None:
    hostile.link.send(Neighbor(urgent=True))


@pytest.mark.parametrize(
    ("ask", "times"),
    [(everything, 2_000), (everybody, 8), (neighbor_again, 60)],
    ids=["everything", "everybody", "neighbor"],
)
async def test_asking_without_end_costs_the_link(
    ask: Callable[[HostileNode, int], None], times: int, tmp_path: Path
) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        for number in range(times):
            ask(hostile, number)
        termination = await hostile.wait_closed()
        assert termination.code == CloseCode.PROTOCOL_VIOLATION
        await victims.assert_unharmed()


async def test_pings_announcements_and_grafts_without_end_harm_nobody(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        for number in range(1, 301):
            hostile.link.send(PingRequest(id=number, target=victims.kyoto.node_id))
            ids = tuple((victims.kyoto.node_id, 1 << 60, 100 * number + each) for each in range(100))
            hostile.link.send(IHave(bundles=ids))
            hostile.link.send(Graft(bundles=ids))
        await eventually(lambda: victims.dropped("too_many_missing") > 10_000)
        await victims.assert_unharmed()


async def test_who_says_twice_where_a_node_was_reached_loses_the_link(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        hostile.link.send(Reached(address="192.0.2.66:4433"))
        termination = await hostile.wait_closed()
        assert termination.code == CloseCode.PROTOCOL_VIOLATION
        assert all(
            "192.0.2.66" not in address for each in await victims.osaka.bus.peers() for address in each.addresses
        )
        await victims.assert_unharmed()


# --- back-pressure and groups -----------------------------------------------------------------------------------------


async def test_a_pause_of_a_node_without_such_subscribers_holds_nobody(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        for filter in (TOPIC.decode(), "#", "", "a/#/b"):
            hostile.link.send(Pause(filter=filter))
        await eventually(lambda: victims.dropped("pause_without_interest") == 4)
        await victims.assert_unharmed()


async def test_a_share_that_a_node_never_got_cannot_be_given_back(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        workers = await victims.tokyo.bus.subscribe("jobs", group="workers")
        body = encode_body(b"jobs", [b"invented"], number=1)
        share = BundleBatch(1, 0, 1, 0, "alice", body, "workers", "jobs")
        hostile.send(Bundle(KIND_RETURNED, hostile.me, 1, 1, victims.tokyo.node_id, 0, (share,)))
        await eventually(lambda: victims.dropped("unknown_share") == 1)
        await victims.tokyo.bus.publish("jobs", b"real")
        assert (await workers.next(DEADLINE_S)).payload == b"real"
        assert workers.pending == 0
        await victims.assert_unharmed()


async def test_a_share_that_comes_back_otherwise_is_an_offence_and_what_was_sent_goes_on(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        wants(hostile, InterestEntry("jobs", "workers"))
        mesh = victims.tokyo._opened_mesh.mesh
        await eventually(lambda: not mesh.plan(b"jobs", ()).is_empty)
        await victims.tokyo.bus.publish("jobs", b"real")
        await eventually(lambda: bool(hostile.bundles))
        (share,) = hostile.bundles[0].batches
        altered = BundleBatch(
            share.id, 0, 1, 0, share.publisher, encode_body(b"jobs", [b"fake"], number=1), "workers", "jobs"
        )
        workers = await victims.tokyo.bus.subscribe("jobs", group="workers")
        for batch in (altered, share, share):
            hostile.send(Bundle(KIND_RETURNED, hostile.me, 1, 1, victims.tokyo.node_id, 0, (batch,)))
        assert (await workers.next(DEADLINE_S)).payload == b"real"
        await eventually(lambda: victims.dropped("unknown_share") == 1)
        assert workers.pending == 0
        assert (victims.dropped("altered_share"), victims.dropped("misbehaved")) == (1, 1)
        await victims.assert_unharmed()


async def test_interest_beyond_all_bounds_costs_the_link_of_who_says_it_and_is_not_passed_on(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (victims, hostile):
        count = limits.MAX_INTEREST_SIZE // (3 * 60_000)
        for version in (*range(1, count + 1), *[count + 1] * MAX_OFFENCES):
            entries = [InterestEntry(f"{version}/{number}/" + "x" * 60_000) for number in range(3)]
            wants(hostile, *entries, version=version)
        await assert_thrown_out(hostile, "wants more than")
        assert victims.dropped("interest_too_large")
        assert victims.kyoto.statistics().mesh.dropped == {}
        await victims.assert_unharmed()
