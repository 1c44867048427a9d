"""Routing as a whole: every transition, and the books after each of thousands of random ones."""

from __future__ import annotations

import math
import random

import pytest

from quicbus_broker.routing import Batch, Delivery, Held, Orphaned, Output, Overflow, Released, Router
from tests.broker.batches import (
    Place,
    Reader,
    Writer,
    batch,
    ended,
    messages_of,
    numbered,
    options,
    released,
    route,
    told_drops,
)


def router(block_timeout_s: float = 30.0) -> Router:
    return Router(block_timeout_s=block_timeout_s)


def test_a_batch_nobody_wants_is_counted_as_unmatched() -> None:
    one = router()

    assert route(one, batch("t", numbered(0, 3))) == []
    books = one.books()
    assert (books.accepted, books.unmatched, books.deliveries) == (3, 3, 0)


def test_one_copy_goes_to_a_connection_and_names_all_its_subscriptions() -> None:
    one, place = router(), Place()
    Reader(one, "a/+", place=place, id=1, options=options())
    Reader(one, "a/b", place=place, id=2, options=options())

    (delivery,) = route(one, batch("a/b", numbered(0, 3)))

    assert isinstance(delivery, Delivery)
    assert delivery.subscriptions == [(1, 0), (2, 0)]
    assert messages_of(delivery) == numbered(0, 3)
    assert one.books().deliveries == 6


def test_a_subscription_with_no_room_holds_up_no_other_of_its_connection() -> None:
    one, place = router(), Place()
    slow = Reader(one, "a/+", place=place, id=1, options=options(window_messages=1))
    fast = Reader(one, "a/b", place=place, id=2, options=options())

    route(one, batch("a/b", numbered(0, 3)), slow, fast)

    assert slow.received == numbered(0, 1)
    assert fast.received == numbered(0, 3)


def test_credit_brings_what_waited_with_its_age() -> None:
    one = router()
    reader = Reader(one, options=options(window_messages=2))
    route(one, batch("t", numbered(0, 5)), reader, now=0.0)

    outputs = reader.consume(2, now=1.5)

    (delivery,) = outputs
    assert isinstance(delivery, Delivery)
    assert (delivery.start, delivery.stop, delivery.age_ms) == (2, 4, 1500)
    assert reader.received == numbered(0, 4)


def test_drops_are_told_once_until_they_were_reported() -> None:
    one = router()
    reader = Reader(one, options=options(max_pending=2, window_messages=1))

    first = route(one, batch("t", numbered(0, 5)), reader)
    second = route(one, batch("t", numbered(5, 5)), reader)
    reader.subscription.drops_reported()
    third = route(one, batch("t", numbered(10, 5)), reader)

    told = [reader.subscription]
    assert [told_drops(outputs) for outputs in (first, second, third)] == [told, [], told]
    assert reader.subscription.dropped == {"overflow": 13}


def test_disconnect_ends_the_subscription_and_counts_what_waited() -> None:
    one = router()
    reader = Reader(one, options=options(Overflow.DISCONNECT, max_pending=3, window_messages=2))

    outputs = route(one, batch("t", numbered(0, 5)), reader)

    assert ended(outputs) == [(reader.subscription, "overflow")]
    assert reader.received == numbered(0, 2)
    assert one.books().dropped == {"overflow": 3}
    assert route(one, batch("t", [b"x"])) == []
    assert one.books().unmatched == 1


def test_block_holds_the_publishers_of_matching_topics_until_half_is_consumed() -> None:
    one, alice, bob = router(), Writer(), Writer()
    reader = Reader(one, options=options(Overflow.BLOCK, max_pending=4, window_messages=2))

    route(one, batch("t", numbered(0, 6), source=alice), reader)
    route(one, batch("other", numbered(0, 6), source=bob), reader)

    assert (one.is_held(alice), one.is_held(bob)) == (True, False)
    assert released(reader.consume(2)) == []
    assert released(reader.consume(2)) == [alice]
    assert not one.is_held(alice)
    reader.consume(2)
    assert reader.received == numbered(0, 6)


def test_a_publisher_held_by_two_is_free_when_both_release_it() -> None:
    one, alice = router(), Writer()
    readers = [
        Reader(one, place=Place(), options=options(Overflow.BLOCK, max_pending=2, window_messages=2)) for _ in range(2)
    ]
    route(one, batch("t", numbered(0, 3), source=alice), *readers)

    assert released(readers[0].consume(2)) == []
    assert released(readers[1].consume(2)) == [alice]


def test_a_publisher_that_left_is_not_released() -> None:
    one, alice = router(), Writer()
    reader = Reader(one, options=options(Overflow.BLOCK, max_pending=2, window_messages=2))
    route(one, batch("t", numbered(0, 3), source=alice), reader)

    one.forget_source(alice)

    assert released(reader.consume(2)) == []


def test_a_full_subscription_that_leaves_lets_its_publishers_go() -> None:
    one, alice = router(), Writer()
    reader = Reader(one, options=options(Overflow.BLOCK, max_pending=2, window_messages=1))
    route(one, batch("t", numbered(0, 3), source=alice), reader)
    outputs: list[Output] = []

    one.disconnect(reader.subscription, 0.0, outputs)

    assert [type(output) for output in outputs] == [Released]
    assert one.books().dropped == {"disconnected": 2}


