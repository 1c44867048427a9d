"""Real TLS handshakes between two engines, without sockets: datagrams are handed over, time is a number."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding

from quicbus.identity import ChannelBindingSink

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.identity import Credential

ENGINES = ("aioquic", "qh3")
PAIRINGS = [(dialer, listener) for dialer in ENGINES for listener in ENGINES]

_ADDRESS = ("192.0.2.1", 4433)
_ROUNDS = 60
_ROUND_S = 0.1


@dataclass
class Handshake:
    """What came out at both ends. `refusal` is what the dialer gave as the reason to end it."""

    dialer_binding: bytes | None
    listener_binding: bytes | None
    is_complete: bool
    refusal: str
    listener_certificate: bytes


def handshake(
    dialer_engine: str,
    listener_engine: str,
    listener: Credential,
    folder: Path,
    *,
    authority_pem: bytes | None = None,
    server_name: str | None = None,
) -> Handshake:
    """Let a dialer that trusts `authority_pem` and asks for `server_name` meet a listener with that credential."""
    dialer_sink, listener_sink = ChannelBindingSink(), ChannelBindingSink()
    dialing = _configuration(dialer_engine, True, dialer_sink)
    dialing.load_verify_locations(cadata=authority_pem or listener.authority_pem)
    dialing.server_name = server_name or listener.server_name
    listening = _configuration(listener_engine, False, listener_sink)
    (folder / "chain.pem").write_bytes(listener.chain_pem)
    (folder / "key.pem").write_bytes(listener.private_key_pem)
    listening.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    one = _connection_type(dialer_engine)(configuration=dialing)
    now = 100.0
    one.connect(_ADDRESS, now=now)
    other = _connection_type(listener_engine)(
        configuration=listening, original_destination_connection_id=one.original_destination_connection_id
    )
    for _ in range(_ROUNDS):
        _hand_over(one, other, now)
        _hand_over(other, one, now)
        now += _ROUND_S
    events = _events(one)
    return Handshake(
        dialer_binding=dialer_sink.binding,
        listener_binding=listener_sink.binding,
        is_complete=any(type(event).__name__ == "HandshakeCompleted" for event in events),
        refusal=next((e.reason_phrase for e in events if type(e).__name__ == "ConnectionTerminated"), ""),
        listener_certificate=_peer_certificate(dialer_engine, one),
    )


def _configuration(engine: str, is_client: bool, sink: ChannelBindingSink) -> Any:
    module = importlib.import_module(f"{engine}.quic.configuration")
    return module.QuicConfiguration(is_client=is_client, alpn_protocols=["quicbus/1"], secrets_log_file=sink)


def _connection_type(engine: str) -> Any:
    return importlib.import_module(f"{engine}.quic.connection").QuicConnection


def _hand_over(source: Any, target: Any, now: float) -> None:
    timer = source.get_timer()
    if timer is not None and timer <= now:
        source.handle_timer(now=now)
    try:
        datagrams = source.datagrams_to_send(now=now)
    except Exception as error:
        # A qh3 listener without Retry says so until its peer has sent more; gone on with, it completes.
        if "packet builder capacity exhausted" not in str(error):
            raise
        return
    for datagram, _address in datagrams:
        target.receive_datagram(datagram, _ADDRESS, now=now)


def _events(connection: Any) -> list[Any]:
    events = []
    while (event := connection.next_event()) is not None:
        events.append(event)
    return events


def _peer_certificate(engine: str, connection: Any) -> bytes:
    if engine == "qh3":
        certificate = connection.get_peercert()
        return b"" if certificate is None else bytes(certificate.public_bytes())
    certificate = connection.tls._peer_certificate
    return b"" if certificate is None else bytes(certificate.public_bytes(Encoding.DER))
