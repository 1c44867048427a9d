"""Settings of a broker. Filled by code, or by `quicbus.settings.load_settings` from file, environment and options."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, fields
from pathlib import Path  # noqa: TC003  # the types of settings are read at run time
from typing import Annotated, Literal, get_type_hints

import msgspec

from quicbus import limits
from quicbus.exceptions import InvalidSetting
from quicbus.identity.names import check_name
from quicbus.setting_values import convert_value
from quicbus.settings import default_data_dir
from quicbus_broker.edge import EdgeLimits
from quicbus_broker.host_port import parse_advertised, parse_seed
from quicbus_broker.mesh.config import MeshConfig

__all__ = ["BrokerSettings", "parse_listen"]

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=limits.MAX_TIME_S)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """What a broker needs. Times in seconds, sizes in bytes. Raises `InvalidSetting` for what is not allowed."""

    listen: str = "[::]:4433"
    """`HOST:PORT` for UDP; `[::]` takes IPv4 too, port 0 picks a free one. IPv6 addresses stand in brackets."""
    data_dir: Path | None = None
    """Folder of keys and certificates; without it the user's data folder. A broker locks it while it runs."""
    name: str = ""
    """Name of this node in a certificate that is made at the first start; without it the host's name."""
    seed: tuple[str, ...] = ()
    """Nodes of the mesh to join, `HOST:PORT` (port 4433 unless given); one that answers is enough. Joining needs a node
    certificate of that mesh: `quicbus cert issue --node NAME --out DIR`. Without a seed a first start makes a mesh."""
    join: str = field(default="", repr=False)
    """Join token of `quicbus token create`, or a file that holds one (it is a secret): become a node of its mesh, where
    the data folder has no certificate of it yet. Its seeds count as `seed`."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=limits.MAX_WORKERS)] = 1
    """Processes that serve the port together (Linux only), each a node of its own: about one a processor core. Each has
    the limits below to itself, and one of the next ports for the other nodes: with 4433 the first has 4434."""
    mode: Literal["hybrid", "server", "client"] = "hybrid"
    """Towards other nodes: `hybrid` dials and accepts, `server` only accepts, `client` only dials (behind a NAT)."""
    advertise: tuple[str, ...] = ()
    """Where other nodes and clients reach this node, `HOST:PORT`, best first: for a port forward or a public name.
    Without it the addresses of this host, and those under which other nodes saw it and reached it."""
    max_hops: Annotated[int, msgspec.Meta(ge=1, le=255)] = MeshConfig().max_hops
    """Over how many nodes a broadcast of this node may go; it must exceed the diameter of the mesh."""
    discover: bool = False
    """Find the nodes of this mesh on the local network by DNS-SD, and be found; needs `pip install 'quicbus[lan]'`."""
    engine: Literal["auto", "aioquic", "qh3"] = "auto"
    """QUIC implementation; `auto` takes qh3 where it is installed."""
    certificate: Path | None = None
    """PEM file with the node's certificate instead of the data folder's; `private_key` and `authority` go with it.
    Files that are replaced while the broker runs are taken over, and no session ends."""
    private_key: Path | None = None
    """PEM file with the key of `certificate`."""
    authority: Path | None = None
    """PEM file with the certificate of the authority that issued `certificate` and those of the clients. `none`: make
    no authority here; a data folder without a node certificate gets a signing request, for `quicbus cert sign`."""
    permissions_file: Path | None = None
    """TOML file with the table `[permissions]`: who may publish and subscribe to what. Without it the file of these
    settings, else `quicbus.toml` in the data folder; without the table everyone may do everything."""
    max_message_size: Annotated[int, msgspec.Meta(ge=1, le=limits.MAX_MESSAGE_SIZE_CEILING)] = limits.MAX_MESSAGE_SIZE
    """Payload of one message. A publisher may have two of the largest on their way."""
    max_connections: _Positive = limits.MAX_CONNECTIONS
    """Clients at a time; an idle one costs 40 to 70 KB."""
    max_connections_per_address: _Positive = limits.MAX_CONNECTIONS_PER_ADDRESS
    """Connections at a time of one IPv4 address or one IPv6 network of 64 bits, this host's own included."""
    max_half_open: _Positive = limits.MAX_HALF_OPEN
    """Connections without an accepted proof at a time, of one address a quarter of them; beyond it the first datagrams
    of strangers are dropped and come again."""
    max_handshakes_per_address: _Positive = limits.MAX_HANDSHAKES_PER_ADDRESS
    """Handshakes that one address may begin in a second; beyond it its first datagrams are dropped and come again."""
    handshake_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = limits.HANDSHAKE_SHARE
    """Part of the broker's time for those who come in; clients that are there are served first."""
    max_unproven_size: Annotated[int, msgspec.Meta(ge=limits.MIN_UNPROVEN_SIZE)] = limits.UNDELIVERED_BEFORE_PROOF
    """What one connection may make the broker hold before its proof is accepted."""
    max_unproven_total_size: Annotated[int, msgspec.Meta(ge=limits.MIN_UNPROVEN_SIZE)] = limits.MAX_UNPROVEN_TOTAL_SIZE
    """What all connections without an accepted proof have sent; beyond it those that sent most are closed."""
    max_join_rate: _Positive = limits.MAX_JOIN_RATE
    """Requests with join tokens that this node takes to the authority in a second, ten seconds' worth at once, of one
    address a quarter; beyond it joiners are told when to come again. Renewals are not counted."""
    max_subscriptions: Annotated[int, msgspec.Meta(ge=1, le=limits.MAX_SUBSCRIPTIONS)] = limits.MAX_SUBSCRIPTIONS
    """Of one client."""
    max_filter_size: Annotated[int, msgspec.Meta(ge=1, le=limits.MAX_TOPIC_SIZE)] = limits.MAX_TOPIC_SIZE
    """Of one filter of a client."""
    max_filters_size: _Positive = limits.MAX_FILTERS_SIZE
    """Of all filters and group names of one client."""
    max_publish_rate: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Messages per second of one client; 0 is no limit. Clients keep to it by themselves: `publish` waits. One that
    does not gets no credit, and what is two seconds ahead is refused."""
    max_publish_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bytes per second of one client, as batches with their topic stand on the wire; 0 is no limit. Otherwise as
    `max_publish_rate`."""
    max_unread_size: Annotated[int, msgspec.Meta(ge=limits.MIN_UNREAD_SIZE)] = limits.MAX_UNREAD_SIZE
    """What one client's network has not taken; beyond it messages wait, and `max_pending` and the overflow policy of
    each subscription hold."""
    max_pending: _Positive = 16 * limits.MAX_PENDING
    """What one subscription may ask for as its `max_pending`, in messages."""
    max_pending_size: _Positive = 4 * limits.MAX_PENDING_SIZE
    """What one subscription may ask for as its `max_pending_bytes`. It bounds the memory of a slow subscriber."""
    retry: Literal["always", "never", "auto"] = "always"
    """Whether strangers prove their address before anything is kept for them. It costs one round trip and keeps forged
    addresses out; `auto` demands it during a flood, `never` is for networks without strangers."""
    retry_auto_half_open: _Positive = limits.RETRY_AUTO_HALF_OPEN
    """Connections without an accepted proof from which on `retry = "auto"` demands one of the address."""
    retry_auto_rate: _Positive = limits.RETRY_AUTO_RATE
    """First datagrams per second from which on it does; it ends 5 s after both measures fell below a half."""
    handshake_timeout_s: _Seconds = limits.HANDSHAKE_TIMEOUT_S
    """From the first datagram of a client to the proof of its credential."""
    idle_timeout_s: _Seconds = 30.0
    """A client that is silent for so long is gone; the smaller one of both sides counts."""
    keep_alive_s: _Seconds = 10.0
    """After this long without a datagram one is sent; at most a third of `idle_timeout_s` survives two losses."""
    block_timeout_s: _Seconds = limits.BLOCK_TIMEOUT_S
    """A subscription with `overflow="block"` that consumes nothing for so long while publishers wait is ended."""
    drain_timeout_s: Annotated[float, msgspec.Meta(ge=0, le=limits.MAX_TIME_S)] = 5.0
    """How long a stop waits for clients to take what is on its way to them."""
    max_datagram_size: Annotated[int, msgspec.Meta(ge=1200, le=65_000)] | None = None
    """UDP payload; without it 32,400 (Linux) or 8,192 to this host itself and what the path takes elsewhere. aioquic
    sends 16,383 at most."""
    qlog_dir: Path | None = None
    """Folder for QUIC event logs, one file a connection."""

    def __post_init__(self) -> None:
        types = get_type_hints(type(self), include_extras=True)
        for one in fields(self):
            value = convert_value(one.name, getattr(self, one.name), types[one.name], "")
            object.__setattr__(self, one.name, value)
        parse_listen(self.listen)
        if self.name:
            check_name(self.name)
        object.__setattr__(self, "seed", tuple(dict.fromkeys(map(parse_seed, self.seed))))
        object.__setattr__(self, "advertise", tuple(dict.fromkeys(map(parse_advertised, self.advertise))))
        if self.mode == "client" and self.advertise:
            raise InvalidSetting("advertise", "mode client accepts no nodes; leave it out, or choose --mode hybrid")
        if self.workers > 1:
            self._check_workers()
        if self.max_filters_size < self.max_filter_size:
            raise InvalidSetting("max_filters_size", f"must be at least max_filter_size ({self.max_filter_size})")
        if self.max_unproven_total_size < self.max_unproven_size:
            why = f"must be at least max_unproven_size ({self.max_unproven_size})"
            raise InvalidSetting("max_unproven_total_size", why)
        if self.keep_alive_s >= self.idle_timeout_s:
            raise InvalidSetting("keep_alive_s", f"must be below idle_timeout_s ({self.idle_timeout_s:g})")
        if not self.makes_authority:
            return
        named = {name for name in ("certificate", "private_key", "authority") if getattr(self, name) is not None}
        if named and len(named) < 3:
            missing = next(name for name in ("certificate", "private_key", "authority") if name not in named)
            raise InvalidSetting(missing, "certificate, private_key and authority are given together")

    def _check_workers(self) -> None:
        if self.mode != "hybrid":
            raise InvalidSetting("mode", f"several workers dial each other: --mode hybrid, or one worker ({self.mode})")
        if self.certificate is not None:
            why = "it is of one node, and each of several workers is one; leave it out, they have data folders"
            raise InvalidSetting("certificate", why)
        for name, addresses in (("listen", (self.listen,)), ("advertise", self.advertise)):
            for address in addresses:
                if int(address.rpartition(":")[2]) + self.workers > 65_535:
                    why = f"{address}: {self.workers} workers take as many ports after it, and the last one is 65535"
                    raise InvalidSetting(name, why)

    @property
    def folder(self) -> Path:
        """The data folder that is used."""
        return self.data_dir or default_data_dir()

    @property
    def makes_authority(self) -> bool:
        """Whether a first start without seeds may make the authority of a new mesh; not with `authority = "none"`."""
        authority, others = self.authority, (self.certificate, self.private_key)
        return authority is None or authority.name != "none" or others != (None, None)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What is allowed and yet hardly meant, a sentence each, for the log."""
        if self.mode == "server" and self.seed:
            return ("mode server dials nobody: the seeds are not used, nodes of the mesh must dial this one",)
        return ()

    @property
    def edge_limits(self) -> EdgeLimits:
        return EdgeLimits(
            max_message_size=self.max_message_size,
            max_connections=self.max_connections,
            max_subscriptions=self.max_subscriptions,
            max_filter_size=self.max_filter_size,
            max_filters_size=self.max_filters_size,
            max_publish_rate=self.max_publish_rate,
            max_publish_bytes=self.max_publish_bytes,
            max_unread_size=self.max_unread_size,
            max_pending=self.max_pending,
            max_pending_size=self.max_pending_size,
            handshake_timeout_s=self.handshake_timeout_s,
        )


def parse_listen(listen: str) -> tuple[str, int]:
    """Return host and port out of `HOST:PORT`, `[V6]:PORT` or `:PORT` (all addresses); raises `InvalidSetting`.

    The host may be a name; it is resolved when the broker opens.
    """
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise InvalidSetting("listen", f"{listen!r} is not HOST:PORT with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise InvalidSetting("listen", f"{host!r} is not an IPv6 address") from None
    elif ":" in host:
        raise InvalidSetting("listen", f"an IPv6 address stands in brackets: [{host}]:{port}")
    return host or "::", int(port)
