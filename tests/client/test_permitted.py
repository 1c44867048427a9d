"""What a client refuses early, by what its broker has told and refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.client.permitted import Permitted
from quicbus.exceptions import NotPermitted, ProtocolViolation
from quicbus.wire.frames import Permissions
from tests.client.scripted_broker import settle

if TYPE_CHECKING:
    from quicbus.client import Client
    from tests.client.scripted_broker import ScriptedDialer


def test_what_was_not_told_is_allowed() -> None:
    permitted = Permitted()
    assert permitted.may_publish("a")
    assert permitted.may_subscribe("#")


def test_what_was_told_is_kept_to() -> None:
    permitted = Permitted()
    permitted.told(
        Permissions(publish=("a/#",), deny_publish=("a/b",), subscribe=("c/+",), deny_subscribe=("c/secret",))
    )
    assert [permitted.may_publish(topic) for topic in ("a", "a/b", "a/c", "b")] == [True, False, True, False]
    assert [permitted.may_subscribe(filter) for filter in ("c/d", "c/+", "#")] == [True, False, False]
    assert permitted.may_publish("$quicbus/reply/x"), "the filters say nothing of these"
    assert permitted.may_subscribe("$quicbus/reply/x/+")


def test_denials_may_be_told_alone() -> None:
    permitted = Permitted()
    permitted.told(Permissions(deny_publish=("a",)))
    assert not permitted.may_publish("a")
    assert permitted.may_publish("b")


def test_what_was_refused_is_forgotten_when_the_broker_tells_anew() -> None:
    permitted = Permitted()
    permitted.refused("a")
    assert not permitted.may_publish("a")
    permitted.told(Permissions())
    assert permitted.may_publish("a")


def test_what_is_remembered_has_a_bound() -> None:
    permitted = Permitted()
    permitted.told(Permissions(publish=("t/+",)))
    for index in range(limits.TOPIC_CACHE_SIZE + 20):
        assert permitted.may_publish(f"t/{index}")
        assert len(permitted._decided) <= limits.TOPIC_CACHE_SIZE


@pytest.mark.parametrize("filter", ["", "a/#/b", "a+"])
def test_what_is_no_filter_is_a_violation(filter: str) -> None:
    with pytest.raises(ProtocolViolation, match="Permissions: invalid topic"):
        Permitted().told(Permissions(deny_subscribe=(filter,)))


async def test_a_client_raises_at_once_what_its_broker_has_told(bus: Client, dialer: ScriptedDialer) -> None:
    dialer.broker.send(Permissions(publish=("a",), subscribe=("b",)))
    await settle()

    with pytest.raises(NotPermitted) as publishing:
        await bus.publish("x", b"1")
    with pytest.raises(NotPermitted):
        bus.publish_nowait("x", b"1")
    with pytest.raises(NotPermitted) as subscribing:
        await bus.subscribe("x/#")
    await bus.publish("a", b"1")

    assert (publishing.value.action, publishing.value.topic) == ("publish", "x")
    assert (subscribing.value.action, subscribing.value.topic) == ("subscribe", "x/#")


async def test_what_the_broker_tells_later_counts_from_then_on(bus: Client, dialer: ScriptedDialer) -> None:
    await bus.publish("a", b"1")
    dialer.broker.send(Permissions(publish=()))
    await settle()
    with pytest.raises(NotPermitted):
        await bus.publish("a", b"2")
    dialer.broker.send(Permissions())
    await settle()
    await bus.publish("a", b"3")
