"""The endpoints of a broker: one that dials and listens; as one of several workers one of the shared port beside it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.transport.endpoint import Endpoint, EndpointSettings
from quicbus.transport.handover import Handover
from quicbus.transport.sibling_sockets import SiblingSockets
from quicbus.transport.statistics import total_of
from quicbus.transport.udp_socket import BoundUdp
from quicbus_broker.settings import parse_listen

if TYPE_CHECKING:
    from quicbus.transport.connection import Address
    from quicbus.transport.endpoint import Listener
    from quicbus.transport.engine import Engine
    from quicbus.transport.sibling_sockets import HandoverStatistics
    from quicbus.transport.statistics import EndpointStatistics
    from quicbus_broker.settings import BrokerSettings
    from quicbus_broker.workers.seat import Seat

__all__ = ["Listening"]


class Listening:
    """Made by `open`."""

    def __init__(self, own: Endpoint, public: Endpoint, siblings: SiblingSockets | None = None) -> None:
        self.own = own
        """Where other nodes reach this broker, and from where it dials them."""
        self.public = public
        """What clients connect to; the same one, unless other workers share its port."""
        self._siblings = siblings

    @classmethod
    async def open(
        cls, settings: BrokerSettings, engine: Engine, listener: Listener, seat: Seat | None = None
    ) -> Listening:
        """Open the socket that the settings name, or take those of the seat.

        Raises `OSError` with the address as its `filename`.
        """
        if seat is not None:
            return await cls._take(seat, settings, engine, listener)
        try:
            endpoint = await Endpoint.open(
                bind=await _resolve(*parse_listen(settings.listen)),
                engine=engine,
                settings=_endpoint_settings(settings),
                listener=listener,
            )
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), settings.listen) from error
        return cls(endpoint, endpoint)

    @classmethod
    async def _take(cls, seat: Seat, settings: BrokerSettings, engine: Engine, listener: Listener) -> Listening:
        siblings = SiblingSockets(Handover(seat.number - 1), seat.inboxes)
        chosen = _endpoint_settings(settings, seat.retry_key)
        own = await Endpoint.open(
            bind=None, engine=engine, settings=chosen, listener=listener, network=BoundUdp(seat.own)
        )
        public = await Endpoint.open(
            bind=None,
            engine=engine,
            settings=chosen,
            listener=listener,
            network=BoundUdp(seat.shared),
            elsewhere=siblings,
        )
        siblings.open(public)
        return cls(own, public, siblings)

    def stop_accepting(self) -> None:
        self.own.stop_accepting()
        self.public.stop_accepting()

    async def close(self, reason: str) -> None:
        """Close all connections and release the sockets, within a second or two. May be called twice."""
        if self._siblings is not None:
            self._siblings.close()
            await self.own.close(reason)
        await self.public.close(reason)

    def statistics(self) -> EndpointStatistics:
        """Of both endpoints together."""
        if self.own is self.public:
            return self.public.statistics()
        return total_of(self.own.statistics(), self.public.statistics())

    def handover(self) -> HandoverStatistics | None:
        """What was exchanged with the other workers, where there are any."""
        return None if self._siblings is None else self._siblings.statistics()


async def _resolve(host: str, port: int) -> Address:
    """Return the first address of a host; raises `OSError` where it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except UnicodeError as error:
        raise OSError(socket.EAI_NONAME, f"no host name ({error})") from None
    return str(found[0][4][0]), port


def _endpoint_settings(settings: BrokerSettings, retry_key: bytes | None = None) -> EndpointSettings:
    return EndpointSettings(
        retry=settings.retry,
        retry_key=retry_key,
        retry_auto_half_open=settings.retry_auto_half_open,
        retry_auto_rate=settings.retry_auto_rate,
        # The edge refuses proven clients and nodes beyond their limits by name; strangers have room of their own.
        max_connections=settings.max_connections
        + settings.max_half_open
        + limits.MAX_NODE_CONNECTIONS
        + limits.MAX_JOINERS,
        max_connections_per_address=settings.max_connections_per_address,
        max_half_open=settings.max_half_open,
        max_handshakes_per_address=settings.max_handshakes_per_address,
        handshake_share=settings.handshake_share,
        max_unproven_size=settings.max_unproven_size,
        max_unproven_total_size=settings.max_unproven_total_size,
        handshake_timeout_s=settings.handshake_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        keep_alive_s=settings.keep_alive_s,
        max_datagram_size=settings.max_datagram_size,
        qlog_dir=settings.qlog_dir,
    )
