"""Who gets a topic, before and after every change."""

from __future__ import annotations

import random

import pytest

from quicbus.exceptions import InvalidTopic
from quicbus.topics import matches
from quicbus_broker.routing import Subscription
from quicbus_broker.routing import table as table_module
from quicbus_broker.routing.table import Table
from tests.broker.batches import Place, options


def subscription(filter: str, *, place: Place | None = None, id: int = 1, group: str | None = None) -> Subscription:
    return Subscription(place or Place(), id, filter, group, options())


def found(table: Table, topic: str) -> set[Subscription]:
    plan = table.plan(topic.encode())
    plain = {each for _, subscriptions in plan.destinations for each in subscriptions}
    return plain | {member for group in plan.groups for member in group.members}


def test_subscriptions_of_one_destination_stand_together() -> None:
    table, place = Table(), Place()
    one, other, elsewhere = subscription("a/+", place=place), subscription("a/b", place=place), subscription("#")
    for each in (one, elsewhere, other):
        table.add(each)

    plan = table.plan(b"a/b")

    assert dict(plan.destinations) == {place: (one, other), elsewhere.destination: (elsewhere,)}
    assert plan.matching == 3


def test_a_group_counts_once_however_many_members_it_has() -> None:
    table = Table()
    members = [subscription("a", group="workers") for _ in range(3)]
    for member in members:
        table.add(member)

    plan = table.plan(b"a")

    assert plan.matching == 1
    assert plan.groups[0].members == members


def test_groups_of_another_name_or_filter_are_others() -> None:
    table = Table()
    for filter, name in (("a", "x"), ("a", "y"), ("+", "x")):
        table.add(subscription(filter, group=name))

    assert table.plan(b"a").matching == 3


def test_the_last_member_takes_its_group_along() -> None:
    table = Table()
    one, other = subscription("a", group="x"), subscription("a", group="x")
    table.add(one)
    table.add(other)

    assert table.discard(one) is table.plan(b"a").groups[0]
    assert table.discard(other) is None
    assert table.plan(b"a").matching == 0


@pytest.mark.parametrize("topic", [b"", b"a/+", b"#", b"a\x00b", b"\xff\xfe", b"x" * 65_536])
def test_a_topic_that_mqtt_does_not_allow_is_refused_every_time(topic: bytes) -> None:
    table = Table()

    for _ in range(2):
        with pytest.raises(InvalidTopic):
            table.plan(topic)


def test_reply_topics_are_not_remembered() -> None:
    table = Table()

    table.plan(b"$quicbus/reply/" + b"0" * 32 + b"/" + b"0" * 32 + b"/1")

    assert table._plans == {}


def test_the_memory_for_topics_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "CACHED_TOPICS", 10)
    monkeypatch.setattr(table_module, "CACHED_TOPICS_SIZE", 100)
    table = Table()

    for number in range(100):
        table.plan(b"topic/%d" % number)
        table.plan(b"x" * number + b"y")
        assert len(table._plans) <= 10
        assert table._plans_size == sum(map(len, table._plans)) <= 100


@pytest.mark.parametrize("seed", range(15))
def test_a_change_is_seen_at_once(seed: int) -> None:
    rng = random.Random(seed)
    levels = ["a", "b", "$c"]
    topics = ["/".join(rng.choices(levels, k=rng.randint(1, 3))) for _ in range(12)]
    table = Table()
    live: list[Subscription] = []
    for _ in range(200):
        if live and rng.random() < 0.4:
            gone = live.pop(rng.randrange(len(live)))
            table.discard(gone)
        else:
            parts = rng.choices([*levels, "+"], k=rng.randint(1, 3))
            if rng.random() < 0.2:
                parts[-1] = "#"
            new = subscription("/".join(parts), group=rng.choice((None, None, "g", "h")))
            table.add(new)
            live.append(new)
        for topic in rng.sample(topics, 4):
            assert found(table, topic) == {each for each in live if matches(each.filter, topic)}