def test_block_ends_when_nothing_was_consumed_for_too_long() -> None:
    one, alice = router(block_timeout_s=30.0), Writer()
    reader = Reader(one, options=options(Overflow.BLOCK, max_pending=8, window_messages=2))
    route(one, batch("t", numbered(0, 20), source=alice), reader)
    assert one.next_tick() == 30.0
    reader.consume(1, now=20.0)
    outputs: list[Output] = []

    one.tick(49.9, outputs)
    assert outputs == []
    assert one.next_tick() == 50.0
    one.tick(50.0, outputs)

    assert ended(outputs) == [(reader.subscription, "block_timeout")]
    assert released(outputs) == [alice]
    assert one.next_tick() == math.inf
    assert one.books().dropped == {"block_timeout": 17}


def test_what_expires_while_it_waits_is_dropped_in_time() -> None:
    one = router()
    reader = Reader(one, options=options(window_messages=1))
    route(one, batch("t", numbered(0, 3), expires_in=2.0), reader)
    assert one.next_tick() == 2.0
    outputs: list[Output] = []

    one.tick(2.0, outputs)

    assert told_drops(outputs) == [reader.subscription]
    assert one.books().dropped == {"expired": 2}
    assert one.next_tick() == math.inf


def test_a_group_gets_each_message_once() -> None:
    one = router()
    members = [Reader(one, group="g", place=Place(), id=id, options=options(max_pending=100)) for id in range(3)]

    for number in range(0, 50, 10):
        route(one, batch("t", numbered(number, 10)), *members)
        for member in members:
            member.consume(len(member.received) - member.consumed)

    assert sorted(message for member in members for message in member.received) == numbered(0, 50)
    assert max(len(member.received) for member in members) - min(len(member.received) for member in members) <= 3
    assert one.books().deliveries == 50


def test_what_waits_for_a_member_that_leaves_goes_to_the_others() -> None:
    one = router()
    leaver = Reader(one, group="g", place=Place(), id=1, options=options(window_messages=1, max_pending=100))
    route(one, batch("t", numbered(0, 5)), leaver)
    stayer = Reader(one, group="g", place=Place(), id=2, options=options(max_pending=100))
    outputs: list[Output] = []

    one.unsubscribe(leaver.subscription, 1.0, outputs)
    stayer.take(outputs)

    assert leaver.received == numbered(0, 1)
    assert stayer.received == numbered(1, 4)
    assert one.books().dropped == {}


def test_what_waits_for_the_last_member_is_dropped_with_it() -> None:
    one = router()
    reader = Reader(one, group="g", options=options(window_messages=1))
    route(one, batch("t", numbered(0, 5)), reader)

    one.unsubscribe(reader.subscription, 1.0, [])

    assert one.books().dropped == {"unsubscribed": 4}


def test_a_second_end_and_late_credit_change_nothing() -> None:
    one = router()
    reader = Reader(one, options=options(window_messages=1))
    route(one, batch("t", numbered(0, 5)), reader)
    one.unsubscribe(reader.subscription, 1.0, [])

    one.disconnect(reader.subscription, 2.0, [])
    assert reader.consume(1) == []

    assert one.books().dropped == {"unsubscribed": 4}


def test_what_other_nodes_get_too_is_forwarded_and_never_unmatched() -> None:
    one = router()
    outputs: list[Output] = []

    one.route(batch("t", numbered(0, 3)), one.plan(b"t"), 0.0, outputs, is_forwarded=True)

    books = one.books()
    assert (books.accepted, books.forwarded, books.unmatched, books.balance) == (3, 3, 0, 0)


def test_what_arrives_from_another_node_reaches_no_group() -> None:
    one = router()
    plain = Reader(one, options=options())
    worker = Reader(one, group="g", place=Place(), options=options())
    outputs: list[Output] = []

    one.route_arrived(batch("t", numbered(0, 3)), one.plan(b"t"), 0.0, outputs)

    assert (plain.take(outputs), worker.take(outputs)) == (numbered(0, 3), [])
    books = one.books()
    assert (books.accepted, books.arrived, books.deliveries, books.balance) == (0, 3, 3, 0)


def test_what_arrives_expired_is_dropped_for_each_and_told() -> None:
    one = router()
    reader = Reader(one, options=options())
    outputs: list[Output] = []

    one.route_arrived(batch("t", numbered(0, 3), expires_in=-1.0), one.plan(b"t"), 0.0, outputs)

    assert told_drops(outputs) == [reader.subscription]
    assert reader.subscription.dropped == one.books().dropped == {"expired": 3}


def test_a_share_goes_to_its_group_alone_and_nowhere_without_members() -> None:
    one = router()
    Reader(one, options=options())
    worker = Reader(one, group="g", place=Place(), options=options())
    outputs: list[Output] = []
    share = batch("t", numbered(0, 3))

    assert not one.route_share(share, "other", "t", 0.0, outputs, has_arrived=True)
    assert one.route_share(share, "g", "t", 0.0, outputs, has_arrived=True)

    assert len(outputs) == 1
    assert worker.take(outputs) == numbered(0, 3)
    assert (one.books().arrived, one.books().deliveries) == (3, 3)


