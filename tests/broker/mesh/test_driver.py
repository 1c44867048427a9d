"""The driver between machines that only record, and connections that are pipes: who is dialed, what is performed."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any

import pytest

from quicbus import limits
from quicbus.identity import Verifier
from quicbus.testing.pipe import Pipe
from quicbus.wire.batch import encode_body
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Ping, Pong
from quicbus.wire.node_frames import Prune, Reached, Skipped
from quicbus_broker.edge import Edge, EdgeLimits, Exchange
from quicbus_broker.mesh import driver as driver_module
from quicbus_broker.mesh.driver import MeshDriver
from quicbus_broker.mesh.outputs import (
    BundleArrived,
    CloseConnection,
    ConnectionClosed,
    ConnectionOpened,
    Deliver,
    Dial,
    DialFailed,
    FrameArrived,
    MemberChanged,
    MemberRevoked,
    PauseChanged,
    Returned,
    SelfRevoked,
    SendBundle,
    SendFrame,
    SpreadReached,
    State,
    Superseded,
    TrustLearned,
    UseConnection,
)
from quicbus_broker.routing import Router
from tests.broker.mesh.linked import authority, direct, node_credential

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from quicbus.transport.connection import Address, Connection, ConnectionHandler
    from quicbus.transport.engine import EngineConfiguration
    from quicbus_broker.mesh.outputs import MeshInput, MeshOutput

DEADLINE_S = 10.0


class FakeMesh:
    """Records what it is told; `answer` says what it wants done."""

    def __init__(self, name: str, boot: int) -> None:
        self.me = node_credential(name).node_id
        self.name = name
        self.boot = boot
        self.mode = "hybrid"
        self.events: list[MeshInput] = []
        self.answer: Callable[[MeshInput], list[MeshOutput]] = lambda event: []
        self.starts: list[dict[str, Any]] = []
        self.ticks: list[float] = []
        self.timer = math.inf
        self.ended_turns = 0
        self.at_end_of_turn: list[MeshOutput] = []
        self.given_back: list[tuple[bytes, object]] = []
        self.leaves = 0
        self.refused: list[bytes] = []

    def start(self, **arguments: Any) -> list[MeshOutput]:
        self.starts.append(arguments)
        return [Dial(seed, None) for seed in arguments["seeds"]]

    def handle(self, event: MeshInput, now: float) -> list[MeshOutput]:
        self.events.append(event)
        outputs: list[MeshOutput] = []
        if isinstance(event, ConnectionOpened):
            outputs.append(UseConnection(event.node, event.connection))
        return outputs + self.answer(event)

    def tick(self, now: float) -> list[MeshOutput]:
        self.ticks.append(now)
        self.timer = math.inf
        return []

    def next_timer(self) -> float:
        return self.timer

    def end_turn(self, now: float) -> list[MeshOutput]:
        self.ended_turns += 1
        outputs, self.at_end_of_turn = self.at_end_of_turn, []
        return outputs

    def give_back(self, origin: bytes, batch: object, age_ms: int, now: float) -> list[MeshOutput]:
        self.given_back.append((origin, batch))
        return []

    def is_refused(self, node: bytes, now: float) -> bool:
        return node in self.refused

    def leave(self, now: float) -> list[MeshOutput]:
        self.leaves += 1
        return []

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Told:
    """DriverEvents and Receiver."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.takes = True
        self.on_deliver: Callable[[], None] = lambda: None

    def deliver(self, deliver: Deliver) -> bool:
        self.calls.append(("deliver", deliver))
        self.on_deliver()
        return self.takes

    def returned(self, node: bytes, batch: object, age_ms: int) -> None:
        self.calls.append(("returned", node, batch))

    def pause_changed(self, node: bytes, filter: str, is_paused: bool) -> None:
        self.calls.append(("pause", node, filter, is_paused))

    def congestion_changed(self, is_congested: bool) -> None:
        self.calls.append(("congestion", is_congested))

    def spread_reached(self, version: int) -> None:
        self.calls.append(("spread", version))

    def member_changed(self, change: MemberChanged) -> None:
        self.calls.append(("member", change))

    def member_revoked(self, revoked: MemberRevoked) -> None:
        self.calls.append(("revoked", revoked))

    def trust_learned(self, signed: bytes) -> None:
        self.calls.append(("trust", signed))

    def self_revoked(self) -> None:
        self.calls.append(("self revoked",))

    def superseded(self, boot: int, addresses: tuple[str, ...]) -> None:
        self.calls.append(("superseded", boot, addresses))


