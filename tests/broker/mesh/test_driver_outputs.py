"""What a driver does with what its machine wants done."""

from __future__ import annotations

import pytest

from quicbus import limits
from quicbus.wire.batch import encode_body
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Ping
from quicbus.wire.node_frames import Prune, Reached, Skipped
from quicbus_broker.mesh.outputs import (
    BundleArrived,
    CloseConnection,
    ConnectionClosed,
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
from tests.broker.mesh.driven import Network, perform, settled, started
from tests.broker.mesh.linked import direct


async def test_frames_and_bundles_reach_the_other_machine(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        bundle = direct(1)
        perform(oslo, SendFrame(tokyo.mesh.me, Ping(id=7)), SendBundle(tokyo.mesh.me, bundle))
        await settled()

        assert tokyo.mesh.of(FrameArrived) == [FrameArrived(1, Ping(id=7))]
        (arrived,) = tokyo.mesh.of(BundleArrived)
        assert arrived.bundle.batches == bundle.batches


async def test_what_is_for_a_node_without_a_connection_is_dropped_and_counted(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        body = encode_body(b"t", [b"1", b"2"], number=1)
        perform(oslo, SendFrame(bytes(16), Ping(id=7)), SendBundle(bytes(16), direct(1, body)))

        assert oslo.driver.dropped == {"no_link": 2}


async def test_what_overflows_is_counted_and_told_to_the_receiver(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        (link,) = oslo.driver.links
        monkeypatch.setattr(link.outbox, "_queue_size", 1000)
        body = encode_body(b"t", [bytes(300), bytes(300)], number=1)
        perform(oslo, *(SendBundle(tokyo.mesh.me, direct(sequence, body, lane=4)) for sequence in (1, 2, 3)))
        await settled()

        assert oslo.driver.dropped == {"link_overflow": 4}
        skips = [event.frame for event in tokyo.mesh.of(FrameArrived)]
        assert skips == [Skipped(boot=2, lane=4, first=number, last=number, messages=2) for number in (1, 2)]


async def test_congestion_is_told_once_for_all_links(network: Network) -> None:
    async with started(network, "oslo", "tokyo", "lima") as (oslo, tokyo, lima):
        perform(oslo, Dial("tokyo:1", None), Dial("lima:1", None))
        await settled()
        body = bytes(limits.LINK_WINDOW)

        perform(oslo, *(SendBundle(node.mesh.me, direct(1, body), True) for node in (tokyo, lima)))
        assert oslo.told.calls == [("congestion", True)]
        await settled()

        assert oslo.told.calls == [("congestion", True), ("congestion", False)]


async def test_the_peer_of_a_connection_that_is_closed_hears_why(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        perform(oslo, CloseConnection(1, CloseCode.REPLACED, "there is another one"))
        await settled()

        assert oslo.mesh.of(ConnectionClosed) == [ConnectionClosed(1, "there is another one", True)]
        assert tokyo.mesh.of(ConnectionClosed) == [ConnectionClosed(1, "there is another one", True)]


async def test_a_connection_that_breaks_is_not_clean(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, _):
        network.pipes[0].break_off("no sign of life")
        await settled()

        assert oslo.mesh.of(ConnectionClosed) == [ConnectionClosed(1, "no sign of life", False)]


async def test_what_a_lost_connection_had_not_sent_goes_over_the_other_one(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        perform(oslo, Dial("tokyo:1", None))
        await settled()
        network.pipes[1].silent = True
        perform(oslo, SendBundle(tokyo.mesh.me, direct(3)))
        oslo.mesh.answer = lambda event: (
            [UseConnection(tokyo.mesh.me, 1)] if isinstance(event, ConnectionClosed) else []
        )
        network.pipes[1].silent = False
        network.pipes[1].break_off("no sign of life")
        await settled()

        assert [event.bundle.number for event in tokyo.mesh.of(BundleArrived)] == [3]
        assert not oslo.driver.dropped


async def test_what_a_lost_connection_had_not_sent_is_counted_where_there_is_no_other(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        oslo.mesh.answer = lambda event: (
            [UseConnection(tokyo.mesh.me, None)] if isinstance(event, ConnectionClosed) else []
        )
        network.pipes[0].silent = True
        perform(oslo, SendBundle(tokyo.mesh.me, direct(3, encode_body(b"t", [b"1"], number=1))))
        network.pipes[0].silent = False
        network.pipes[0].break_off("no sign of life")
        await settled()

        assert oslo.driver.dropped == {"link_lost": 1}


async def test_the_rest_of_the_broker_is_told(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        node, batch = bytes(16), direct(1).batches[0]
        deliver = Deliver(node, 1, batch, 0, 1)
        change = MemberChanged(node, "tokyo", None, State.ALIVE)
        perform(
            oslo,
            deliver,
            Returned(node, batch),
            PauseChanged(node, "a/#", True),
            SpreadReached(3),
            Superseded(9, ("a:1",)),
            change,
            revoked := MemberRevoked(node, "tokyo"),
            TrustLearned(b"list"),
            SelfRevoked(),
        )

        assert oslo.told.calls == [
            ("deliver", deliver),
            ("returned", node, batch),
            ("pause", node, "a/#", True),
            ("spread", 3),
            ("superseded", 9, ("a:1",)),
            ("member", change),
            ("revoked", revoked),
            ("trust", b"list"),
            ("self revoked",),
        ]


@pytest.mark.parametrize(
    ("before", "after", "level"),
    [
        (None, State.ALIVE, "INFO"),
        (State.ALIVE, State.SUSPECT, "WARNING"),
        (State.SUSPECT, State.FAILED, "WARNING"),
        (State.FAILED, State.ALIVE, "WARNING"),
        (State.ALIVE, State.LEFT, "INFO"),
    ],
)
async def test_who_is_warned_of_trouble_hears_of_its_end(
    before: State | None, after: State, level: str, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with started(network, "oslo") as (oslo,):
        perform(oslo, MemberChanged(bytes(16), "tokyo", before, after))
    assert [record.levelname for record in caplog.records if f"tokyo ({'00' * 16})" in record.getMessage()] == [level]


async def test_a_share_without_a_member_is_given_back(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        oslo.told.takes = False
        batch = direct(1).batches[0]

        perform(oslo, Deliver(bytes(16), 1, batch, 0, 1))

        assert oslo.mesh.given_back == [(bytes(16), batch)]


async def test_what_an_output_brings_about_is_performed_after_the_others(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        oslo.told.on_deliver = lambda: perform(oslo, SpreadReached(9))

        perform(oslo, Deliver(bytes(16), 1, direct(1).batches[0], 0, 1), SpreadReached(1))

        assert [call[0] for call in oslo.told.calls] == ["deliver", "spread", "spread"]
        assert oslo.told.calls[1:] == [("spread", 1), ("spread", 9)]


async def test_a_turn_is_ended_once_whatever_it_brought(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        before = oslo.mesh.ended_turns
        oslo.mesh.at_end_of_turn = [SendFrame(tokyo.mesh.me, Prune())]
        perform(oslo)
        oslo.driver.wants_end_turn()
        assert oslo.mesh.ended_turns == before
        await settled()

        assert oslo.mesh.ended_turns == before + 1
        assert tokyo.mesh.of(FrameArrived) == [FrameArrived(1, Prune())]


async def test_a_turn_that_left_something_to_do_is_followed_by_another(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        before = oslo.mesh.ended_turns
        oslo.mesh.wants_turn = True
        oslo.driver.wants_end_turn()
        await settled()
        assert oslo.mesh.ended_turns > before + 1
        oslo.mesh.wants_turn = False
        await settled()
        ended = oslo.mesh.ended_turns
        await settled()

        assert oslo.mesh.ended_turns == ended


async def test_where_others_reached_this_node_is_not_for_the_machine(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        reached: list[str] = []
        oslo.driver.on_reached = reached.append
        perform(tokyo, SendFrame(oslo.mesh.me, Reached(address="192.0.2.7:1")))
        await settled()

        assert reached == ["192.0.2.7:1"]
        assert oslo.mesh.of(FrameArrived) == []
