"""Work by the slice: order, bounds, fairness, and what becomes of input that waits when its session ends."""

from __future__ import annotations

import random

import pytest

from quicbus import limits
from quicbus.transport.engine import Terminated
from quicbus.wire.batch import encode_body
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import (
    Drained,
    Flush,
    Flushed,
    Frame,
    GoAway,
    Ping,
    Pong,
    Subscribe,
    Subscribed,
    SubscriptionClosed,
    Taken,
    Unsubscribe,
    encode_frame,
)
from quicbus.wire.records import encode_publish
from quicbus_broker.edge import EdgeLimits
from quicbus_broker.routing.table import Planning
from tests.broker.fakes import FakeBroker, FakeClient

SOME = 3
"""Pieces of work that fit in a slice here."""


def sliced(edge_limits: EdgeLimits | None = None) -> FakeBroker:
    broker = FakeBroker(edge_limits)
    broker.work_s = limits.SLICE_S / (SOME - 0.5)
    return broker


def subscribe(id: int, filter: str = "t") -> Subscribe:
    return Subscribe(
        id=id, filter=filter, max_pending=1000, max_pending_size=1 << 20, window_messages=500, window_size=1 << 19
    )


MAZE_DEPTH = 8
MAZE = "/".join("a" * MAZE_DEPTH)


