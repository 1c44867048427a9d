"""Which addresses a node advertises, with the interfaces of hosts that this one is not."""

from __future__ import annotations

import ipaddress

import pytest

from quicbus_broker.addresses import (
    MAX_ADDRESSES,
    MAX_OBSERVED,
    OBSERVED_LIFETIME_S,
    AdvertisedAddresses,
    Interface,
    ObservedAddresses,
    host_addresses,
)
from quicbus_broker.settings import BrokerSettings

LOOPBACK = Interface("lo", ("127.0.0.1", "::1"))
ETHERNET = Interface("eth0", ("192.168.1.7", "2606:4700::7", "fd00::7", "fe80::7%eth0"))
WAN = Interface("ppp0", ("8.8.4.4",))
DOCKER = Interface("docker0", ("172.17.0.1", "fe80::1%docker0"))
AUTO = Interface("eth1", ("169.254.3.4", "0.0.0.0", "nonsense"))
HOST = [LOOPBACK, DOCKER, ETHERNET, AUTO, WAN]


def advertised(
    listen: str = "[::]:4433", interfaces: list[Interface] = HOST, bound: str = "::", **settings: object
) -> AdvertisedAddresses:
    made = BrokerSettings(listen=listen, **settings)  # type: ignore[arg-type]  # any setting
    return AdvertisedAddresses(made, (bound, 5555), lambda: interfaces)


def test_addresses_of_the_host_stand_best_first() -> None:
    assert advertised().current() == (
        "8.8.4.4:5555",
        "[2606:4700::7]:5555",
        "192.168.1.7:5555",
        "[fd00::7]:5555",
        "172.17.0.1:5555",
    )


def test_a_socket_for_ipv4_advertises_no_ipv6() -> None:
    assert host_addresses("0.0.0.0", HOST) == ["8.8.4.4", "192.168.1.7", "172.17.0.1"]


@pytest.mark.parametrize("bound", ["127.0.0.1", "192.168.1.7", "fd00::7"])
def test_a_node_that_listens_at_one_address_advertises_that_one(bound: str) -> None:
    assert host_addresses(bound, HOST) == [bound]


def test_loopback_is_advertised_where_there_is_nothing_else() -> None:
    assert host_addresses("::", [LOOPBACK, AUTO]) == ["127.0.0.1", "::1"]
    assert host_addresses("::", []) == []


def test_what_is_advertised_by_hand_stands_alone() -> None:
    node = advertised(advertise=("broker.example:1", "[2606:4700::1]:2"))
    node.observed.confirm("9.9.9.9:9", now=1.0)

    assert node.current(now=1.0) == ("broker.example:1", "[2606:4700::1]:2")


def test_a_node_that_only_dials_advertises_nothing() -> None:
    assert advertised(mode="client").current() == ()


def test_what_others_observed_and_dialed_follows_the_addresses_of_the_host() -> None:
    node = advertised(interfaces=[LOOPBACK, WAN])

    assert node.observed.confirm("9.9.9.9:9", now=1.0)
    assert node.observed.confirm("8.8.4.4:5555", now=2.0)
    assert node.current(now=2.0) == ("8.8.4.4:5555", "9.9.9.9:9")


def test_a_host_of_many_addresses_still_tells_the_observed_ones() -> None:
    many = Interface("eth0", tuple(f"10.0.0.{number}" for number in range(1, 30)))
    node = advertised(interfaces=[many])
    assert len(node.current()) == MAX_ADDRESSES

    node.observed.confirm("9.9.9.9:9", now=1.0)
    assert len(node.current(now=1.0)) == MAX_ADDRESSES
    assert node.current(now=1.0)[-1] == "9.9.9.9:9"


def test_observed_addresses_are_bounded_and_the_last_confirmed_stay() -> None:
    observed = ObservedAddresses()
    for number in range(10):
        assert observed.confirm(f"9.9.9.9:{1000 + number}", now=float(number))
    assert not observed.confirm("9.9.9.9:1006", now=11.0)

    assert observed.addresses(now=11.0) == tuple(f"9.9.9.9:{port}" for port in (1006, 1009, 1008, 1007))
    assert len(observed.addresses(now=11.0)) == MAX_OBSERVED


def test_what_nobody_confirms_any_more_is_forgotten() -> None:
    observed = ObservedAddresses()
    observed.confirm("9.9.9.9:1", now=0.0)

    assert observed.addresses(now=OBSERVED_LIFETIME_S) == ("9.9.9.9:1",)
    assert observed.addresses(now=OBSERVED_LIFETIME_S + 1) == ()
    assert observed.confirm("9.9.9.9:1", now=OBSERVED_LIFETIME_S + 2)


def test_an_address_that_could_not_be_dialed_is_taken_back() -> None:
    observed = ObservedAddresses()
    observed.confirm("9.9.9.9:1", now=0.0)

    assert observed.refute("9.9.9.9:1")
    assert not observed.refute("9.9.9.9:1")
    assert observed.addresses(now=0.0) == ()


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "[::1]:1", "[fe80::1%eth0]:1", "0.0.0.0:1", "", "name:1", "1.1.1.1"]
)
def test_what_no_other_host_can_dial_is_never_confirmed(address: str) -> None:
    observed = ObservedAddresses()

    assert not observed.confirm(address, now=0.0)
    assert observed.addresses(now=0.0) == ()


def test_the_interfaces_of_this_host_are_read() -> None:
    current = AdvertisedAddresses(BrokerSettings(), ("::", 4433)).current()

    assert current
    for address in current:
        host = address.rpartition(":")[0].strip("[]")
        assert not ipaddress.ip_address(host).is_link_local
