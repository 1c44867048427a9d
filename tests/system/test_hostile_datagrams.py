"""Random and mutated datagrams at a broker process: it serves on, and holds and answers little."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.testing.launcher import BrokerProcess
from quicbus.transport.engines import engine_named
from tests.system.buses import DEADLINE_S, connected, final_statistics
from tests.system.bystander import MIB, bystander, resident
from tests.system.stranger import dialing
from tests.transport.relay import RawSocket, Relay

if TYPE_CHECKING:
    from pathlib import Path

SEED = 4_433
ROUNDS = 150
PER_ROUND = 100


def mutated(rng: random.Random, captured: list[bytes]) -> bytes:
    """A datagram that was never sent like this: random, or made of captured ones."""
    datagram = bytearray(rng.choice(captured))
    match rng.randrange(7):
        case 0:
            return rng.randbytes(rng.randrange(1, 1_500))
        case 1:
            return bytes(datagram[: rng.randrange(1, len(datagram) + 1)])
        case 2:
            return bytes(datagram) + rng.randbytes(rng.randrange(1, 300))
        case 3:
            return bytes(datagram[: rng.randrange(1, 60)]) + rng.randbytes(1_200)
        case 4:
            return bytes(datagram) + rng.choice(captured)
        case 5:
            return bytes(datagram)
        case _:
            for _ in range(rng.randrange(1, 8)):
                datagram[rng.randrange(min(len(datagram), rng.choice((8, 40, 1_500))))] = rng.randrange(256)
            return bytes(datagram)


async def captured_datagrams(broker: BrokerProcess, engine: str) -> list[bytes]:
    """First flights of both engines, and all that one client sent in a whole session."""
    captured: list[bytes] = []
    for name in (engine, "auto"):
        for _ in range(5):
            quic = engine_named(name).dial(dialing(broker))
            quic.connect(0.0)
            captured += quic.datagrams_to_send(0.0)
    host, port = broker.address.rsplit(":", 1)
    with Relay.to((host, int(port))) as relay:
        url = f"quic://127.0.0.1:{relay.address[1]}"
        async with quicbus.connect(url, credentials=broker.credential_path, engine=engine) as bus:
            await bus.publish("t", b"x")
            await bus.flush()
        captured += relay.seen
    return captured


@pytest.mark.parametrize("retry", ["always", "never"])
async def test_a_broker_serves_on_among_random_and_mutated_datagrams(engine: str, data_dir: Path, retry: str) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    options = ["--retry", retry, "--max-half-open", "50", "--handshake-timeout-s", "0.5", "--drain-timeout-s", "0.5"]
    with BrokerProcess(data_dir=data_dir, engine=engine, options=options) as broker:
        host, port = broker.address.rsplit(":", 1)
        async with bystander(broker) as good:
            captured = await captured_datagrams(broker, engine)
            before = 0
            with RawSocket.opened() as stranger:
                for number in range(ROUNDS):
                    for _ in range(PER_ROUND):
                        stranger.send(mutated(rng, captured), (host, int(port)))
                    await good.round_trip()
                    if number == ROUNDS // 4:
                        before = resident(broker)
                assert resident(broker) - before < 24 * MIB
                # Nobody is answered with more than three times what he sent.
                assert stranger.received_size <= 3 * stranger.sent_size
            # And whoever comes now is served like those before.
            async with connected(broker, 1) as (late,):
                await late.ping(DEADLINE_S)
        ended = await asyncio.to_thread(broker.stop)
        statistics = final_statistics(ended)
    assert "Traceback" not in ended.stderr
    transport = statistics["transport"]
    assert sum(transport["dropped"].values()) > ROUNDS * PER_ROUND // 10
    # Those that get past the door are broken handshakes; they end, and were never many at a time.
    assert (transport["accepted"] > 20) is (retry == "never")
