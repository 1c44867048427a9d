"""UDP sockets on loopback: segments, addresses, and what the system refuses."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from quicbus.transport import udp_socket
from quicbus.transport.counters import Counters
from quicbus.transport.datagram_socket import AsyncioNetwork
from quicbus.transport.network import is_this_host, plain_address
from quicbus.transport.udp_socket import UdpNetwork, UdpSocket, segment_groups
from tests.transport.pump import encrypted_pairing
from tests.transport.recorder import Recorders, dial, opened
from tests.transport.relay import RawSocket
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quicbus.transport.connection import Address
    from quicbus.transport.network import DatagramSocket, Network, Path

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="offloads and error queues are Linux's")
every_network = pytest.mark.parametrize(
    "network", [UdpNetwork(), UdpNetwork(offload=False), AsyncioNetwork()], ids=["offload", "plain", "asyncio"]
)


class Inbox:
    """A `DatagramReceiver` that keeps all datagrams."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.paths: list[Path] = []
        self.buffers = 0
        self.turns = 0
        self.unreachables: list[tuple[Any, str]] = []

    def received(self, buffer: bytes, segment_size: int, path: Path) -> None:
        self.buffers += 1
        for start in range(0, len(buffer), segment_size):
            self.datagrams.append(buffer[start : start + segment_size])
            self.paths.append(path)

    def turn_ended(self, *, is_behind: bool = False) -> None:
        self.turns += 1

    def unreachable(self, peer: Any, reason: str) -> None:
        self.unreachables.append((peer, reason))


@asynccontextmanager
async def bound(
    network: Network, inbox: Inbox, bind: Address | None = ("127.0.0.1", 0), counters: Counters | None = None
) -> AsyncIterator[DatagramSocket]:
    opened_socket = await network.open(bind, inbox, counters or Counters())
    try:
        yield opened_socket
    finally:
        opened_socket.close()
        await asyncio.sleep(0)


def test_groups_hold_equal_sizes_and_one_shorter_last() -> None:
    a, b, c = bytes(100), bytes(60), bytes(200)
    assert list(segment_groups([])) == []
    assert list(segment_groups([a])) == [[a]]
    assert list(segment_groups([a, a, b, a, c, c, a])) == [[a, a, b], [a], [c, c, a]]


def test_groups_keep_to_the_kernels_limits() -> None:
    assert [len(group) for group in segment_groups([bytes(10)] * 130)] == [64, 64, 2]
    assert [len(group) for group in segment_groups([bytes(8192)] * 16)] == [7, 7, 2]
    assert [len(group) for group in segment_groups([bytes(65_507)] * 2)] == [1, 1]
    datagrams = [bytes(size % 7 + 1) for size in range(300)]
    assert [datagram for group in segment_groups(datagrams) for datagram in group] == datagrams


@every_network
async def test_datagrams_of_many_sizes_arrive_as_they_were_sent(network: Network) -> None:
    inbox = Inbox()
    sent = [bytes((number,)) * size for number, size in enumerate([1200] * 70 + [900, 1200, 1200, 5, 8192, 8192, 40])]
    async with bound(network, inbox) as here, bound(network, Inbox()) as there:
        there.send(there.path_to(here.address), sent)
        await eventually(lambda: len(inbox.datagrams) == len(sent))
        assert inbox.datagrams == sent
        assert {path.address for path in inbox.paths} == {there.address}
        assert inbox.turns >= 1


@linux_only
async def test_equal_datagrams_arrive_in_one_buffer() -> None:
    inbox = Inbox()
    async with bound(UdpNetwork(), inbox) as here, bound(UdpNetwork(), Inbox()) as there:
        there.send(there.path_to(here.address), [bytes(1200)] * 40)
        await eventually(lambda: len(inbox.datagrams) == 40)
        assert inbox.buffers == 1


class TellingReads:
    """A socket that keeps what each read brought, `None` for nothing."""

    def __init__(self, udp: socket.socket) -> None:
        self._udp = udp
        self.reads: list[bytes | None] = []

    def recvmsg(self, *arguments: int) -> Any:
        try:
            read = self._udp.recvmsg(*arguments)
        except BlockingIOError:
            self.reads.append(None)
            raise
        self.reads.append(read[0])
        return read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._udp, name)


