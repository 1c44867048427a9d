"""The memory engine: reliable, multiplexed, unencrypted. For tests, simulation and clients inside a broker's process.

It behaves as QUIC does where a session can tell: streams are independent under loss, a listener writes in its first
flight, pings, closes and idle time-outs work, Retry is followed. It checks no certificates and hides nothing, so it
belongs on networks that exist in one process only. It has no congestion control.
"""

from __future__ import annotations

import os
from collections import deque
from hashlib import sha256
from typing import TYPE_CHECKING

from quicbus import limits
from quicbus.exceptions import LimitExceeded
from quicbus.transport import _memory_packets as packets
from quicbus.transport import engine as seam
from quicbus.transport._memory_recovery import InFlight
from quicbus.transport._memory_streams import IncomingStreams, OutgoingStreams, ReceivedNumbers
from quicbus.transport._packets import CONNECTION_ID_SIZE, MEMORY_VERSION, PacketType, parse_header

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["DATAGRAM_SIZE", "MemoryEngine"]

DATAGRAM_SIZE = 32 * 1024
"""A good `max_datagram_size` for this engine."""
IN_FLIGHT_MAX = 8 * 1024 * 1024
"""Bytes sent and not acknowledged."""

_NO_APPLICATION_PROTOCOL = 0x100 + 120
_TRANSPORT_PARAMETER_ERROR = 0x8
_PROTOCOL_VIOLATION = 0xA
_INTERNAL_ERROR = 0x1


class MemoryEngine:
    """`Engine` without encryption. Give it a seeded `random.Random` to have the same ids in every run."""

    name = "memory"
    versions = (MEMORY_VERSION,)

    def __init__(self, rng: random.Random | None = None) -> None:
        self._random_bytes: Callable[[int], bytes] = os.urandom if rng is None else rng.randbytes

    def dial(self, configuration: seam.EngineConfiguration) -> MemoryConnection:
        return MemoryConnection(configuration, self._random_bytes)

    def accept(
        self,
        configuration: seam.EngineConfiguration,
        original_destination_connection_id: bytes,
        retry_source_connection_id: bytes | None,
    ) -> MemoryConnection:
        connection = MemoryConnection(configuration, self._random_bytes)
        connection.original_id = original_destination_connection_id
        connection.retry_id = retry_source_connection_id or b""
        return connection


