"""What one address takes of a listener."""

from __future__ import annotations

import pytest

from quicbus.transport.address_limits import REMEMBERED, AddressLimits, address_key


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("in-process", "in-process", True),
    ],
)
def test_an_ipv6_network_of_64_bits_is_one_address(one: str, other: str, is_same: bool) -> None:
    assert (address_key(one) == address_key(other)) is is_same


def test_connections_and_those_without_a_proof_are_counted_by_address() -> None:
    addresses = AddressLimits(100)
    uses = [addresses.accepted("192.0.2.1", 1.0) for _ in range(3)]
    addresses.accepted("192.0.2.2", 1.0)
    uses[0].unproven -= 1
    use = addresses.use("192.0.2.1")
    assert use is not None
    assert (use.connections, use.unproven) == (3, 2)
    assert addresses.use("192.0.2.3") is None


def test_an_address_begins_a_seconds_worth_of_handshakes_at_once_and_the_rest_as_time_passes() -> None:
    addresses = AddressLimits(10)
    begun = 0
    for tenth in range(30):
        now = 1.0 + tenth / 10
        while addresses.may_begin("192.0.2.1", now):
            addresses.accepted("192.0.2.1", now)
            begun += 1
    assert begun in (38, 39)
    assert addresses.may_begin("192.0.2.2", 4.0)


def test_an_address_that_began_many_has_to_prove_itself_before_it_may_begin_no_more() -> None:
    addresses = AddressLimits(10)
    for _ in range(5):
        addresses.accepted("192.0.2.1", 1.0)
    assert not addresses.is_half_used("192.0.2.1", 1.0)
    addresses.accepted("192.0.2.1", 1.0)
    assert addresses.is_half_used("192.0.2.1", 1.0)
    assert addresses.may_begin("192.0.2.1", 1.0)
    assert not addresses.is_half_used("192.0.2.1", 1.2)


def test_an_address_without_connections_is_forgotten_once_it_may_begin_as_many_as_ever() -> None:
    addresses = AddressLimits(10)
    use = addresses.accepted("192.0.2.1", 1.0)
    addresses.gone("192.0.2.1", use, 1.05)
    assert len(addresses) == 1, "its handshake still counts"
    use = addresses.accepted("192.0.2.1", 1.1)
    addresses.gone("192.0.2.1", use, 9.0)
    assert len(addresses) == 0


def test_addresses_that_come_and_go_take_bounded_memory_and_those_with_connections_stay() -> None:
    addresses = AddressLimits(10)
    addresses.accepted("192.0.2.1", 1.0)
    for number in range(2 * REMEMBERED + 10):
        host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        addresses.gone(host, addresses.accepted(host, 1.0), 1.0)
    assert len(addresses) <= REMEMBERED + 1
    assert addresses.use("192.0.2.1") is not None
