from __future__ import annotations

import pytest

from quicbus.wire.bundles import EVERYONE, KIND_BROADCAST, Bundle, BundleBatch
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Ping
from quicbus_broker.mesh.outputs import BundleArrived, CloseConnection, ConnectionOpened, DialFailed, SendBundle
from quicbus_broker.simulation.network import IDLE_TIMEOUT_S
from tests.broker.simulation.machines import DIAL_TIMEOUT_S, Pair


def test_dial_opens_the_listener_after_one_and_a_half_round_trips_and_the_dialer_after_two() -> None:
    pair = Pair()
    pair.dialing.dial(pair.a, "b:1", pair.b.node)
    pair.schedule.run_for(1.0)
    near, far = pair.machines
    ((near_at, near_event),), ((far_at, far_event),) = near.seen, far.seen
    assert near_at == pytest.approx(0.04)
    assert far_at == pytest.approx(0.03)
    assert near_event == ConnectionOpened(1, pair.b.node, 1, True, "b:1", "a:1")
    assert far_event == ConnectionOpened(2, pair.a.node, 1, False, "a:1", "b:1")


def test_dial_of_an_address_where_nobody_listens_times_out() -> None:
    pair = Pair()
    pair.dialing.dial(pair.a, "nowhere:1", None)
    pair.schedule.run_for(10.0)
    assert pair.machines[0].seen == [(DIAL_TIMEOUT_S, DialFailed("nowhere:1", None, "no answer"))]


def test_dial_of_another_node_at_the_address_fails() -> None:
    pair = Pair()
    pair.dialing.dial(pair.a, "b:1", bytes(16))
    pair.schedule.run_for(10.0)
    (failed,) = [event for _, event in pair.machines[0].seen]
    assert isinstance(failed, DialFailed)
    assert pair.machines[1].seen == []


def test_dial_into_a_partition_of_either_direction_times_out() -> None:
    for way in ((0, 1), (1, 0)):
        pair = Pair()
        pair.network.block(*way)
        pair.dialing.dial(pair.a, "b:1", pair.b.node)
        pair.schedule.run_for(10.0)
        assert [type(event) for _, event in pair.machines[0].seen] == [DialFailed]


def test_a_node_that_dials_itself_has_both_ends() -> None:
    pair = Pair()
    pair.dialing.dial(pair.a, "a:1", None)
    pair.schedule.run_for(1.0)
    assert [event.is_dialer for event in pair.machines[0].opened] == [False, True]


def test_frames_arrive_in_order_however_many_packets_are_lost() -> None:
    pair = Pair(jitter=1.0)
    pair.connect()
    pair.network.loss = 0.5
    for id in range(200):
        pair.send(pair.a, pair.b, Ping(id=id))
    pair.schedule.run_for(1000.0)
    assert pair.machines[1].pings == list(range(200))


def test_bundles_of_one_lane_keep_their_order_and_overtake_those_of_another() -> None:
    pair = Pair(jitter=1.0)
    pair.connect()
    pair.network.loss = 0.5
    for number in range(1, 101):
        batch = BundleBatch(number, number % 2, number, 0, "p", b"")
        bundle = Bundle(KIND_BROADCAST, pair.a.node, 1, number, EVERYONE, 0, (batch,))
        pair.a.perform([SendBundle(pair.b.node, bundle)])
    pair.schedule.run_for(1000.0)
    got = [event.bundle.number for _, event in pair.machines[1].seen if isinstance(event, BundleArrived)]
    assert [number for number in got if number % 2] == list(range(1, 101, 2))
    assert [number for number in got if not number % 2] == list(range(2, 101, 2))
    assert got != sorted(got)


def test_a_short_partition_delays_what_was_sent_and_loses_nothing() -> None:
    pair = Pair()
    pair.connect()
    pair.send(pair.a, pair.b, Ping(id=1))
    pair.network.block(0, 1)
    pair.send(pair.a, pair.b, Ping(id=2))
    pair.send(pair.b, pair.a, Ping(id=3))
    pair.schedule.run_for(10.0)
    assert pair.machines[1].pings == [1]
    assert pair.machines[0].pings == [3]
    pair.network.unblock(0, 1)
    pair.send(pair.a, pair.b, Ping(id=4))
    pair.schedule.run_for(60.0)
    assert pair.machines[1].pings == [1, 2, 4]
    assert not pair.machines[0].closed
    assert not pair.machines[1].closed


