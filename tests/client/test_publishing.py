"""The publisher: batches, credit, the offline buffer, books. Pure."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from quicbus import limits
from quicbus.client.outgoing import CheckedTopics, prepare
from quicbus.client.publishing import Publisher
from quicbus.exceptions import (
    ConnectionLost,
    InvalidSetting,
    LimitExceeded,
    MessageTooLarge,
    NotPermitted,
    PublishRefused,
)
from quicbus.topics import REPLY_PREFIX
from quicbus.wire.batch import FLAG_HEADERS, Body, parse_body, read_messages
from quicbus.wire.frames import Refused, Taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from quicbus.client.open_batch import SealedBatch


def connected(credit: int = 1 << 20, max_message_size: int = limits.MAX_MESSAGE_SIZE) -> Publisher:
    publisher = Publisher()
    publisher.connected(credit, max_message_size)
    return publisher


def offer(publisher: Publisher, topic: str, payload: bytes, now: float = 0.0, **options: object) -> bool:
    return publisher.offer(prepare(publisher.topics, topic, payload, **options), now)  # type: ignore[arg-type]


def bodies(sealed: list[SealedBatch]) -> list[Body]:
    return [parse_body(batch.record[5:]) for batch in sealed]


def balance(publisher: Publisher) -> int:
    books = publisher.books()
    assert books.in_flight >= 0
    return books.published - (
        books.accepted
        + sum(books.refused.values())
        + books.dropped_while_disconnected
        + books.possibly_lost
        + books.in_flight
        + books.buffered
    )


def test_a_batch_is_closed_at_its_target_size() -> None:
    publisher = connected()
    for _ in range(3):
        assert offer(publisher, "a", bytes(limits.BATCH_TARGET_SIZE // 2))
    assert [body.count for body in bodies(publisher.seal(0.0))] == [1, 1, 1]


def test_a_batch_never_holds_more_messages_than_allowed() -> None:
    publisher = connected()
    assert offer(publisher, "a", b"")
    publisher.turn_left = 10_000
    while publisher.append("a", b""):
        pass
    (body,) = bodies(publisher.seal(0.0))
    assert body.count == limits.BATCH_MAX_MESSAGES


def test_the_short_way_is_taken_by_plain_messages_of_a_checked_topic_only() -> None:
    publisher = connected()
    assert not publisher.append("a", b"x")
    publisher.topics.route("a")
    assert publisher.append("a", b"x")
    assert publisher.append("a", b"y")
    assert not publisher.append("a", "text")
    assert offer(publisher, "a", b"z", headers={"k": "v"})
    assert not publisher.append("a", b"x"), "it would overtake the message with headers"
    assert read_messages(bodies(publisher.seal(0.0))[0]) == [b"x", b"y"]


def test_reply_topics_push_no_other_topic_out_of_what_is_remembered() -> None:
    topics = CheckedTopics(size=2)
    known = topics.route("a")
    for number in range(10):
        assert topics.route(f"{REPLY_PREFIX}n/s/{number}").topic.endswith(f"/{number}")
    assert topics.route("a") is known
    assert list(topics.known) == ["a"]


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda publisher: publisher.seal(0.0), id="sealed"),
        pytest.param(lambda publisher: publisher.shut(), id="dropped when the client ends"),
        pytest.param(lambda publisher: publisher.connected(1 << 20, 99), id="too large for the next broker"),
        pytest.param(lambda publisher: publisher.seal(9.0), id="expired"),
    ],
)
def test_no_topic_keeps_a_batch_that_has_left(leave: Callable[[Publisher], object]) -> None:
    publisher = connected()
    for topic in ("a", "b") * 3:
        assert offer(publisher, topic, bytes(100), expires_in=1.0)
    routes = list(publisher.topics.known.values())
    assert None not in [route.newest for route in routes]
    leave(publisher)
    assert [route.newest for route in routes] == [None, None]
    assert balance(publisher) == 0


def test_a_topic_of_many_kinds_keeps_its_order() -> None:
    publisher = connected()
    kinds: list[dict[str, Any]] = [
        {},
        {"headers": {"a": "b"}},
        {"headers": {"a": "c"}},
        {},
        {"reply_to": "r"},
        {},
    ]
    for number, options in enumerate(kinds):
        assert offer(publisher, "a", b"%d" % number, **options)
    sealed = bodies(publisher.seal(0.0))
    assert [(body.flags, body.reply_to, body.count) for body in sealed] == [
        (0, b"", 1),
        (FLAG_HEADERS, b"", 2),
        (0, b"", 1),
        (0, b"r", 1),
        (0, b"", 1),
    ]
    assert [message[-1:] for body in sealed for message in read_messages(body)] == [b"%d" % n for n in range(6)]


def test_sent_records_never_exceed_the_credit_and_go_on_when_it_rises() -> None:
    publisher = connected(credit=3000)
    while offer(publisher, "a", bytes(100)):
        pass
    assert sum(len(batch.record) for batch in publisher.seal(0.0)) <= 3000
    assert not offer(publisher, "a", bytes(1000))
    publisher.taken(Taken(accepted=1, refused=0, credit=6000))
    assert offer(publisher, "a", bytes(1000))


def test_expired_messages_are_dropped_while_disconnected_and_others_leave_with_what_is_left() -> None:
    publisher = Publisher()
    assert offer(publisher, "a", b"short", now=0.0, expires_in=1.0)
    assert offer(publisher, "a", b"long", now=0.0, expires_in=10.0)
    assert offer(publisher, "a", b"later", now=5.0, expires_in=10.0)
    publisher.connected(1 << 20, limits.MAX_MESSAGE_SIZE)
    sealed = bodies(publisher.seal(6.0))
    assert [(read_messages(body), body.expires_in_ms) for body in sealed] == [([b"long"], 4000), ([b"later"], 9000)]
    assert publisher.books().dropped_while_disconnected == 1
    assert balance(publisher) == 0


def test_the_offline_buffer_is_bounded_but_takes_one_message_of_any_size() -> None:
    publisher = Publisher(offline_buffer_size=1000)
    assert offer(publisher, "a", bytes(5000))
    assert not offer(publisher, "a", b"x")


def test_requests_that_were_not_sent_are_given_back_when_the_session_ends() -> None:
    publisher = connected()
    assert offer(publisher, "a", b"q", reply_to="r", request=7)
    assert publisher.disconnected() == [7]
    assert publisher.books().dropped_while_disconnected == 1
    assert balance(publisher) == 0


def test_a_broker_that_takes_less_refuses_what_is_buffered_by_name() -> None:
    publisher = Publisher()
    assert offer(publisher, "a", bytes(2000))
    assert offer(publisher, "a", bytes(10))
    publisher.connected(1 << 20, 1000)
    assert [body.count for body in bodies(publisher.seal(0.0))] in ([], [1])
    failure = publisher.refusals.take_failure(1000)
    assert isinstance(failure, MessageTooLarge)
    assert failure.size == 2000
    assert balance(publisher) == 0


def test_refusals_are_told_once_and_name_the_topic() -> None:
    publisher = connected()
    assert offer(publisher, "secret", b"x")
    publisher.seal(0.0)
    assert publisher.refused(Refused(number=1, messages=1, reason="not_permitted")) == "secret"
    failure = publisher.refusals.take_failure(1)
    assert isinstance(failure, NotPermitted)
    assert failure.topic == "secret"
    assert publisher.refusals.take_failure(1) is None
    assert balance(publisher) == 0


def test_too_many_messages_a_second_are_told_with_the_limit_and_when_to_try_again() -> None:
    publisher = connected()
    assert offer(publisher, "a", b"x")
    publisher.seal(0.0)
    publisher.refused(Refused(number=1, messages=1, reason="rate", retry_after_s=0.5))
    failure = publisher.refusals.take_failure(1, 100)
    assert isinstance(failure, LimitExceeded)
    assert str(failure) == "max_publish_rate: 101 is over the limit of 100; try again in 0.5 s"
    assert publisher.refusals.take_failure(1, 100) is None


def test_among_other_refusals_it_is_told_when_to_try_again() -> None:
    publisher = connected()
    for topic in ("a", "secret"):
        assert offer(publisher, topic, b"x")
    publisher.seal(0.0)
    publisher.refused(Refused(number=1, messages=1, reason="rate", detail="too fast", retry_after_s=0.5))
    publisher.refused(Refused(number=2, messages=1, reason="not_permitted"))
    failure = publisher.refusals.take_failure(1)
    assert isinstance(failure, PublishRefused)
    assert failure.retry_after_s == 0.5
    assert str(failure) == "the broker refused 1 x not_permitted, 1 x rate: too fast; try again in 0.5 s"
    assert publisher.refusals.take_failure(1) is None
    publisher.refused(Refused(number=3, messages=1, reason="draining"))
    again = publisher.refusals.take_failure(1)
    assert isinstance(again, PublishRefused)
    assert again.retry_after_s is None


def test_what_was_in_flight_is_possibly_lost_and_told_once() -> None:
    publisher = connected()
    assert offer(publisher, "a", b"x")
    publisher.seal(0.0)
    publisher.disconnected()
    assert publisher.books().possibly_lost == 1
    assert isinstance(publisher.refusals.take_failure(1), ConnectionLost)
    assert publisher.refusals.take_failure(1) is None


def test_while_somebody_waits_nobody_takes_the_short_way() -> None:
    publisher = connected()
    publisher.topics.route("a")
    publisher.hold()
    publisher.new_turn()
    assert not publisher.append("a", b"x")
    publisher.release()
    assert publisher.append("a", b"x")


@pytest.mark.parametrize("expires_in", [0, -1, float("nan"), float("inf")])
def test_an_expiry_that_is_no_time_is_refused(expires_in: float) -> None:
    with pytest.raises(InvalidSetting):
        prepare(CheckedTopics(), "a", b"", expires_in=expires_in)


def test_headers_over_the_limit_are_refused_with_their_size() -> None:
    with pytest.raises(LimitExceeded) as caught:
        prepare(CheckedTopics(), "a", b"", headers={"k": "v" * limits.MAX_HEADERS_SIZE})
    assert caught.value.limit == "max_headers_size"
    assert caught.value.current > limits.MAX_HEADERS_SIZE


class RandomBroker:
    """Takes, refuses and grants at random, as the protocol allows it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.batches: list[tuple[int, int]] = []
        self.accepted = self.refused = self.size = 0
        self.window = rng.randrange(500, 20_000)
        self.credit = self.window

    def receive(self, sealed: list[SealedBatch]) -> None:
        for batch in sealed:
            self.size += len(batch.record)
            assert self.size <= self.credit, "more than the credit was sent"
            self.batches.append((batch.number, parse_body(batch.record[5:]).count))

    def answer(self, publisher: Publisher) -> None:
        for _ in range(self.rng.randrange(len(self.batches) + 1)):
            number, count = self.batches.pop(0)
            refused = self.rng.choice([0, 0, 0, count, self.rng.randrange(count + 1)])
            if refused:
                self.refused += refused
                publisher.refused(
                    Refused(number=number, messages=refused, reason=self.rng.choice(["rate", "draining"]))
                )
            self.accepted += count - refused
        self.credit = max(self.credit, self.size - self.rng.randrange(200) + self.window)
        publisher.taken(Taken(accepted=self.accepted, refused=self.refused, credit=self.credit))


