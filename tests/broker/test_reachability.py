"""Telling nodes where they are reached, and believing it, with links and dials that are fakes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from quicbus.wire.node_frames import Reached
from quicbus_broker import reachability
from quicbus_broker.addresses import AdvertisedAddresses, Interface
from quicbus_broker.reachability import Reachability
from quicbus_broker.settings import BrokerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

PEER = b"\x02" * 16
SEEN = ("9.9.9.9", 61_000)


class FakeDialBacks:
    def __init__(self) -> None:
        self.begun: list[tuple[bytes, tuple[str, int]]] = []

    def begin(self, node: bytes, address: tuple[str, int], reached: Callable[[str], None]) -> bool:
        self.begun.append((node, address))
        reached(f"{address[0]}:{address[1]}")
        return True


class FakeLink:
    def __init__(self, address: tuple[str, int] = SEEN) -> None:
        self.node = PEER
        self.is_closed = False
        self.peer_address = address
        self.connection = self
        self.sent: list[object] = []

    def send(self, frame: object) -> None:
        self.sent.append(frame)


class Node:
    def __init__(self, **settings: Any) -> None:
        self.interfaces = [Interface("eth0", ("192.168.1.7",))]
        self.said: dict[bytes, tuple[str, ...]] = {PEER: ("192.168.1.9:4433",)}
        self.changes: list[tuple[str, ...]] = []
        self.now = 0.0
        self.dial_backs = FakeDialBacks()
        self.reachability = Reachability(
            AdvertisedAddresses(BrokerSettings(**settings), ("::", 4433), lambda: self.interfaces),
            self.dial_backs,  # type: ignore[arg-type]  # a fake
            said_by=self.said.get,
            changed=self.changes.append,
            clock=lambda: self.now,
        )

    async def look(self, link: FakeLink) -> None:
        self.reachability.arrived(link)  # type: ignore[arg-type]  # a fake
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(reachability.LOOK_AFTER_S, passed.set)
        await passed.wait()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "LOOK_AFTER_S", 0.0)


async def test_a_node_that_comes_from_elsewhere_than_it_says_is_dialed_there_and_told() -> None:
    node, link = Node(), FakeLink()
    await node.look(link)

    assert node.dial_backs.begun == [(PEER, SEEN)]
    assert link.sent == [Reached(address="9.9.9.9:61000")]


async def test_a_node_that_says_where_it_comes_from_is_left_alone() -> None:
    node, link = Node(), FakeLink()
    node.said[PEER] = ("192.168.1.9:4433", "9.9.9.9:61000")
    await node.look(link)

    assert node.dial_backs.begun == []


async def test_a_node_that_is_gone_unknown_or_on_this_host_is_left_alone() -> None:
    node, gone, unknown = Node(), FakeLink(), FakeLink()
    gone.is_closed = True
    await node.look(gone)
    await node.look(FakeLink(("127.0.0.1", 61_000)))
    node.said.clear()
    await node.look(unknown)

    assert node.dial_backs.begun == []


def test_where_this_node_was_reached_is_said_to_all_once() -> None:
    node = Node()
    node.reachability.reached("9.9.9.9:61000")
    node.reachability.reached("9.9.9.9:61000")
    node.reachability.reached("nonsense")

    assert node.changes == [("192.168.1.7:4433", "9.9.9.9:61000")]
    assert node.reachability.current == ("192.168.1.7:4433", "9.9.9.9:61000")


def test_addresses_of_an_interface_that_came_later_are_said_to_all() -> None:
    node = Node()
    node.reachability.refresh()
    assert node.changes == []

    node.interfaces.append(Interface("wlan0", ("192.168.2.7",)))
    node.reachability.refresh()
    assert node.changes == [("192.168.1.7:4433", "192.168.2.7:4433")]


def test_addresses_that_were_named_by_hand_are_not_added_to() -> None:
    node = Node(advertise=("broker.example:1",))
    node.reachability.reached("9.9.9.9:61000")

    assert node.changes == []
    assert node.reachability.current == ("broker.example:1",)
