"""Nodes of one mesh find each other on the local network: DNS-SD over multicast DNS (RFC 6763, RFC 6762).

What is announced is no secret and proves nothing: it only says where a node may be dialed, and the handshake tells who
is there. The extra `lan` brings python-zeroconf.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from typing import TYPE_CHECKING, Any

from quicbus.exceptions import InvalidSetting
from quicbus.transport.connection import shown_address
from quicbus.wire.frames import PROTOCOL_VERSION
from quicbus_broker.addresses import MAX_ADDRESSES, host_addresses, interfaces_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

    from quicbus.transport.connection import Address
    from quicbus_broker.addresses import Interface
    from quicbus_broker.mesh.outputs import NodeId

__all__ = ["SERVICE_TYPE", "LanDiscovery", "check_extra", "read_service"]

SERVICE_TYPE = "_quicbus._udp.local."
MAX_FOUND = 64
"""Nodes that are remembered at a time; one is enough to join. Anyone on the network can announce any number."""
REFRESH_S = 30.0
"""How often the interfaces are looked at, and what was found is offered again: a dial may have failed."""
RESOLVE_TIMEOUT_S = 3.0


def check_extra() -> None:
    """Raise `InvalidSetting` that names the remedy where python-zeroconf is missing."""
    try:
        import zeroconf.asyncio  # noqa: F401
    except ImportError:
        raise InvalidSetting(
            "discover", "finding nodes on the local network needs python-zeroconf: pip install 'quicbus[lan]'"
        ) from None


class LanDiscovery:
    """Announces this node and looks for others of its mesh, as long as `run` runs.

    `on_found` is called on the loop with the id and `HOST:PORT`s of each node that is found, and again every half a
    minute while it is there: the callee knows whether it is connected. Raises `InvalidSetting` without the extra.
    """

    def __init__(
        self,
        *,
        mesh: str,
        node: NodeId,
        name: str,
        bound: Address,
        on_found: Callable[[NodeId, tuple[str, ...]], None],
        is_dialed: bool = True,
        interfaces: Callable[[], Sequence[Interface]] = interfaces_up,
    ) -> None:
        """`bound`: where this node listens; on one address only, nothing is sent on other interfaces.

        `is_dialed`: false in mode `client`, which looks for others and is not announced.
        """
        check_extra()
        self._mesh = mesh
        self._node = node
        self._name = name
        self._bound = bound
        self._on_found = on_found
        self._is_dialed = is_dialed
        self._interfaces = interfaces
        self._found: dict[str, tuple[NodeId, tuple[str, ...]]] = {}
        """By name of the service."""
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._is_failing = False
        self._log = logging.getLogger("quicbus_broker.mesh")

    async def run(self) -> None:
        """Announce and look for others until cancelled; where the network does not allow it, warn and try again."""
        while True:
            hosts = self._hosts()
            try:
                async with self._on_network(hosts):
                    self._is_failing = False
                    while hosts == self._hosts():
                        await asyncio.sleep(REFRESH_S)
                        for node, addresses in list(self._found.values()):
                            self._on_found(node, addresses)
            except _network_errors() as error:
                if not self._is_failing:
                    self._log.warning("= nodes of the local network cannot be found, trying again: %s", error)
                self._is_failing = True
                await asyncio.sleep(REFRESH_S)

    def _hosts(self) -> list[str]:
        return host_addresses(self._bound[0], self._interfaces())

    @contextlib.asynccontextmanager
    async def _on_network(self, hosts: Sequence[str]) -> AsyncIterator[None]:
        from zeroconf.asyncio import AsyncServiceBrowser

        network = _open(self._bound[0])
        try:
            browser = AsyncServiceBrowser(
                network.zeroconf, SERVICE_TYPE, handlers=[lambda **event: self._on_change(network, **event)]
            )
            try:
                if self._is_dialed:
                    # The name holds the node's id, so that nobody else has it: probing for it would only cost time.
                    await (await network.async_register_service(self._service(hosts), cooperating_responders=True))
                yield
            finally:
                await browser.async_cancel()
        finally:
            for task in self._resolving.values():
                task.cancel()
            self._resolving.clear()
            self._found.clear()
            await network.async_close()

    def _service(self, hosts: Sequence[str]) -> AsyncServiceInfo:
        from zeroconf.asyncio import AsyncServiceInfo

        node = self._node.hex()
        return AsyncServiceInfo(
            SERVICE_TYPE,
            f"{node}.{SERVICE_TYPE}",
            port=self._bound[1],
            server=f"{node}.local.",
            parsed_addresses=list(hosts),
            properties={"mesh": self._mesh, "node": node, "v": str(PROTOCOL_VERSION), "name": self._name},
        )

    def _on_change(self, network: AsyncZeroconf, *, name: str, state_change: Any, **_: Any) -> None:
        """A service came, changed or went; zeroconf calls this with keyword arguments."""
        from zeroconf import ServiceStateChange

        if state_change is ServiceStateChange.Removed:
            self._found.pop(name, None)
        elif name not in self._resolving and len(self._resolving) < MAX_FOUND:
            task = asyncio.create_task(self._resolve(network, name), name="broker-lan-resolve")
            self._resolving[name] = task
            task.add_done_callback(lambda _: self._resolving.pop(name, None))

    async def _resolve(self, network: AsyncZeroconf, name: str) -> None:
        from zeroconf import BadTypeInNameException
        from zeroconf.asyncio import AsyncServiceInfo

        try:
            service = AsyncServiceInfo(SERVICE_TYPE, name)
            if not await service.async_request(network.zeroconf, RESOLVE_TIMEOUT_S * 1000):
                return
        except (BadTypeInNameException, UnicodeError) as error:
            self._log.debug("< ignoring the service %r: %s", name, error)
            return
        addresses, said = service.parsed_addresses(), service.decoded_properties
        found = read_service(said, addresses, service.port, mesh=self._mesh, me=self._node)
        if found is None or (name not in self._found and len(self._found) >= MAX_FOUND):
            return
        if self._found.get(name) != found:
            self._log.info("< node %s is on the local network at %s", found[0].hex(), ", ".join(found[1]))
        self._found[name] = found
        self._on_found(*found)


def read_service(
    properties: Mapping[str, str | None], addresses: Sequence[str], port: int | None, *, mesh: str, me: NodeId
) -> tuple[NodeId, tuple[str, ...]] | None:
    """Return node id and `HOST:PORT`s of what a service says; `None` for this node, another mesh, and nonsense."""
    if properties.get("mesh") != mesh or properties.get("v") != str(PROTOCOL_VERSION):
        return None
    try:
        node = bytes.fromhex(properties.get("node") or "")
        hosts = [each for each in addresses if _can_be_dialed(each)]
    except ValueError:
        return None
    if len(node) != 16 or node == me or not port or not 0 < port < 65_536 or not hosts:
        return None
    return node, tuple(shown_address((host, port)) for host in hosts[:MAX_ADDRESSES])


def _can_be_dialed(host: str) -> bool:
    ip = ipaddress.ip_address(host)
    return not (ip.is_unspecified or ip.is_multicast or (ip.version == 6 and ip.is_link_local))


def _open(bound: str) -> AsyncZeroconf:
    """Open the multicast sockets: on all interfaces, or where this node listens on one address, on that one alone."""
    from zeroconf import InterfaceChoice, IPVersion
    from zeroconf.asyncio import AsyncZeroconf

    ip = ipaddress.ip_address(bound)
    try:
        if ip.is_unspecified:
            return AsyncZeroconf(InterfaceChoice.All, ip_version=IPVersion.V4Only if ip.version == 4 else IPVersion.All)
        return AsyncZeroconf([bound])
    except RuntimeError as error:  # how it says that there is no interface
        raise OSError(str(error)) from None


def _network_errors() -> tuple[type[Exception], ...]:
    from zeroconf import Error

    return (OSError, Error)
