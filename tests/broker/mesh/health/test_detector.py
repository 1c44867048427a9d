"""Probes of neighbours: when one has failed, how soon and how surely that is found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from quicbus.wire.frames import Ping
from quicbus.wire.node_frames import PingRequest, PingResult
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.outputs import LinkSilent, ProbeAnswered, ProbeFailed, SendFrame
from tests.broker.mesh.health.watch import CONFIG, A, B, C, D, E, Watch, node_id, pinged, requests

if TYPE_CHECKING:
    from quicbus_broker.mesh.outputs import NodeId, Output


# --- probes ---------------------------------------------------------------------------------------------------------


def test_without_neighbors_nothing_happens() -> None:
    assert Watch().detector.next_timer() == math.inf


@pytest.mark.parametrize("count", [1, 10, 100])
def test_one_neighbor_an_interval_is_pinged_however_many_there_are(count: int) -> None:
    watch = Watch(*map(node_id, range(1, count + 1)))
    asked: list[NodeId] = []

    while watch.detector.next_timer() <= 100.0:
        node, id = watch.probe()
        asked.append(node)
        watch.pong(node, id)

    assert 99 <= len(asked) <= 101
    assert len(set(asked)) == count, "each in its turn"


def test_each_is_pinged_once_a_round() -> None:
    watch = Watch(A, B, C, D)

    for _ in range(5):
        round_ = []
        for _ in range(4):
            node, id = watch.probe()
            round_.append(node)
            watch.pong(node, id)
        assert sorted(round_) == [A, B, C, D]


def test_answer_measures_the_round_trip() -> None:
    watch = Watch(A)
    _, id = watch.probe()

    assert watch.detector.rtt_s(A) is None
    assert watch.pong(A, id, after=0.08) == []

    assert watch.detector.rtt_s(A) == pytest.approx(0.08)
    _, id = watch.probe()
    watch.pong(A, id, after=0.16)
    assert watch.detector.rtt_s(A) == pytest.approx(0.09)


def test_silence_is_asked_about_through_others_and_then_fails() -> None:
    watch = Watch(A, B, C, D, E)
    node, _ = watch.probe()
    began = watch.now

    outputs = watch.tick()

    assert watch.now == began + CONFIG.probe_timeout_s
    asked = requests(outputs)
    assert len(asked) == CONFIG.indirect_probes
    assert node not in asked
    assert {request.target for request in asked.values()} == {node}
    assert pinged(outputs) == [node], "and once more directly"

    assert watch.tick()[0] == ProbeFailed(node)
    assert watch.now == began + CONFIG.probe_interval_s


def test_alone_with_one_neighbor_it_is_pinged_twice_before_it_fails() -> None:
    watch = Watch(A)
    watch.probe()

    assert pinged(watch.tick()) == [A]
    assert watch.tick() == [ProbeFailed(A)]


def test_answer_through_a_helper_is_an_answer() -> None:
    watch = Watch(A, B, C)
    node, _ = watch.probe()
    helper, request = next(iter(requests(watch.tick()).items()))

    assert watch.result(helper, request.id, answered=True) == []

    assert pinged(watch.tick()) != [node]
    assert watch.detector.awareness == 0


def test_result_of_another_probe_or_from_someone_not_asked_counts_for_nothing() -> None:
    watch = Watch(A, B, C)
    node, _ = watch.probe()
    asked = requests(watch.tick())
    id = next(iter(asked.values())).id

    watch.result(E, id, answered=True)
    watch.result(next(iter(asked)), id + 1, answered=True)

    assert watch.tick()[0] == ProbeFailed(node)


def test_any_traffic_of_the_probed_node_is_a_sign_of_life() -> None:
    watch = Watch(A, B)
    node, _ = watch.probe()

    watch.detector.heard(node, watch.now)

    assert ProbeFailed(node) not in watch.tick()
    assert watch.detector.rtt_s(node) is None


def test_traffic_of_others_is_none() -> None:
    watch = Watch(A, B)
    node, _ = watch.probe()

    watch.detector.heard(A if node == B else B, watch.now)

    watch.tick()
    assert watch.tick()[0] == ProbeFailed(node)


def test_where_the_helpers_are_silent_too_all_links_are_asked_and_those_that_stay_silent_are_told() -> None:
    watch = Watch(A, B, C, D, E)
    node, _ = watch.probe()
    watch.tick()
    others = [other for other in (A, B, C, D, E) if other != node]
    assert pinged(watch.tick()) == others
    assert watch.silent == [(node, True)]

    watch.detector.heard(others[0], watch.now)
    watch.tick_at(watch.now + 2 * CONFIG.probe_timeout_s)
    assert watch.silent[1:] == [(other, True) for other in others[1:]]

    outputs: list[Output] = []
    watch.detector.heard(others[1], watch.now, outputs)
    assert outputs == [LinkSilent(others[1], is_silent=False)]


def test_where_a_helper_says_no_only_the_probed_link_is_silent() -> None:
    watch = Watch(A, B, C)
    node, _ = watch.probe()
    helper, request = next(iter(requests(watch.tick()).items()))
    watch.result(helper, request.id, answered=False)
    assert watch.tick() == [ProbeFailed(node)]
    assert watch.silent == [(node, True)]


def test_slow_link_gets_the_time_it_needs() -> None:
    watch = Watch(A)
    _, id = watch.probe()
    watch.pong(A, id, after=0.4)
    _, id = watch.probe()
    began = watch.now

    assert watch.detector.next_timer() == pytest.approx(began + 1.6)
    assert watch.pong(A, id, after=0.45) == []


def test_failed_neighbor_that_answers_is_told_once() -> None:
    watch = Watch(A)
    watch.probe()
    watch.tick()
    assert watch.tick() == [ProbeFailed(A)]
    node, id = watch.probe()

    assert watch.pong(node, id) == [ProbeAnswered(A)]
    node, id = watch.probe()
    assert watch.pong(node, id) == []


def test_answer_after_the_end_of_its_probe_is_a_sign_of_life() -> None:
    watch = Watch(A)
    _, id = watch.probe()
    watch.tick()
    assert watch.tick() == [ProbeFailed(A)]

    assert watch.pong(A, id) == [ProbeAnswered(A)]
    assert watch.detector.rtt_s(A) == pytest.approx(1.0)


def test_a_neighbor_that_stood_still_and_then_dies_is_noticed_as_fast_as_any() -> None:
    watch = Watch(A, config=MeshConfig(self_doubt=False))
    for _ in range(3):
        node, id = watch.probe()
        watch.pong(node, id, after=0.001)
    stood_still_at = watch.now
    unanswered: list[int] = []
    while watch.now < stood_still_at + 20.0:
        unanswered += [o.frame.id for o in watch.tick() if isinstance(o, SendFrame) and isinstance(o.frame, Ping)]
    for id in unanswered:
        watch.pong(A, id)
    awoke_at = watch.now
    watch.run(awoke_at + 15.0, lambda _: True)
    died_at = watch.now

    assert watch.run(died_at + 3.0, lambda _: False) == [ProbeFailed(A)] * 2
    rtt = watch.detector.rtt_s(A)
    assert rtt is not None
    assert rtt < 0.01


def test_a_link_that_has_become_slow_is_given_the_time_that_it_needs() -> None:
    watch = Watch(A, config=MeshConfig(self_doubt=False))
    node, id = watch.probe()
    watch.pong(node, id, after=0.001)
    failures = []
    under_way: list[tuple[float, int]] = []
    while watch.now < 200.0:
        if under_way and under_way[0][0] <= watch.detector.next_timer():
            at, id = under_way.pop(0)
            watch.pong(A, id, after=at - watch.now)
            continue
        for output in watch.tick():
            if isinstance(output, SendFrame) and isinstance(output.frame, Ping):
                under_way.append((watch.now + 3.0, output.frame.id))
            elif isinstance(output, ProbeFailed):
                failures.append(watch.now)

    rtt = watch.detector.rtt_s(A)
    assert max(failures) < 30.0
    assert rtt is not None
    assert 2.0 < rtt <= 3.0


def test_pong_that_nobody_asked_for_or_from_another_node_is_ignored() -> None:
    watch = Watch(A, B)
    node, id = watch.probe()
    other = A if node == B else B

    assert watch.pong(other, id) == []
    assert watch.pong(other, 999) == []

    assert watch.detector.rtt_s(other) is None
    assert pinged(watch.tick()) == [node]


def test_neighbor_that_goes_is_not_failed_any_more() -> None:
    watch = Watch(A, B)
    node, _ = watch.probe()

    watch.detector.neighbor_down(node)
    found = watch.run(20.0, lambda other: other != node)

    assert found == []


def test_last_neighbor_that_goes_ends_it_and_another_begins_it_again() -> None:
    watch = Watch(A)
    watch.probe()

    watch.detector.neighbor_down(A)
    watch.detector.neighbor_down(A)
    assert watch.detector.next_timer() == math.inf
    watch.detector.neighbor_up(B, 50.0)

    assert 50.0 <= watch.detector.next_timer() <= 50.0 + CONFIG.probe_interval_s
    watch.now = 50.0
    assert watch.probe()[0] == B


# --- for others -----------------------------------------------------------------------------------------------------


def test_ping_for_another_is_answered_when_its_pong_comes() -> None:
    watch = Watch(A, B)

    (ping,) = watch.request(A, 77, B)

    assert isinstance(ping, SendFrame)
    assert ping.node == B
    assert isinstance(ping.frame, Ping)
    assert watch.pong(B, ping.frame.id) == [SendFrame(A, PingResult(id=77, answered=True))]
    assert watch.pong(B, ping.frame.id) == []


def test_ping_for_another_without_answer_is_a_no_before_the_asker_gives_up() -> None:
    watch = Watch(config=CONFIG)
    watch.connected[B] = None
    watch.request(A, 77, B)

    assert watch.tick() == [SendFrame(A, PingResult(id=77, answered=False))]
    assert watch.now < CONFIG.probe_interval_s - CONFIG.probe_timeout_s
    assert watch.detector.next_timer() == math.inf


def test_ping_for_another_that_is_not_connected_is_a_no_at_once() -> None:
    assert Watch(A).request(A, 77, E) == [SendFrame(A, PingResult(id=77, answered=False))]


def test_requests_under_way_are_bounded() -> None:
    askers = [bytes([1, number]) * 8 for number in range(100)]
    watch = Watch(B, *askers)

    sent = [watch.request(asker, id, B) for asker in askers for id in range(5)]

    assert [bool(pinged(outputs)) for outputs in sent[:5]] == [True] * 4 + [False]
    assert sum(1 for outputs in sent if pinged(outputs)) == 256
    assert sent[-1] == [SendFrame(askers[-1], PingResult(id=4, answered=False))]


# --- how soon, how surely ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 12])
def test_dead_neighbor_is_found_within_a_round(count: int) -> None:
    nodes = list(map(node_id, range(1, count + 1)))
    watch = Watch(*nodes)
    watch.run(20.0, lambda _: True)

    found = watch.run(20.0 + 2 * count + 2, lambda node: node != nodes[0])

    assert ProbeFailed(nodes[0]) in found
    assert {output.node for output in found if isinstance(output, ProbeFailed)} == {nodes[0]}


def test_one_way_partition_is_covered_by_helpers() -> None:
    """What A sends does not arrive here, but others reach it: nobody is accused."""
    watch = Watch(A, B, C, D)
    found: list[Output] = []

    while watch.detector.next_timer() < 60.0:
        for output in watch.tick():
            if not isinstance(output, SendFrame):
                found.append(output)
            elif isinstance(output.frame, Ping) and output.node != A:
                found += watch.pong(output.node, output.frame.id)
            elif isinstance(output.frame, PingRequest) and output.node != A:
                found += watch.result(output.node, output.frame.id, answered=True)

    assert found == []
    assert watch.detector.rtt_s(A) is None