class Node:
    """A driver behind an edge, as a broker has them."""

    def __init__(self, name: str, boot: int = 1) -> None:
        self.name = name
        self.credential = node_credential(name)
        self.mesh = FakeMesh(name, boot)
        self.told = Told()
        clock = asyncio.get_running_loop().time
        self.driver = MeshDriver(
            self.mesh,  # type: ignore[arg-type]  # as much of it as a driver calls
            self.told,
            credential=lambda: self.credential,
            clock=clock,
            dial_timeout_s=0.05,
        )
        self.driver.receiver = self.told
        exchange = Exchange(Router(block_timeout_s=30.0), origin=self.mesh.me, boot=boot, clock=clock)
        self.edge = Edge(exchange, EdgeLimits())
        self.admission = self.edge.admission(Verifier(authority().certificate_pem, authority().mesh))
        self.admission.nodes = self.driver

    def link(self, node: Node) -> int:
        """Return the number of the connection with a node."""
        return next(link.number for link in self.driver.links if link.node == node.mesh.me)


class Network:
    """Which node is at which address; as an `Endpoint` it dials. What is nowhere never answers."""

    def __init__(self) -> None:
        self.nodes: dict[Address, Node] = {}
        self.names: dict[str, list[Address]] = {}
        self.pipes: list[Pipe] = []
        self.dialed: list[Address] = []
        self._wants_pump = False

    def dial(
        self,
        address: Address,
        configuration: EngineConfiguration,
        make_handler: Callable[[Connection], ConnectionHandler],
    ) -> Connection:
        assert configuration.server_name == f"node.{authority().mesh}.quicbus.internal"
        if address[0] == "::9":
            raise OSError(101, "Network is unreachable")
        self.dialed.append(address)
        pipe = Pipe()
        handler = make_handler(pipe.dialer)
        node = self.nodes.get(address)
        if node is not None:
            pipe.dialer.listener_node = node.mesh.me
            pipe.start(handler, node.edge.make_session(pipe.listener, node.admission))
        else:
            pipe.dialer.handler = pipe.listener.handler = handler
        pipe.wake = self._pump_soon
        self.pipes.append(pipe)
        self._pump_soon()
        return pipe.dialer

    async def addresses_of(self, name: str) -> list[Address]:
        if name not in self.names:
            raise OSError("no such name")
        return self.names[name]

    def _pump_soon(self) -> None:
        if not self._wants_pump:
            self._wants_pump = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        while any(pipe.pump_once() for pipe in list(self.pipes)):
            pass
        self._wants_pump = False


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(driver_module, "addresses_of", made.addresses_of)
    return made


@contextlib.asynccontextmanager
async def started(network: Network, *names: str, **seeds: str) -> AsyncIterator[list[Node]]:
    """Nodes that are started, each at the name `<name>:1`; `seeds` are dialed at once."""
    async with asyncio.timeout(DEADLINE_S):
        nodes = [Node(name) for name in names]
        for index, node in enumerate(nodes):
            address = (f"192.0.2.{index + 1}", 1)
            network.nodes[address] = node
            network.names[f"{node.name}:1"] = [address]
        for node in nodes:
            seed = (seeds[node.name],) if node.name in seeds else ()
            node.driver.start(network, addresses=(f"{node.name}:1",), seeds=seed)  # type: ignore[arg-type]
        await settled()
        yield nodes
        for node in nodes:
            node.driver.close()
        await settled()