def with_maze(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    """A broker with filters that share every way of the topic `MAZE`, which is matched a few steps a piece."""
    broker = FakeBroker()
    client = broker.client()
    for number in range(2**MAZE_DEPTH):
        levels = ["a+"[number >> level & 1] for level in range(MAZE_DEPTH)]
        client.subscribe("/".join(levels), 1 + number)
    monkeypatch.setattr(Planning.go_on, "__defaults__", (20,))
    broker.work_s = limits.SLICE_S / (SOME - 0.5)
    return broker


def records(numbers: range, topic: bytes = b"t") -> bytes:
    return b"".join([encode_publish(encode_body(topic, [b"%d" % number], number=number)) for number in numbers])


def sent_now(client: FakeClient) -> list[Frame]:
    """Return the control frames that left by now, without further turns."""
    client.broker.end_turn()
    return client._frames.feed(client._new(3, skip=1))


def test_a_session_deals_with_a_slice_of_its_frames_a_turn() -> None:
    broker = sliced()
    client = broker.client()
    client.write(*[Ping(id=id) for id in range(20)])
    first = sent_now(client)
    assert 1 <= len(first) <= SOME
    broker.next_slice()
    second = sent_now(client)
    assert 1 <= len(second) <= SOME
    assert [*first, *second, *client.frames()] == [Pong(id=id) for id in range(20)]


def test_others_come_between_the_slices_of_one() -> None:
    broker = sliced()
    greedy, modest = broker.client(), broker.client()
    greedy.write(*[Ping(id=id) for id in range(100)])
    modest.write(Ping(id=7))
    assert sent_now(modest) == [Pong(id=7)]
    assert len(sent_now(greedy)) <= SOME


def test_what_comes_in_one_turn_shares_a_slice_and_each_has_a_little_of_its_own() -> None:
    broker = FakeBroker()
    greedy = [broker.client() for _ in range(10)]
    modest = broker.client()
    broker.work_s = limits.LEAST_SLICE_S / (SOME - 0.5)
    for client in greedy:
        client.write(*[Ping(id=id) for id in range(100)])
    modest.write(Ping(id=7))
    assert sent_now(modest) == [Pong(id=7)]
    first, *others = [len(sent_now(client)) for client in greedy]
    assert SOME < first <= 1 + (SOME - 0.5) * limits.SLICE_S / limits.LEAST_SLICE_S
    assert all(1 <= each <= SOME for each in others)

    broker.turn()
    modest.write(*[Ping(id=id) for id in range(100)])
    assert len(sent_now(modest)) == first, "a new turn has a new slice"


def test_while_some_wait_what_comes_has_only_the_little_of_its_own() -> None:
    broker = FakeBroker()
    greedy, modest, alone = broker.client(), broker.client(), broker.client()
    broker.work_s = limits.LEAST_SLICE_S / (SOME - 0.5)
    greedy.write(*[Ping(id=id) for id in range(100)])
    assert len(sent_now(greedy)) > SOME
    modest.write(*[Ping(id=id) for id in range(100)])
    assert 1 <= len(sent_now(modest)) <= SOME

    broker.turn()
    alone.write(*[Ping(id=id) for id in range(100)])
    assert len(sent_now(alone)) > SOME, "nobody waits any more"


def test_after_a_slice_of_what_came_the_loop_has_a_turn_before_that_of_those_who_wait() -> None:
    broker = sliced()
    greedy = broker.client()
    greedy.write(*[Ping(id=id) for id in range(100)])
    sent_now(greedy)
    for has_slice in (False, True, True):
        worked = broker.worked
        [callback], broker._soon[:] = list(broker._soon), []
        callback()
        assert (broker.worked > worked) is has_slice


def test_all_who_wait_share_one_slice_of_a_turn() -> None:
    broker = sliced()
    greedy = [broker.client() for _ in range(10)]
    for client in greedy:
        client.write(*[Ping(id=id) for id in range(30)])
        sent_now(client)
    dealt = [0] * len(greedy)
    for _ in range(20):
        broker.next_slice()
        now = [len(sent_now(client)) for client in greedy]
        assert 1 <= sum(now) <= SOME
        dealt = [a + b for a, b in zip(dealt, now, strict=True)]
    assert max(dealt) - min(dealt) <= SOME, "they take turns"
    for client in greedy:
        client.frames()


def test_work_that_is_quick_never_waits() -> None:
    broker = FakeBroker()
    client = broker.client()
    client.write(*[Ping(id=id) for id in range(1000)])
    assert len(sent_now(client)) == 1000


@pytest.mark.parametrize("seed", range(5))
def test_order_holds_however_the_input_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    broker = sliced()
    reader, writer = broker.client(), broker.client()
    broker.work_s = 0.0
    reader.subscribe("t/#")
    broker.work_s = limits.SLICE_S / chance.randint(1, 5)
    expected: dict[int, list[bytes]] = {0: [], 1: []}
    pings: list[Frame] = []
    for number in range(1, 200):
        if chance.random() < 0.3:
            pings.append(Pong(id=number))
            writer.write(Ping(id=number))
        lane = chance.randrange(2)
        record = encode_publish(encode_body(b"t/%d" % lane, [b"%d" % number], number=number))
        expected[lane].append(b"%d" % number)
        cut = chance.randrange(len(record))
        writer.write_lane(record[:cut], lane)
        if chance.random() < 0.2:
            broker.next_slice()
        writer.write_lane(record[cut:], lane)
        if chance.random() < 0.1:
            broker.end_turn()
    assert [frame for frame in writer.frames() if isinstance(frame, Pong)] == pings
    received = reader.messages()
    assert sorted(received, key=int) == [b"%d" % number for number in range(1, 200)]
    for messages in expected.values():
        assert [message for message in received if message in set(messages)] == messages


@pytest.mark.interpreted
def test_a_match_is_cut_and_what_comes_after_it_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = with_maze(monkeypatch)
    writer, other = broker.client(), broker.client()
    broker.work_s = 0.0
    reader = broker.client()
    reader.subscribe("+/#")
    broker.work_s = limits.SLICE_S / (SOME - 0.5)
    writer.write_lane(records(range(1, 4), MAZE.encode()) + records(range(4, 7), b"t") + records(range(7, 9), b"a/b"))
    writer.write(Flush(id=1, batches=1), Ping(id=9))
    assert not sent_now(writer), "the first batch has its number, and is not dealt with"
    assert not broker.router.books().accepted
    other.publish("t", b"between")
    broker.end_turn()
    assert broker.router.books().accepted == 1
    frames = writer.frames()
    (flushed,) = [frame for frame in frames if isinstance(frame, Flushed)]
    assert flushed.accepted >= 1
    assert Pong(id=9) in frames
    received = reader.messages()
    # Each topic on its lane.
    assert [each for each in received if each in (b"1", b"2", b"3")] == [b"1", b"2", b"3"]
    assert [each for each in received if each in (b"between", b"4", b"5", b"6")] == [b"between", b"4", b"5", b"6"]
    assert [each for each in received if each in (b"7", b"8")] == [b"7", b"8"]
    assert broker.router.books().balance == 0


@pytest.mark.interpreted
def test_a_client_is_not_drained_while_a_match_of_its_last_batch_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = with_maze(monkeypatch)
    writer = broker.client()
    broker.edge.go_away("stopping", 5.0)
    writer.write(Drained(batches=1))
    writer.write_lane(records(range(1, 2), MAZE.encode()))
    assert not any(isinstance(frame, Drained) for frame in sent_now(writer))
    assert any(isinstance(frame, Drained) for frame in writer.frames())
    assert broker.router.books().accepted == 1


@pytest.mark.interpreted
def test_a_match_that_was_cut_when_the_broker_closes_its_session_is_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = with_maze(monkeypatch)
    writer = broker.client()
    writer.write_lane(records(range(1, 2), MAZE.encode()))
    writer.session.close(CloseCode.CREDENTIAL_REVOKED, "revoked")
    broker.turn()
    assert not broker.router.books().accepted


def test_a_flush_is_answered_after_the_records_before_it() -> None:
    broker = sliced()
    client = broker.client()
    client.write_lane(records(range(1, 31)))
    client.write(Flush(id=1, batches=30))
    assert not any(isinstance(frame, Flushed) for frame in sent_now(client))
    (flushed,) = [frame for frame in client.frames() if isinstance(frame, Flushed)]
    assert (flushed.accepted, flushed.refused) == (30, 0)


def test_subscribe_and_unsubscribe_keep_their_order() -> None:
    broker = sliced()
    client = broker.client()
    client.write(*[frame for id in range(1, 20) for frame in (subscribe(id), Unsubscribe(id=id))])
    frames = client.frames()
    kinds = [type(frame) for frame in frames]
    assert kinds == [Subscribed, SubscriptionClosed] * 19
    assert not len(broker.router)


def test_what_waits_gives_no_credit() -> None:
    broker = sliced()
    client = broker.client()
    publisher = client.session.publisher
    assert publisher is not None
    data = records(range(1, 40))
    client.write_lane(data[:-10])
    client.write_lane(data[-10:])
    frames = sent_now(client)
    credit = max((frame.credit for frame in frames if isinstance(frame, Taken)), default=publisher.window)
    assert credit <= publisher.window + len(data) // 2
    assert publisher.accepted <= SOME
    client.frames()
    assert publisher.credit == publisher.window + client.lane_bytes
    assert publisher.accepted == 39


def test_what_waits_counts_against_the_credit() -> None:
    broker = sliced()
    client = broker.client()
    publisher = client.session.publisher
    assert publisher is not None
    client.write_lane(records(range(1, 40)))
    client.write_lane(bytes(publisher.window))
    assert client.connection.close_code == CloseCode.PROTOCOL_VIOLATION
    assert "credit" in client.connection.close_reason


def test_more_control_frames_than_may_wait_close_the_session() -> None:
    edge_limits = EdgeLimits(max_subscriptions=10, max_filters_size=2 * limits.MAX_TOPIC_SIZE)
    broker = sliced(edge_limits)
    client, other = broker.client(), broker.client()
    client.write(Ping(id=0))
    pings = encode_frame(Ping(id=1)) * 50_000
    for _ in range(50):
        client.write_control(pings)
        if client.connection.is_closed:
            break
    assert client.connection.close_code == CloseCode.LIMIT_EXCEEDED
    assert "wait" in client.connection.close_reason
    assert broker.edge.statistics().refused["limit_exceeded"] == 1
    other.write(Ping(id=1))
    assert other.frames() == [Pong(id=1)]


def test_a_client_may_renew_all_of_its_subscriptions_at_once() -> None:
    broker = sliced(EdgeLimits(max_subscriptions=500))
    client = broker.client()
    client.write(*[subscribe(id, f"metrics/{id}/{'x' * 80}") for id in range(1, 501)])
    assert len([frame for frame in client.frames() if isinstance(frame, Subscribed)]) == 500


def test_records_that_arrived_before_the_connection_ended_are_published() -> None:
    broker = sliced()
    reader, writer = broker.client(), broker.client()
    reader.subscribe("t")
    writer.write_lane(records(range(1, 31)))
    writer.session.closed(Terminated(0, "bye", is_application=True, is_local=False))
    assert len(reader.messages()) == 30
    assert broker.edge.sessions == 1


def test_records_that_wait_when_the_broker_closes_the_session_are_not() -> None:
    broker = sliced()
    writer = broker.client()
    writer.write_lane(records(range(1, 31)))
    writer.session.close(CloseCode.CREDENTIAL_REVOKED, "revoked")
    broker.turn()
    assert broker.router.books().accepted <= SOME


def test_a_violation_in_what_waits_closes_the_session() -> None:
    broker = sliced()
    client = broker.client()
    client.write(*[Ping(id=id) for id in range(10)], subscribe(0))
    assert not client.connection.is_closed
    broker.turn()
    assert client.connection.close_code == CloseCode.PROTOCOL_VIOLATION


def test_a_client_that_goes_away_is_told_when_all_that_it_sent_was_taken() -> None:
    broker = sliced()
    client = broker.client()
    client.write(GoAway(reason="done", deadline_s=5.0))
    client.write_lane(records(range(1, 31)))
    frames = client.frames()
    last_taken = max(at for at, frame in enumerate(frames) if isinstance(frame, Taken))
    assert isinstance(frames[-1], Drained | Taken)
    assert frames[last_taken].accepted == 30  # type: ignore[attr-defined]
    assert any(isinstance(frame, Drained) for frame in frames)


def test_draining_waits_for_what_waits() -> None:
    broker = sliced()
    client = broker.client()
    client.write_lane(records(range(1, 31)))
    broker.edge.go_away("stopping", 5.0)
    client.write(Drained(batches=30))
    assert not broker.edge.close_drained()
    broker.turn()
    assert broker.edge.close_drained()
    assert broker.router.books().accepted == 30


def test_the_subscriptions_of_a_session_end_by_the_slice() -> None:
    broker = sliced()
    client, other = broker.client(), broker.client()
    for id in range(1, 101):
        client.subscribe(f"t/{id}", id)
    client.session.closed(Terminated(0, "idle", is_application=False, is_local=True))
    assert 100 - SOME <= len(broker.router) < 100
    broker.next_slice()
    assert len(broker.router) >= 100 - 2 * SOME - 1
    other.publish("t/50", b"lost")
    broker.turn()
    assert not len(broker.router)
    books = broker.router.books()
    assert books.deliveries == books.handed_over + sum(books.dropped.values()) + books.queued


def test_closing_the_edge_ends_all_subscriptions_at_once() -> None:
    broker = sliced()
    client = broker.client()
    for id in range(1, 101):
        client.subscribe(f"t/{id}", id)
    broker.edge.close()
    assert not len(broker.router)
