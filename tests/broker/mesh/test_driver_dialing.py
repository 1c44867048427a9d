"""Which connections a driver makes and takes, and what its machine hears of them."""

from __future__ import annotations

import pytest

from quicbus.wire.close_codes import CloseCode
from quicbus_broker.mesh.outputs import ConnectionOpened, Dial, DialFailed
from tests.broker.mesh.driven import Network, Node, perform, settled, started
from tests.broker.mesh.linked import authority
from tests.waiting import eventually


async def test_a_seed_becomes_a_connection_that_both_machines_hear_of(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        assert oslo.mesh.events == [
            ConnectionOpened(1, tokyo.mesh.me, 1, True, "tokyo:1", "127.0.0.1:50000"),
        ]
        assert tokyo.mesh.events == [ConnectionOpened(1, oslo.mesh.me, 1, False, "127.0.0.1:50000", "")]
        assert oslo.mesh.starts == [
            {
                "addresses": ("oslo:1",),
                "seeds": ("tokyo:1",),
                "remembered": (),
                "now": pytest.approx(oslo.mesh.starts[0]["now"]),
            }
        ]


async def test_several_addresses_of_a_name_count_as_several(network: Network) -> None:
    async with started(network, "oslo", "tokyo", "lima") as (oslo, tokyo, lima):
        network.names["seeds:1"] = [*network.names["tokyo:1"], *network.names["lima:1"]]

        perform(oslo, Dial("seeds:1", None))
        await settled()

        assert [(event.node, event.address) for event in oslo.mesh.of(ConnectionOpened)] == [
            (tokyo.mesh.me, "seeds:1"),
            (lima.mesh.me, "seeds:1"),
        ]


async def test_two_addresses_of_one_node_become_one_connection(network: Network) -> None:
    async with started(network, "oslo", "tokyo") as (oslo, tokyo):
        network.nodes["2001:db8::1", 1] = tokyo
        network.names["tokyo:1"].append(("2001:db8::1", 1))

        perform(oslo, Dial("tokyo:1", None))
        await settled()

        assert len(network.dialed) == 2
        assert [type(event) for event in oslo.mesh.events] == [ConnectionOpened]
        assert [type(event) for event in tokyo.mesh.events] == [ConnectionOpened]


async def test_a_name_without_an_address_fails(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        perform(oslo, Dial("nowhere:1", None))
        await settled()

        assert oslo.mesh.events == [DialFailed("nowhere:1", None, "nowhere: no such name")]


async def test_an_address_that_the_socket_cannot_reach_fails(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        network.names["[::9]:1"] = [("::9", 1)]
        perform(oslo, Dial("[::9]:1", None))
        await settled()

        assert oslo.mesh.events == [DialFailed("[::9]:1", None, "[::9]:1: Network is unreachable")]


async def test_silence_ends_with_the_dial_timeout(network: Network) -> None:
    async with started(network, "oslo", "tokyo") as (oslo, tokyo):
        network.names["silent:1"] = [("192.0.2.99", 1)]
        perform(oslo, Dial("silent:1", tokyo.mesh.me))
        await eventually(lambda: oslo.mesh.events)

        assert oslo.mesh.events == [DialFailed("silent:1", tokyo.mesh.me, "no answer within 0.05 s")]


async def test_one_address_that_answers_is_enough(network: Network) -> None:
    async with started(network, "oslo", "tokyo") as (oslo, _):
        network.names["tokyo:1"].insert(0, ("192.0.2.99", 1))
        perform(oslo, Dial("tokyo:1", None))
        await eventually(lambda: network.pipes and network.pipes[0].dialer.is_closed)

        assert [type(event) for event in oslo.mesh.events] == [ConnectionOpened]


async def test_a_credential_that_is_refused_is_final(network: Network) -> None:
    async with started(network, "oslo", "tokyo") as (oslo, _):
        oslo.credential = authority().issue_client("alice")
        perform(oslo, Dial("tokyo:1", None))
        await settled()

        (failure,) = oslo.mesh.events
        assert isinstance(failure, DialFailed)
        assert failure.is_final
        assert "can't open a node session" in failure.reason


async def test_a_node_that_dials_itself_is_no_connection(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        perform(oslo, Dial("oslo:1", None))
        await settled()

        assert oslo.mesh.events == [DialFailed("oslo:1", None, "this is the node itself", True, is_self=True)]
        assert oslo.told.calls == []


async def test_the_older_of_two_processes_with_one_key_is_told(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        younger = Node("oslo", boot=2)
        network.nodes["192.0.2.50", 1] = younger
        network.names["younger:1"] = [("192.0.2.50", 1)]
        younger.driver.start(network, addresses=())  # type: ignore[arg-type]

        perform(oslo, Dial("younger:1", None))
        await settled()

        assert oslo.told.calls == [("superseded", 2, ("younger:1",))]
        assert younger.told.calls == []
        assert oslo.driver.refusal(oslo.mesh.me, 5) is not None
        assert oslo.told.calls[-1] == ("superseded", 5, ())


async def test_more_dials_than_allowed_fail_at_once(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        network.names["silent:1"] = [("192.0.2.99", 1)]
        perform(oslo, *[Dial("silent:1", None)] * 65)

        assert oslo.mesh.events == [DialFailed("silent:1", None, "64 others are being dialed")]


@pytest.mark.parametrize(
    ("mode", "is_started", "code"),
    [("hybrid", False, CloseCode.GOING_AWAY), ("client", True, CloseCode.LIMIT_EXCEEDED), ("server", True, None)],
)
async def test_nodes_are_taken_by_those_that_accept(
    network: Network, mode: str, is_started: bool, code: CloseCode | None
) -> None:
    node = Node("oslo")
    node.mesh.mode = mode
    if is_started:
        node.driver.start(network, addresses=())  # type: ignore[arg-type]

    refusal = node.driver.refusal(bytes(16), 1)

    assert (refusal.code if refusal else None) == code


async def test_a_revoked_node_that_was_told_is_refused(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        oslo.mesh.refused.append(bytes(16))

        refusal = oslo.driver.refusal(bytes(16), 1)

        assert refusal is not None
        assert refusal.code == CloseCode.CREDENTIAL_REVOKED
        assert oslo.driver.refusal(b"o" * 16, 1) is None