def test_a_pause_holds_who_publishes_to_the_filter_after_it() -> None:
    one, alice, bob = router(), Writer(), Writer()
    one.pause("tokyo", "t/#")
    outputs: list[Output] = []

    for topic, writer in (("t/a", alice), ("x", bob)):
        one.route(batch(topic, [b"1"], source=writer), one.plan(topic.encode()), 0.0, outputs, is_forwarded=True)

    assert [type(output) for output in outputs] == [Held]
    assert (one.is_held(alice), one.is_held(bob)) == (True, False)
    one.resume("lima", "t/#", outputs)
    assert one.is_held(alice)
    one.resume("tokyo", "t/#", outputs)
    assert released(outputs) == [alice]


@pytest.mark.parametrize("seed", range(40))
def test_the_books_balance_after_every_operation(seed: int) -> None:
    """Random publishers here and elsewhere, policies, groups, credit, expiry, leaving: nothing is lost uncounted."""
    rng = random.Random(seed)
    one = router(block_timeout_s=5.0)
    one.gives_back = seed % 2 == 0
    writers = [Writer() for _ in range(3)]
    live: list[Reader] = []
    gone: list[Reader] = []
    now = 0.0
    for number in range(1, 250):
        now += rng.random()
        outputs: list[Output] = []
        action = rng.randrange(12)
        if action < 2 or not live:
            live.append(_random_reader(one, rng, number))
        elif action >= 10:
            _arrive(one, _random_batch(rng, number, now, rng.choice(writers)), rng, now, outputs)
            for reader in live:
                reader.take(outputs)
        elif action < 6:
            outputs += route(one, _random_batch(rng, number, now, rng.choice(writers)), *live)
        elif action < 8:
            reader = rng.choice(live)
            reader.consume(rng.randint(0, len(reader.received) - reader.consumed), now)
        elif action < 9:
            one.tick(now, outputs)
        else:
            leave = rng.choice((one.unsubscribe, one.disconnect))
            leave(rng.choice(live).subscription, now, outputs)
            for reader in live:
                reader.take(outputs)
            for output in outputs:
                if isinstance(output, Orphaned):
                    one.settle_orphan(output, is_taken=rng.random() < 0.5)
        gone += [reader for reader in live if not reader.subscription.is_open]
        live = [reader for reader in live if reader.subscription.is_open]
        _check(one, live, gone, seed)
    full = [reader for reader in live if reader.subscription.is_full]
    assert full or not any(one.is_held(writer) for writer in writers), f"seed {seed}"


def _arrive(one: Router, batch: Batch, rng: random.Random, now: float, outputs: list[Output]) -> None:
    """A batch of another node: for all here, or for a group that may have no members."""
    kind = rng.randrange(3)
    if kind == 0:
        one.route_arrived(batch, one.plan(batch.body.topic), now, outputs)
    elif not one.route_share(batch, "g", batch.body.topic.decode(), now, outputs, has_arrived=kind == 1) and kind == 2:
        one.count_no_member(batch.body.count)


def _random_batch(rng: random.Random, number: int, now: float, source: Writer) -> Batch:
    messages = numbered(number * 100, rng.randint(1, 30), size=rng.randint(4, 12))
    expires_in = rng.choice((math.inf, math.inf, rng.random() * 8))
    topic = rng.choice(("a", "b", "a/b"))
    return batch(topic, messages, number=number, now=now, expires_in=expires_in, source=source)


def _random_reader(one: Router, rng: random.Random, id: int) -> Reader:
    max_pending = rng.choice((1, 2, 10, 100))
    chosen = options(
        rng.choice(list(Overflow)),
        max_pending=max_pending,
        max_pending_size=rng.choice((40, 400, 1 << 20)),
        window_messages=(max_pending + 1) // 2,
        window_size=rng.choice((20, 200, 1 << 19)),
    )
    filter = rng.choice(("a", "b", "+", "#", "a/b", "a/#"))
    return Reader(one, filter, group=rng.choice((None, None, "g")), place=Place(), id=id, options=chosen)


def _check(one: Router, live: list[Reader], gone: list[Reader], seed: int) -> None:
    books = one.books()
    assert books.balance == 0, f"seed {seed}: {books}"
    assert books.queued == sum(reader.subscription.backlog.messages for reader in live)
    assert books.handed_over == sum(len(reader.received) for reader in live + gone), f"seed {seed}"
    for reader in live:
        subscription = reader.subscription
        assert subscription.handed_over == len(reader.received), f"seed {seed}"
        assert subscription.outstanding <= subscription.options.window_messages
        if subscription.options.overflow is not Overflow.BLOCK:
            assert subscription.pending <= subscription.options.max_pending, f"seed {seed}"
        if subscription.group is None:
            assert reader.received == sorted(reader.received, key=lambda m: int(m)), f"seed {seed}: out of order"
