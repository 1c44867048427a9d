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


@pytest.mark.interpreted
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


def maze(table: Table, depth: int, place: Place) -> list[Subscription]:
    """Filters that share every way of a topic of a's."""
    filters = ["/".join("a+"[number >> level & 1] for level in range(depth)) for number in range(2**depth)]
    subscriptions = [subscription(filter, place=place, id=1 + at) for at, filter in enumerate(filters)]
    for each in subscriptions:
        table.add(each)
    return subscriptions


def test_a_plan_is_made_in_pieces_of_so_many_steps() -> None:
    table, place = Table(), Place()
    subscriptions = maze(table, 13, place)
    planning = table.begin(b"a/" * 12 + b"a")
    pieces, steps = 1, 0
    while (plan := planning.go_on()) is None:
        assert planning._matching.steps - steps <= table_module.PIECE_STEPS
        steps = planning._matching.steps
        pieces += 1
    assert pieces >= 16_000 // table_module.PIECE_STEPS
    assert plan.matching == len(subscriptions)
    ((destination, members),) = plan.destinations
    assert destination is place
    assert set(members) == set(subscriptions)
    assert table.known(b"a/" * 12 + b"a") is plan


def test_a_usual_topic_takes_one_piece() -> None:
    table = Table()
    for number in range(10_000):
        table.add(subscription(f"site/{number % 100}/+/{number}/#"))
    assert table.begin(b"site/7/x/107/y").go_on() is not None


def test_a_plan_leaves_out_who_left_while_it_was_made_and_is_not_kept() -> None:
    table, place = Table(), Place()
    subscriptions = maze(table, 8, place)
    elsewhere, group = subscription("#"), subscription("a/#", group="workers")
    table.add(elsewhere)
    table.add(group)
    topic = b"a/" * 7 + b"a"
    planning = table.begin(topic)
    assert planning.go_on(300) is None
    for each in (*subscriptions[::2], elsewhere, group):
        table.discard(each)
        each.close()
    while (plan := planning.go_on()) is None:
        pass
    ((destination, members),) = plan.destinations
    assert destination is place
    assert set(members) == set(subscriptions[1::2])
    assert not plan.groups
    assert plan.matching == len(members)
    assert table.known(topic) is None
    assert found(table, topic.decode()) == set(members)


def test_who_came_while_a_plan_was_made_is_found_the_next_time() -> None:
    table = Table()
    maze(table, 8, Place())
    topic = b"a/" * 7 + b"a"
    planning = table.begin(topic)
    assert planning.go_on(300) is None
    late = subscription("/".join("a" * 8))
    table.add(late)
    while planning.go_on() is None:
        pass
    assert late in found(table, topic.decode())