@pytest.mark.parametrize("seed", range(30))
def test_the_publishers_books_balance_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    publisher = Publisher(offline_buffer_size=5000)
    for topic in "abc":
        publisher.topics.route(topic)
    broker: RandomBroker | None = None
    published = 0
    now = 0.0
    for _ in range(400):
        now += rng.random()
        action = rng.random()
        if action < 0.5:
            topic, payload = rng.choice("abc"), bytes(rng.randrange(400))
            options: dict[str, object] = rng.choice(
                [{}, {}, {"headers": {"k": "v"}}, {"expires_in": 0.5}, {"reply_to": "r", "request": 1}]
            )
            if broker is None and "request" in options:
                options = {}
            taken = publisher.append(topic, payload) if not options else False
            published += taken or offer(publisher, topic, payload, now, **options)
        elif action < 0.7:
            sealed = publisher.seal(now)
            publisher.new_turn()
            if broker is not None:
                broker.receive(sealed)
            else:
                assert sealed == []
        elif action < 0.9 and broker is not None:
            broker.answer(publisher)
        elif action < 0.93 and broker is not None:
            publisher.disconnected()
            broker = None
        elif broker is None:
            broker = RandomBroker(rng)
            publisher.connected(broker.credit, rng.choice([100, 1000]))
        books = publisher.books()
        assert books.published == published, f"seed {seed}"
        assert balance(publisher) == 0, f"seed {seed}"
    publisher.disconnected()
    publisher.shut()
    assert publisher.is_settled
    assert balance(publisher) == 0