async def settled() -> None:
    """Let everything that is ready happen."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # with the deadline of the whole test
        await asyncio.sleep(0.001)


def perform(node: Node, *outputs: MeshOutput) -> None:
    node.driver.perform(list(outputs))


# --- dialing ----------------------------------------------------------------------------------------------------------


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
        await until(lambda: oslo.mesh.events)

        assert oslo.mesh.events == [DialFailed("silent:1", tokyo.mesh.me, "no answer within 0.05 s")]


async def test_one_address_that_answers_is_enough(network: Network) -> None:
    async with started(network, "oslo", "tokyo") as (oslo, _):
        network.names["tokyo:1"].insert(0, ("192.0.2.99", 1))
        perform(oslo, Dial("tokyo:1", None))
        await until(lambda: network.pipes and network.pipes[0].dialer.is_closed)

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


# --- what is performed ------------------------------------------------------------------------------------------------


async def test_frames_and_bundles_reach_the_other_machine(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        bundle = direct(1)
        perform(oslo, SendFrame(tokyo.mesh.me, Ping(id=7)), SendBundle(tokyo.mesh.me, bundle))
        await settled()

        assert tokyo.mesh.of(FrameArrived) == [FrameArrived(1, Ping(id=7))]
        (arrived,) = tokyo.mesh.of(BundleArrived)
        assert arrived.bundle.batches == bundle.batches


async def test_what_is_for_a_node_without_a_connection_is_dropped_and_counted(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        body = encode_body(b"t", [b"1", b"2"], number=1)
        perform(oslo, SendFrame(bytes(16), Ping(id=7)), SendBundle(bytes(16), direct(1, body)))

        assert oslo.driver.dropped == {"no_link": 2}


async def test_what_overflows_is_counted_and_told_to_the_receiver(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        (link,) = oslo.driver.links
        monkeypatch.setattr(link.outbox, "_queue_size", 1000)
        body = encode_body(b"t", [bytes(300), bytes(300)], number=1)
        perform(oslo, *(SendBundle(tokyo.mesh.me, direct(sequence, body, lane=4)) for sequence in (1, 2, 3)))
        await settled()

        assert oslo.driver.dropped == {"link_overflow": 4}
        skips = [event.frame for event in tokyo.mesh.of(FrameArrived)]
        assert skips == [Skipped(boot=2, lane=4, first=number, last=number, messages=2) for number in (1, 2)]


async def test_congestion_is_told_once_for_all_links(network: Network) -> None:
    async with started(network, "oslo", "tokyo", "lima") as (oslo, tokyo, lima):
        perform(oslo, Dial("tokyo:1", None), Dial("lima:1", None))
        await settled()
        body = bytes(limits.LINK_WINDOW)

        perform(oslo, *(SendBundle(node.mesh.me, direct(1, body), True) for node in (tokyo, lima)))
        assert oslo.told.calls == [("congestion", True)]
        await settled()

        assert oslo.told.calls == [("congestion", True), ("congestion", False)]


async def test_the_peer_of_a_connection_that_is_closed_hears_why(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        perform(oslo, CloseConnection(1, CloseCode.REPLACED, "there is another one"))
        await settled()

        assert oslo.mesh.of(ConnectionClosed) == [ConnectionClosed(1, "there is another one", True)]
        assert tokyo.mesh.of(ConnectionClosed) == [ConnectionClosed(1, "there is another one", True)]


async def test_a_connection_that_breaks_is_not_clean(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, _):
        network.pipes[0].break_off("no sign of life")
        await settled()

        assert oslo.mesh.of(ConnectionClosed) == [ConnectionClosed(1, "no sign of life", False)]


async def test_what_a_lost_connection_had_not_sent_goes_over_the_other_one(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        perform(oslo, Dial("tokyo:1", None))
        await settled()
        network.pipes[1].silent = True
        perform(oslo, SendBundle(tokyo.mesh.me, direct(3)))
        oslo.mesh.answer = lambda event: (
            [UseConnection(tokyo.mesh.me, 1)] if isinstance(event, ConnectionClosed) else []
        )
        network.pipes[1].silent = False
        network.pipes[1].break_off("no sign of life")
        await settled()

        assert [event.bundle.number for event in tokyo.mesh.of(BundleArrived)] == [3]
        assert not oslo.driver.dropped


async def test_what_a_lost_connection_had_not_sent_is_counted_where_there_is_no_other(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        oslo.mesh.answer = lambda event: (
            [UseConnection(tokyo.mesh.me, None)] if isinstance(event, ConnectionClosed) else []
        )
        network.pipes[0].silent = True
        perform(oslo, SendBundle(tokyo.mesh.me, direct(3, encode_body(b"t", [b"1"], number=1))))
        network.pipes[0].silent = False
        network.pipes[0].break_off("no sign of life")
        await settled()

        assert oslo.driver.dropped == {"link_lost": 1}


async def test_the_rest_of_the_broker_is_told(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        node, batch = bytes(16), direct(1).batches[0]
        deliver = Deliver(node, 1, batch, 0, 1)
        change = MemberChanged(node, "tokyo", None, State.ALIVE)
        perform(
            oslo,
            deliver,
            Returned(node, batch),
            PauseChanged(node, "a/#", True),
            SpreadReached(3),
            Superseded(9, ("a:1",)),
            change,
            revoked := MemberRevoked(node, "tokyo"),
            TrustLearned(b"list"),
            SelfRevoked(),
        )

        assert oslo.told.calls == [
            ("deliver", deliver),
            ("returned", node, batch),
            ("pause", node, "a/#", True),
            ("spread", 3),
            ("superseded", 9, ("a:1",)),
            ("member", change),
            ("revoked", revoked),
            ("trust", b"list"),
            ("self revoked",),
        ]


@pytest.mark.parametrize(
    ("before", "after", "level"),
    [
        (None, State.ALIVE, "INFO"),
        (State.ALIVE, State.SUSPECT, "WARNING"),
        (State.SUSPECT, State.FAILED, "WARNING"),
        (State.FAILED, State.ALIVE, "WARNING"),
        (State.ALIVE, State.LEFT, "INFO"),
    ],
)
async def test_who_is_warned_of_trouble_hears_of_its_end(
    before: State | None, after: State, level: str, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with started(network, "oslo") as (oslo,):
        perform(oslo, MemberChanged(bytes(16), "tokyo", before, after))
    assert [record.levelname for record in caplog.records if f"tokyo ({'00' * 16})" in record.getMessage()] == [level]


async def test_a_share_without_a_member_is_given_back(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        oslo.told.takes = False
        batch = direct(1).batches[0]

        perform(oslo, Deliver(bytes(16), 1, batch, 0, 1))

        assert oslo.mesh.given_back == [(bytes(16), batch)]


async def test_what_an_output_brings_about_is_performed_after_the_others(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        oslo.told.on_deliver = lambda: perform(oslo, SpreadReached(9))

        perform(oslo, Deliver(bytes(16), 1, direct(1).batches[0], 0, 1), SpreadReached(1))

        assert [call[0] for call in oslo.told.calls] == ["deliver", "spread", "spread"]
        assert oslo.told.calls[1:] == [("spread", 1), ("spread", 9)]


async def test_a_turn_is_ended_once_whatever_it_brought(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        before = oslo.mesh.ended_turns
        oslo.mesh.at_end_of_turn = [SendFrame(tokyo.mesh.me, Prune())]
        perform(oslo)
        oslo.driver.wants_end_turn()
        assert oslo.mesh.ended_turns == before
        await settled()

        assert oslo.mesh.ended_turns == before + 1
        assert tokyo.mesh.of(FrameArrived) == [FrameArrived(1, Prune())]


async def test_where_others_reached_this_node_is_not_for_the_machine(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        reached: list[str] = []
        oslo.driver.on_reached = reached.append
        perform(tokyo, SendFrame(oslo.mesh.me, Reached(address="192.0.2.7:1")))
        await settled()

        assert reached == ["192.0.2.7:1"]
        assert oslo.mesh.of(FrameArrived) == []


# --- time, mistakes, the end ------------------------------------------------------------------------------------------


async def test_the_machine_is_ticked_when_its_time_has_come(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        when = oslo.mesh.timer = asyncio.get_running_loop().time() + 0.01
        perform(oslo)
        await until(lambda: oslo.mesh.ticks)

        assert oslo.mesh.ticks[0] >= when
        assert len(oslo.mesh.ticks) == 1


async def test_an_earlier_time_moves_the_timer(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        now = asyncio.get_running_loop().time()
        for oslo.mesh.timer in (now + 3600, now + 0.01):
            perform(oslo)
        await until(lambda: oslo.mesh.ticks)


async def test_a_mistake_of_ours_ends_the_driver_with_its_reason(network: Network) -> None:
    async with started(network, "oslo") as (oslo,):
        oslo.mesh.tick = lambda now: 1 / 0  # type: ignore[assignment,return-value]
        oslo.mesh.timer = 0.0
        perform(oslo)

        with pytest.raises(ZeroDivisionError):
            await oslo.driver.run()
        oslo.mesh.timer = math.inf


async def test_leaving_closes_once_all_has_arrived(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        oslo.mesh.at_end_of_turn = [SendBundle(tokyo.mesh.me, direct(7)), SendFrame(tokyo.mesh.me, Prune())]
        leaving = asyncio.create_task(oslo.driver.leave())
        await settled()
        assert not leaving.done()
        assert tokyo.mesh.of(FrameArrived) == [FrameArrived(1, Prune()), FrameArrived(1, Ping(id=2**63 - 1))]
        assert [event.bundle.number for event in tokyo.mesh.of(BundleArrived)] == [7]

        perform(tokyo, SendFrame(oslo.mesh.me, Pong(id=2**63 - 1)))
        await leaving
        await settled()

        assert tokyo.mesh.of(ConnectionClosed) == [ConnectionClosed(1, "the node has left", True)]
        assert oslo.mesh.leaves == 1
        await oslo.driver.leave()
        assert oslo.mesh.leaves == 1


async def test_leaving_does_not_wait_for_those_that_close_by_themselves(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        leaving = asyncio.create_task(oslo.driver.leave())
        await settled()

        perform(tokyo, CloseConnection(1, CloseCode.GOODBYE, "you have left"))
        await leaving


async def test_leaving_does_not_wait_for_ever(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "LEAVE_TIMEOUT_S", 0.01)
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        await oslo.driver.leave()
        await settled()

        assert tokyo.mesh.of(ConnectionClosed) == [ConnectionClosed(1, "the node has left", True)]
        perform(oslo, Dial("tokyo:1", None))


async def test_the_window_of_a_link_is_what_limits_say(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        network.pipes[0].silent = True
        for sequence in range(1, 17):
            perform(oslo, SendBundle(tokyo.mesh.me, direct(sequence, bytes(1 << 20)), True))
        (link,) = oslo.driver.links
        link.before_transmit()

        assert link.outbox.under_way == limits.LINK_WINDOW
        network.pipes[0].silent = False
        network._pump_soon()
        await settled()
        assert len(tokyo.mesh.of(BundleArrived)) == 16


async def test_a_connection_that_was_replaced_is_closed_once_what_was_sent_on_it_is_taken(network: Network) -> None:
    async with started(network, "oslo", "tokyo", oslo="tokyo:1") as (oslo, tokyo):
        perform(oslo, Dial("tokyo:1", None))
        await settled()
        first, second = oslo.driver.links
        perform(oslo, UseConnection(tokyo.mesh.me, second.number))
        first.outbox.sent += 1

        perform(oslo, CloseConnection(first.number, CloseCode.REPLACED, "another one is used"))
        await settled()
        assert not oslo.mesh.of(ConnectionClosed)

        first.outbox.taken(first.outbox.sent)
        await until(lambda: oslo.mesh.of(ConnectionClosed))
        assert oslo.mesh.of(ConnectionClosed) == [ConnectionClosed(first.number, "another one is used", True)]