class MemoryConnection:
    """One side of a connection. Both sides are alike but for the handshake."""

    def __init__(self, configuration: seam.EngineConfiguration, random_bytes: Callable[[int], bytes]) -> None:
        self._configuration = configuration
        self._own_id = random_bytes(CONNECTION_ID_SIZE)
        self._nonce = random_bytes(32)
        self._peer_id = random_bytes(CONNECTION_ID_SIZE) if configuration.is_client else b""
        self.original_id = self._peer_id
        self.retry_id = b""
        self._token = b""
        self._idle_timeout_s = configuration.idle_timeout_s
        self._heard = 0.0
        self._is_started = False
        self._is_complete = False
        self._binding = b""
        self.rejected_size = 0
        self.rejected_datagrams = 0
        self._events: deque[seam.EngineEvent] = deque()
        self._termination: seam.Terminated | None = None
        self._close: packets.Close | None = None
        self._last_words: list[bytes] = []
        self._late_datagrams = 0
        self._number = 0
        self._received = ReceivedNumbers()
        self._amplification_budget = 0
        self._ack_wanted = False
        self._frames: deque[packets.Frame] = deque()
        self._outgoing = OutgoingStreams()
        self._incoming = IncomingStreams(3 if configuration.is_client else 2)
        self._in_flight = InFlight()
        self._next_stream_id = 2 if configuration.is_client else 3

    # --- the handshake ----------------------------------------------------------------------------------------------

    @property
    def connection_ids(self) -> tuple[bytes, ...]:
        if self._configuration.is_client:
            return (self._own_id,)
        return (self._own_id, self.retry_id or self.original_id)

    @property
    def unsent_size(self) -> int:
        return self._outgoing.unsent_size

    @property
    def round_trip_s(self) -> float:
        return 0.0

    def connect(self, now: float) -> None:
        self._heard = now
        self._is_started = True
        self._say_hello()

    def _say_hello(self) -> None:
        idle_ms = int(self._configuration.idle_timeout_s * 1000)
        self._frames.append(packets.Hello(self._nonce, idle_ms, self._configuration.alpn))

    def _on_hello(self, frame: packets.Hello) -> None:
        if self._is_started or self._configuration.is_client:
            return
        self._is_started = True
        if frame.alpn not in self._configuration.alpns:
            self._fail(_NO_APPLICATION_PROTOCOL, "No common ALPN protocols")
            return
        self._agree(frame.nonce + self._nonce, frame.idle_timeout_ms)
        idle_ms = int(self._configuration.idle_timeout_s * 1000)
        self._frames.append(packets.HelloReply(self._nonce, idle_ms, frame.alpn, self.original_id, self.retry_id))
        self._events.append(seam.Negotiated(frame.alpn))

    def _on_hello_reply(self, frame: packets.HelloReply) -> None:
        if self._is_complete or not self._configuration.is_client:
            return
        if (frame.original_destination_connection_id, frame.retry_source_connection_id) != (
            self.original_id,
            self.retry_id,
        ):
            self._fail(_TRANSPORT_PARAMETER_ERROR, "the connection ids of the handshake do not match")
            return
        self._agree(self._nonce + frame.nonce, frame.idle_timeout_ms)
        self._events.append(seam.Negotiated(frame.alpn))
        self._complete()

    def _agree(self, nonces: bytes, idle_timeout_ms: int) -> None:
        self._binding = sha256(nonces).digest()
        self._idle_timeout_s = min(self._idle_timeout_s, idle_timeout_ms / 1000)

    def _complete(self) -> None:
        if not self._is_complete:
            self._is_complete = True
            self._events.append(seam.HandshakeCompleted(self._binding))

    def _receive_outside_handshake(self, datagram: bytes) -> None:
        """Take a Retry or a version negotiation, which carry no checksum of ours."""
        header = parse_header(datagram, (MEMORY_VERSION,))
        if header is None or header.destination_connection_id != self._own_id or self._received:
            return
        if header.type is PacketType.RETRY and not self.retry_id and header.token:
            self.retry_id = self._peer_id = header.source_connection_id
            self._token = header.token
            self._in_flight.clear()
            self._frames.clear()
            self._say_hello()
        elif header.type is PacketType.VERSION_NEGOTIATION and header.source_connection_id == self._peer_id:
            ids = header.destination_connection_id + header.source_connection_id
            offered = {datagram[at : at + 4] for at in range(7 + len(ids), len(datagram), 4)}
            if MEMORY_VERSION.to_bytes(4, "big") not in offered:
                self._end(seam.Terminated(_INTERNAL_ERROR, "Could not find a common protocol version", False, True))

    # --- receiving --------------------------------------------------------------------------------------------------

    def receive(self, datagram: bytes, now: float) -> None:
        if self._termination is not None:
            self._late_datagrams += 1
            return
        packet = packets.open_packet(datagram)
        if packet is None:
            if self._configuration.is_client and not self._is_complete:
                self._receive_outside_handshake(datagram)
            return
        if self._close is not None or (packet.destination != self._own_id and packet.first != packets.INITIAL):
            return
        if packet.first == packets.SHORT and not self._binding:
            return  # before the handshake: nothing can be checked yet
        self._heard = now
        self._amplification_budget += 3 * len(datagram)
        if packet.source and not self._received:
            self._peer_id = packet.source
        if not self._received.add(packet.number):
            self._ack_wanted = True
            return
        if packet.first == packets.SHORT and not self._configuration.is_client:
            self._complete()
        try:
            frames = packets.decode_frames(packet.payload)
            for frame in frames:
                self._take(frame, now)
        except packets.MalformedPacket as error:
            self._fail(_PROTOCOL_VIOLATION, str(error))
            return
        self._ack_wanted = self._ack_wanted or any(not isinstance(frame, packets.Ack) for frame in frames)

    def receive_segments(self, buffer: bytes, segment_size: int, now: float) -> None:
        for start in range(0, len(buffer), segment_size):
            self.receive(buffer[start : start + segment_size], now)

    def _take(self, frame: packets.Frame, now: float) -> None:
        match frame:
            case packets.Stream():
                data = self._incoming.take(frame)
                if data is not None:
                    self._events.append(data)
            case packets.Ack(ranges):
                self._on_ack(ranges, now)
            case packets.Reset(stream_id, code):
                if self._incoming.reset(stream_id):
                    self._events.append(seam.StreamReset(stream_id, code))
            case packets.Stop(stream_id, code):
                if self._outgoing.abandon(stream_id):
                    self._frames.append(packets.Reset(stream_id, code))
                    self._events.append(seam.StreamReset(stream_id, code))
            case packets.Close(code, is_application, reason):
                self._end(seam.Terminated(code, reason, is_application, False))
            case packets.Hello():
                self._on_hello(frame)
            case packets.HelloReply():
                self._on_hello_reply(frame)

    def _on_ack(self, ranges: tuple[tuple[int, int], ...], now: float) -> None:
        arrived, lost = self._in_flight.acknowledged(ranges, now)
        for frame in arrived:
            if isinstance(frame, packets.Stream):
                self._outgoing.acknowledged(frame)
            elif isinstance(frame, packets.Ping):
                self._events.append(seam.PingAcknowledged(frame.uid))
        self._send_again(lost)

    def _send_again(self, frames: list[packets.Frame]) -> None:
        for frame in frames:
            if isinstance(frame, packets.Stream):
                self._outgoing.lost(frame)
            elif not isinstance(frame, packets.Ack):
                self._frames.append(frame)

    # --- sending ----------------------------------------------------------------------------------------------------

    def datagrams_to_send(self, now: float) -> list[bytes]:
        if self._termination is not None:
            return self._repeated_close()
        if self._close is not None:
            if self._peer_id:
                self._last_words = [self._packet(packets.encode_frame(self._close))]
            self._end(seam.Terminated(self._close.code, self._close.reason, self._close.is_application, True))
            return self._last_words
        datagrams: list[bytes] = []
        while self._in_flight.size < IN_FLIGHT_MAX and (datagram := self._next_datagram(now)) is not None:
            datagrams.append(datagram)
        if self._ack_wanted and self._in_flight.size >= IN_FLIGHT_MAX:
            self._ack_wanted = False
            datagrams.append(self._packet(packets.encode_frame(packets.Ack(self._received.ranges()))))
        return datagrams

    def _next_datagram(self, now: float) -> bytes | None:
        room = self._room()
        if room < packets.CONTROL_SIZE_MAX:
            return None
        frames = self._choose_frames(room)
        if not frames:
            return None
        number = self._number
        datagram = self._packet(b"".join(map(packets.encode_frame, frames)))
        self._amplification_budget -= len(datagram)
        if len(frames) > 1 or not isinstance(frames[0], packets.Ack):
            self._in_flight.sent(number, frames, len(datagram), now)
        return datagram

    def _room(self) -> int:
        size = max(self._configuration.max_datagram_size, 1200)
        if not (self._is_complete or self._configuration.is_client or self.retry_id):
            size = min(size, self._amplification_budget)
        return size - packets.LONG_PACKET_OVERHEAD - len(self._token)

    def _choose_frames(self, room: int) -> list[packets.Frame]:
        frames: list[packets.Frame] = []
        if self._ack_wanted:
            self._ack_wanted = False
            ack = packets.Ack(self._received.ranges())
            frames.append(ack)
            room -= len(packets.encode_frame(ack))
        while self._frames and room >= packets.CONTROL_SIZE_MAX:
            frames.append(self._frames.popleft())
            room -= len(packets.encode_frame(frames[-1]))
        while self._binding and (stream := self._outgoing.next_frame(room - packets.STREAM_OVERHEAD)) is not None:
            frames.append(stream)
            room -= packets.STREAM_OVERHEAD + len(stream.data)
        return frames

    def _packet(self, frames: bytes) -> bytes:
        if self._is_complete:
            first = packets.SHORT
        else:
            first = packets.INITIAL if self._configuration.is_client else packets.HANDSHAKE
        number = self._number
        self._number += 1
        return packets.encode_packet(first, self._peer_id, number, frames, source=self._own_id, token=self._token)

    def _repeated_close(self) -> list[bytes]:
        # RFC 9000 section 10.2.1: the close may be lost, so it is said again, to the 1st, 2nd, 4th, 8th ... datagram.
        late = self._late_datagrams
        if late and late & (late - 1) == 0:
            self._late_datagrams += 1
            return self._last_words
        return []

    # --- time -------------------------------------------------------------------------------------------------------

    def timer(self) -> float | None:
        if self._termination is not None:
            return 0.0 if self._events else None
        if not self._is_started:
            return None
        probe_at = self._in_flight.probe_at()
        idle_at = self._heard + self._idle_timeout_s
        return idle_at if probe_at is None else min(idle_at, probe_at)

    def handle_timer(self, now: float) -> None:
        if self._termination is not None or not self._is_started:
            return
        if now >= self._heard + self._idle_timeout_s:
            self._end(seam.Terminated(0, "Idle timeout", False, True))
            return
        probe_at = self._in_flight.probe_at()
        if probe_at is not None and now >= probe_at:
            self._send_again(self._in_flight.probe())

    # --- what a session calls ---------------------------------------------------------------------------------------

    def next_event(self) -> seam.EngineEvent | None:
        return self._events.popleft() if self._events else None

    def open_stream(self) -> int:
        if len(self._outgoing) >= limits.MAX_INCOMING_STREAMS:
            raise LimitExceeded("streams", len(self._outgoing) + 1, limits.MAX_INCOMING_STREAMS)
        stream_id = self._next_stream_id
        self._next_stream_id += 4
        self._outgoing.open(stream_id)
        return stream_id

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        if not self._is_ending():
            self._outgoing.write(stream_id, data, end)

    def reset_stream(self, stream_id: int, code: int) -> None:
        if not self._is_ending() and self._outgoing.abandon(stream_id):
            self._frames.append(packets.Reset(stream_id, code))

    def stop_stream(self, stream_id: int, code: int) -> None:
        if not self._is_ending() and self._incoming.is_open(stream_id):
            self._frames.append(packets.Stop(stream_id, code))

    def ping(self, uid: int) -> None:
        if not self._is_ending():
            self._frames.append(packets.Ping(uid))

    def request_key_update(self) -> None:
        """There are no keys."""

    def close(self, code: int, reason: str) -> None:
        if not self._is_ending():
            self._close = packets.Close(int(code), True, seam.cut_reason(reason))

    def _is_ending(self) -> bool:
        return self._termination is not None or self._close is not None

    def _fail(self, code: int, reason: str) -> None:
        self._close = packets.Close(code, False, seam.cut_reason(reason))

    def _end(self, termination: seam.Terminated) -> None:
        if self._termination is None:
            self._termination = termination
            self._events.append(termination)
            self._in_flight.clear()
            self._outgoing = OutgoingStreams()
            self._incoming = IncomingStreams(0)