@linux_only
@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("sent", "reads"),
    [
        ([b"lone"], [b"lone"]),
        ([b"one", b"other!"], [b"one", b"other!", None]),
        ([bytes(1200)], [bytes(1200), None]),
    ],
    ids=["a small one", "two small ones", "a large one"],
)
async def test_after_a_pause_a_small_datagram_is_served_before_a_look_for_more(
    sent: list[bytes], reads: list[bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1.0]
    monkeypatch.setattr(udp_socket, "monotonic", lambda: clock[0])
    inbox = Inbox()
    async with bound(UdpNetwork(), inbox) as here, bound(UdpNetwork(), Inbox()) as there:
        assert isinstance(here, UdpSocket)
        here._socket = telling = TellingReads(here._socket)  # type: ignore[assignment]
        for datagram in sent:
            there.send(there.path_to(here.address), [datagram])
        await eventually(lambda: len(inbox.datagrams) == len(sent) and len(telling.reads) == len(reads))
        assert telling.reads == reads
        assert inbox.datagrams == sent
        # At the same time again it is not idle: it looks whether there is more.
        telling.reads.clear()
        there.send(there.path_to(here.address), [b"next"])
        await eventually(lambda: len(telling.reads) == 2)
        assert telling.reads == [b"next", None]


@linux_only
@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL])
async def test_a_kernel_that_refuses_segments_is_asked_once(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox, counters = Inbox(), Counters()
    async with bound(UdpNetwork(), inbox) as here, bound(UdpNetwork(), Inbox(), counters=counters) as there:
        assert isinstance(there, UdpSocket)
        refusing = _Refusing(there._socket, number)
        monkeypatch.setattr(there, "_socket", refusing)
        for _ in range(2):
            there.send(there.path_to(here.address), [bytes(100)] * 5)
        await eventually(lambda: len(inbox.datagrams) == 10)
        assert not there.can_segment
        assert refusing.refused == 1
        assert counters.send_errors == {}


@pytest.mark.interpreted
@linux_only
async def test_what_the_socket_does_not_take_waits_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    inbox, counters = Inbox(), Counters()
    monkeypatch.setattr(udp_socket, "MAX_UNSENT_SIZE", 1000)
    async with bound(UdpNetwork(), inbox) as here, bound(UdpNetwork(), Inbox(), counters=counters) as there:
        assert isinstance(there, UdpSocket)
        blocked = _Blocking(there._socket)
        monkeypatch.setattr(there, "_socket", blocked)
        path = there.path_to(here.address)
        for number in range(30):
            there.send(path, [bytes((number,)) * 100])
        assert counters.send_errors == {"queue_full": 20}
        blocked.is_blocked = False
        async with asyncio.timeout(60):
            await there.wait_sent()
        await eventually(lambda: len(inbox.datagrams) == 10)
        assert [datagram[0] for datagram in inbox.datagrams] == list(range(20, 30))


@linux_only
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EMSGSIZE, errno.ENETUNREACH, errno.EPERM])
async def test_what_cannot_be_sent_is_counted(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters()
    async with bound(UdpNetwork(), Inbox(), counters=counters) as there:
        assert isinstance(there, UdpSocket)
        monkeypatch.setattr(there, "_socket", _Refusing(there._socket, number, singles=True))
        there.send(there.path_to(("127.0.0.1", 9)), [bytes(100)] * 3)
        assert counters.send_errors == {errno.errorcode[number]: 3}
        assert there.can_segment


@linux_only
@pytest.mark.parametrize(("number", "told"), [(errno.ENETUNREACH, True), (errno.EPERM, True), (errno.ENOBUFS, False)])
async def test_a_peer_to_which_there_is_no_way_is_told(
    number: int, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox()
    async with bound(UdpNetwork(), inbox) as there:
        assert isinstance(there, UdpSocket)
        monkeypatch.setattr(there, "_socket", _Refusing(there._socket, number, singles=True))
        path = there.path_to(("127.0.0.1", 9))
        there.send(path, [bytes(100)])
        assert inbox.unreachables == ([(path.peer, os.strerror(number).lower())] if told else [])


@linux_only
async def test_a_dialer_without_a_network_is_told_at_once(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(engine) as there:
        ours = there._open_socket()
        assert isinstance(ours, UdpSocket)
        monkeypatch.setattr(ours, "_socket", _Refusing(ours._socket, errno.ENETUNREACH, singles=True))
        termination = await dial(there, ("127.0.0.1", 9)).wait_closed()
        assert termination.reason == "network is unreachable (127.0.0.1:9)"
        assert there.statistics().closed == {"unreachable": 1}


@linux_only
async def test_a_dead_port_is_named_by_its_address() -> None:
    with RawSocket.opened() as closed_soon:
        dead = closed_soon.address
    inbox = Inbox()
    async with bound(UdpNetwork(), inbox, bind=None) as there:
        path = there.path_to(dead)
        there.send(path, [b"anybody?"])
        await eventually(lambda: inbox.unreachables)
        assert inbox.unreachables[0] == (path.peer, "connection refused")


@linux_only
async def test_an_error_of_one_peer_does_not_cost_another_its_datagram() -> None:
    with RawSocket.opened() as closed_soon:
        dead = closed_soon.address
    inbox = Inbox()
    async with bound(UdpNetwork(), inbox) as here, bound(UdpNetwork(), Inbox(), bind=None) as there:
        for _ in range(20):
            there.send(there.path_to(dead), [b"dead"])
            there.send(there.path_to(here.address), [b"alive"])
        await eventually(lambda: len(inbox.datagrams) == 20)


async def test_a_socket_closes_twice() -> None:
    opened_socket = await UdpNetwork().open(("127.0.0.1", 0), Inbox(), Counters())
    opened_socket.close()
    opened_socket.close()
    opened_socket.send(opened_socket.path_to(("127.0.0.1", 9)), [b"late"])


@every_network
async def test_an_ipv4_socket_says_that_it_cannot_reach_ipv6(network: Network) -> None:
    async with bound(network, Inbox()) as here:
        with pytest.raises(OSError, match="cannot be reached"):
            here.path_to(("::1", 9))


@every_network
async def test_a_port_in_use_is_refused(network: Network) -> None:
    async with bound(network, Inbox()) as here:
        with pytest.raises(OSError, match="in use"):
            await network.open(here.address, Inbox(), Counters())


def test_addresses_are_shown_as_people_write_them() -> None:
    assert plain_address(("::ffff:192.0.2.1", 5, 0, 0)) == ("192.0.2.1", 5)
    assert plain_address(("2001:db8::1", 5, 0, 0)) == ("2001:db8::1", 5)
    assert plain_address(("192.0.2.1", 5)) == ("192.0.2.1", 5)


@pytest.mark.parametrize(
    ("host", "is_near"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("nonsense", False),
    ],
)
def test_this_host_is_told_from_others(host: str, is_near: bool) -> None:
    assert is_this_host(host) is is_near


@linux_only
@encrypted_pairing
@pytest.mark.parametrize("bind", ["0.0.0.0", "::"])
async def test_answers_leave_from_the_address_that_was_dialed(dialer: str, listener: str, bind: str) -> None:
    sessions = Recorders(echo=True)
    async with opened(listener, sessions, bind=(bind, 0)) as here, opened(dialer) as there:
        session = dial(there, ("127.0.0.2", here.address[1]))
        await session.wait_connected()
        session.connection.send(session.connection.open_stream(), b"hello")
        await session.wait(lambda me: me.all_received == b"hello")
        assert session.connection.peer_address == ("127.0.0.2", here.address[1])
        assert (await sessions.first()).connection.peer_address[0] == "127.0.0.1"


@linux_only
@pytest.mark.parametrize(("bind", "is_told"), [(("0.0.0.0", 0), True), (None, False)])
async def test_only_a_socket_that_is_dialed_is_told_where_datagrams_went(bind: Address | None, is_told: bool) -> None:
    inbox = Inbox()
    async with bound(UdpNetwork(), inbox, bind) as here, bound(UdpNetwork(), Inbox()) as there:
        there.send(there.path_to(("127.0.0.1", here.address[1])), [b"hello"])
        await eventually(lambda: inbox.paths)
        assert (inbox.paths[0].local is not None) is is_told


@encrypted_pairing
@every_network
async def test_ipv6_works_like_ipv4(dialer: str, listener: str, network: Network) -> None:
    _needs_ipv6()
    sessions = Recorders(echo=True)
    async with (
        opened(listener, sessions, bind=("::1", 0), network=network) as here,
        opened(dialer, bind=None, network=network) as there,
    ):
        assert here.address[0] == "::1"
        session = dial(there, here.address)
        await session.wait_connected()
        session.connection.send(session.connection.open_stream(), b"hello")
        await session.wait(lambda me: me.all_received == b"hello")
        assert (await sessions.first()).connection.peer_address == ("::1", there.address[1])


@every_network
async def test_a_dual_stack_listener_takes_both_and_shows_ipv4_as_ipv4(network: Network) -> None:
    _needs_ipv6()
    sessions = Recorders()
    async with (
        opened("qh3", sessions, bind=("::", 0), network=network) as here,
        opened("qh3", bind=None, network=network) as there,
    ):
        four, six = dial(there, ("127.0.0.1", here.address[1])), dial(there, ("::1", here.address[1]))
        await four.wait_connected()
        await six.wait_connected()
        await sessions.number(2)
        shown = sorted(session.connection.peer_address[0] for session in sessions.sessions)
        assert shown == ["127.0.0.1", "::1"]
        assert four.connection.peer_address == ("127.0.0.1", here.address[1])


def _needs_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this host has no IPv6")


class _Wrapped:
    """A socket that does as the real one but for `sendmsg` and `sendto`."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Refusing(_Wrapped):
    def __init__(self, real: socket.socket, number: int, *, singles: bool = False) -> None:
        super().__init__(real)
        self._number = number
        self._singles = singles
        self.refused = 0

    def sendmsg(self, buffers: list[bytes], *rest: Any) -> int:
        if len(buffers) > 1 or self._singles:
            self.refused += 1
            raise OSError(self._number, "refused")
        return self._real.sendmsg(buffers, *rest)

    def sendto(self, datagram: bytes, peer: Any) -> int:
        return self.sendmsg([datagram], [], 0, peer)


class _Blocking(_Wrapped):
    is_blocked = True

    def sendmsg(self, buffers: list[bytes], *rest: Any) -> int:
        if self.is_blocked:
            raise BlockingIOError
        return self._real.sendmsg(buffers, *rest)

    def sendto(self, datagram: bytes, peer: Any) -> int:
        return self.sendmsg([datagram], [], 0, peer)