def test_a_long_one_way_partition_kills_first_the_deaf_end_and_later_the_other() -> None:
    pair = Pair()
    pair.connect()
    pair.network.block(0, 1)
    pair.schedule.run_for(100.0)
    ((near_at, _),), ((far_at, _),) = (machine.closed for machine in pair.machines)
    assert far_at == pytest.approx(1.0 + IDLE_TIMEOUT_S)
    assert near_at == pytest.approx(1.0 + 2 * IDLE_TIMEOUT_S)


def test_after_a_crash_the_peer_hears_nothing_and_its_end_dies() -> None:
    pair = Pair()
    pair.connect()
    pair.b.crash()
    pair.schedule.run_for(IDLE_TIMEOUT_S - 0.1)
    assert not pair.machines[0].closed
    pair.schedule.run_for(0.2)
    ((_, closed),) = pair.machines[0].closed
    assert not closed.is_clean


def test_a_goodbye_is_heard_as_clean_and_an_offence_is_not() -> None:
    for code, is_clean in ((CloseCode.GOODBYE, True), (CloseCode.PROTOCOL_VIOLATION, False)):
        pair = Pair()
        pair.connect()
        pair.a.perform([CloseConnection(pair.machines[0].opened[0].connection, code, "so")])
        pair.schedule.run_for(1.0)
        for machine in pair.machines:
            ((_, closed),) = machine.closed
            assert (closed.reason, closed.is_clean) == ("so", is_clean)
        assert not pair.a.ends
        assert not pair.b.ends


def test_a_close_that_a_partition_swallows_is_noticed_by_silence() -> None:
    pair = Pair()
    pair.connect()
    pair.network.block(0, 1)
    pair.a.stop()
    pair.network.unblock(0, 1)
    pair.schedule.run_for(100.0)
    ((time, closed),) = pair.machines[1].closed
    assert time == pytest.approx(1.0 + IDLE_TIMEOUT_S)
    assert not closed.is_clean


def test_a_paused_process_handles_what_came_once_it_goes_on_and_its_timers_too() -> None:
    pair = Pair()
    pair.connect()
    pair.machines[1].timer = 2.0
    pair.b.perform([])
    pair.b.pause()
    pair.send(pair.a, pair.b, Ping(id=1))
    pair.schedule.run_until(5.0)
    assert not pair.machines[1].pings
    assert not pair.machines[1].ticks
    pair.b.resume()
    assert pair.machines[1].pings == [1]
    assert pair.machines[1].ticks == [5.0]


def test_a_process_that_is_paused_for_long_loses_its_connections() -> None:
    pair = Pair()
    pair.connect()
    pair.b.pause()
    pair.schedule.run_for(40.0)
    assert len(pair.machines[0].closed) == 1
    pair.b.resume()
    pair.schedule.run_for(40.0)
    assert len(pair.machines[1].closed) == 1


def test_a_dial_of_a_paused_process_is_answered_if_it_goes_on_in_time() -> None:
    pair = Pair()
    pair.b.pause()
    pair.dialing.dial(pair.a, "b:1", pair.b.node)
    pair.schedule.run_until(3.0)
    pair.b.resume()
    pair.schedule.run_for(10.0)
    assert len(pair.machines[0].opened) == len(pair.machines[1].opened) == 1
    assert len(pair.machines[0].seen) == 1


def test_what_arrives_before_the_dialer_is_told_of_the_connection_waits_for_it() -> None:
    pair = Pair()
    pair.dialing.dial(pair.a, "b:1", pair.b.node)
    pair.schedule.run_until(0.035)
    pair.a.pause()
    pair.send(pair.b, pair.a, Ping(id=7))
    pair.schedule.run_until(0.5)
    pair.a.resume()
    pair.schedule.run_until(1.0)
    assert [type(event).__name__ for _, event in pair.machines[0].seen] == ["ConnectionOpened", "FrameArrived"]
