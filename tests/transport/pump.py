"""Two engine connections and the network between them, in virtual time: no sockets, no clock, every run the same."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import pytest

from quicbus.identity import Authority
from quicbus.transport import engine as seam
from quicbus.transport._packets import (
    PacketType,
    make_retry,
    make_version_negotiation,
    parse_header,
)
from quicbus.transport._retry import RetryTokens
from quicbus.transport.engines import engine_named

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ALPN",
    "LATENCY_S",
    "Faults",
    "Pump",
    "Side",
    "authority",
    "dialing",
    "encrypted_pairing",
    "every_engine",
    "every_pairing",
    "listening",
]

ALPN = "quicbus/1"
LATENCY_S = 0.01
DIALER_ADDRESS = ("127.0.0.1", 50_000)
_STEP_MIN_S = 0.000_1

PAIRINGS = [("aioquic", "aioquic"), ("aioquic", "qh3"), ("qh3", "aioquic"), ("qh3", "qh3"), ("memory", "memory")]
every_pairing = pytest.mark.parametrize(
    ("dialer", "listener"), PAIRINGS, ids=[f"{dialer}-to-{listener}" for dialer, listener in PAIRINGS]
)
encrypted_pairing = pytest.mark.parametrize(
    ("dialer", "listener"), PAIRINGS[:4], ids=[f"{dialer}-to-{listener}" for dialer, listener in PAIRINGS[:4]]
)
every_engine = pytest.mark.parametrize("engine", ["aioquic", "qh3", "memory"])

Event = TypeVar("Event")


@cache
def authority(name: str = "ours") -> Authority:
    """Return an authority that all tests share; another name is another mesh."""
    return Authority.create()


@cache
def dialing() -> seam.EngineConfiguration:
    ours = authority()
    name = ours.issue_client("somebody").server_name
    return seam.EngineConfiguration(is_client=True, alpn=ALPN, authority=ours.certificate_pem, server_name=name)


@cache
def listening() -> seam.EngineConfiguration:
    credential = authority().issue_node("tokyo")
    return seam.EngineConfiguration(
        is_client=False,
        alpn=ALPN,
        certificate_chain=credential.chain_pem,
        private_key=credential.private_key_pem,
    )


class Side:
    """One end: its connection, and every event that it gave out."""

    def __init__(self, connection: seam.EngineConnection) -> None:
        self.connection = connection
        self.events: list[seam.EngineEvent] = []
        self.times: list[float] = []
        self.on_event: Callable[[Side, seam.EngineEvent], None] | None = None
        self.datagrams_sent = 0
        self.bytes_sent = 0

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def when(self, kind: type) -> float:
        """Return when the first event of a kind came."""
        return next(time for time, event in zip(self.times, self.events, strict=True) if isinstance(event, kind))

    def data(self, stream_id: int) -> bytes:
        return b"".join(event.data for event in self.of(seam.StreamData) if event.stream_id == stream_id)

    def ended(self, stream_id: int) -> bool:
        return any(event.ended for event in self.of(seam.StreamData) if event.stream_id == stream_id)

    @property
    def binding(self) -> bytes:
        (completed,) = self.of(seam.HandshakeCompleted)
        return completed.channel_binding

    @property
    def end(self) -> seam.Terminated | None:
        ends = self.of(seam.Terminated)
        assert len(ends) <= 1, "Terminated comes once"
        return ends[0] if ends else None


@dataclass
class Faults:
    """What the network does to datagrams; probabilities."""

    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0


class Pump:
    """Carries datagrams between a dialer and the listener that its first Initial makes."""

    def __init__(
        self,
        dialer: str,
        listener: str,
        *,
        dials: seam.EngineConfiguration | None = None,
        listens: seam.EngineConfiguration | None = None,
        retry: bool = True,
        faults: Faults | None = None,
        seed: int = 1,
        max_datagram_size: int | None = None,
    ) -> None:
        dials, listens = dials or dialing(), listens or listening()
        if max_datagram_size is not None:
            dials = replace(dials, max_datagram_size=max_datagram_size)
            listens = replace(listens, max_datagram_size=max_datagram_size)
        self.now = 100.0
        self.faults = faults or Faults()
        self.retries = 0
        self.drop: Callable[[Side, bytes], bool] = lambda side, datagram: False
        self.on_listener: Callable[[Side], None] = lambda side: None
        self.misname_original_id = False
        self._listens = listens
        self._engine = engine_named(listener)
        self._retry = retry
        self._tokens = RetryTokens()
        self._rng = random.Random(seed)
        self._wire: list[tuple[float, int, bool, bytes]] = []
        self._count = 0
        self.dialer = Side(engine_named(dialer).dial(dials))
        self.listener: Side | None = None
        self.dialer.connection.connect(self.now)

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool], limit_s: float = 30.0) -> None:
        """Run until a condition holds; fails when it does not within `limit_s` of virtual time."""
        end = self.now + limit_s
        self._turn()
        while not until():
            assert self.now < end, f"not within {limit_s} s: {self._report()}"
            self.now = min(max(self._next_time(), self.now + _STEP_MIN_S), end)
            self._turn()

    def run_for(self, seconds: float) -> None:
        end = self.now + seconds
        self._turn()
        while self.now < end:
            self.now = min(max(self._next_time(), self.now + _STEP_MIN_S), end)
            self._turn()

    def connected(self) -> Pump:
        """Finish the handshake and what follows it (confirmation, further connection ids)."""
        self.run(lambda: all(side.of(seam.HandshakeCompleted) for side in self.both()) and len(self.both()) == 2)
        self.run_for(0.3)
        return self

    def both(self) -> list[Side]:
        return [self.dialer] if self.listener is None else [self.dialer, self.listener]

    @property
    def accepted(self) -> Side:
        assert self.listener is not None
        return self.listener

    def inject(self, side: Side, datagram: bytes) -> None:
        """Hand a datagram to one side as if it had come from the other."""
        side.connection.receive(datagram, self.now)
        self._turn()

    # --- one turn ---------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        while self._wire and self._wire[0][0] <= self.now:
            _, _, to_listener, datagram = heapq.heappop(self._wire)
            if not to_listener:
                self.dialer.connection.receive(datagram, self.now)
            elif self.listener is not None:
                self.listener.connection.receive(datagram, self.now)
            else:
                self._first_contact(datagram)
        for side in self.both():
            timer = side.connection.timer()
            if timer is not None and timer <= self.now:
                side.connection.handle_timer(self.now)
        self._drain()
        self._transmit()
        self._drain()

    def _drain(self) -> None:
        for side in self.both():
            while (event := side.connection.next_event()) is not None:
                side.events.append(event)
                side.times.append(self.now)
                if side.on_event is not None:
                    side.on_event(side, event)

    def _transmit(self) -> None:
        for side in self.both():
            for datagram in side.connection.datagrams_to_send(self.now):
                side.datagrams_sent += 1
                side.bytes_sent += len(datagram)
                if not self.drop(side, datagram):
                    self._carry(side is self.dialer, datagram)

    def _carry(self, to_listener: bool, datagram: bytes) -> None:
        if self._rng.random() < self.faults.loss:
            return
        copies = 2 if self._rng.random() < self.faults.duplicate else 1
        for _ in range(copies):
            late = self._rng.uniform(0, 5 * LATENCY_S) if self._rng.random() < self.faults.reorder else 0.0
            self._count += 1
            heapq.heappush(self._wire, (self.now + LATENCY_S + late, self._count, to_listener, datagram))

    def _first_contact(self, datagram: bytes) -> None:
        header = parse_header(datagram, self._engine.versions)
        if header is None:
            return
        if header.type is PacketType.OTHER_VERSION:
            self._carry(False, make_version_negotiation(header, self._engine.versions))
        elif header.type is PacketType.INITIAL and self._retry and not header.token:
            self.retries += 1
            original, retry_id = header.destination_connection_id, self._rng.randbytes(8)
            token = self._tokens.create(DIALER_ADDRESS, original, retry_id, self.now)
            self._carry(False, make_retry(header, retry_id, token))
        elif header.type is PacketType.INITIAL:
            original, retry_source = header.destination_connection_id, None
            if self._retry:
                valid = self._tokens.validate(header.token, DIALER_ADDRESS, original, self.now)
                original, retry_source = valid
            if self.misname_original_id:
                original = bytes(8)
            self.listener = Side(self._engine.accept(self._listens, original, retry_source))
            self.on_listener(self.listener)
            self.listener.connection.receive(datagram, self.now)

    def _next_time(self) -> float:
        times = [timer for side in self.both() if (timer := side.connection.timer()) is not None]
        if self._wire:
            times.append(self._wire[0][0])
        return min(times, default=float("inf"))

    def _report(self) -> str:
        return "; ".join(f"{[type(event).__name__ for event in side.events][-8:]}" for side in self.both())
