"""Dialing a node where it was seen: who answers must be that node, and nobody is waited for longer than a while."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import Authority
from quicbus.transport.endpoint import Endpoint, EndpointSettings, Listener
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.wire.frames import ALPN
from quicbus_broker import dial_back
from quicbus_broker.dial_back import DialBacks, reaches
from tests.conftest import ENGINES
from tests.transport.recorder import LOCALHOST, Recorder
from tests.transport.relay import RawSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quicbus.identity import Credential
    from quicbus.transport.connection import Address

AUTHORITY = Authority.create()
ME = AUTHORITY.issue_node("me")
PEER = AUTHORITY.issue_node("peer")
PAIRINGS = [(dialer, listener) for dialer in ENGINES for listener in ENGINES]


@contextlib.asynccontextmanager
async def listening(credential: Credential, engine: str) -> AsyncIterator[Address]:
    configuration = EngineConfiguration(
        is_client=False,
        alpn=ALPN,
        certificate_chain=credential.chain_pem,
        private_key=credential.private_key_pem,
    )
    listener = Listener(configuration, Recorder)
    async with await Endpoint.open(
        bind=LOCALHOST, engine=engine_named(engine), settings=EndpointSettings(), listener=listener
    ) as endpoint:
        yield endpoint.address


@pytest.mark.parametrize(("dialer", "listener"), PAIRINGS)
async def test_a_node_that_answers_is_reached(dialer: str, listener: str) -> None:
    async with listening(PEER, listener) as address:
        assert await reaches(address, PEER.node_id, credential=ME, engine=engine_named(dialer))


@pytest.mark.parametrize(("dialer", "listener"), PAIRINGS)
async def test_another_node_that_answers_there_is_not_the_one(dialer: str, listener: str) -> None:
    async with listening(AUTHORITY.issue_node("third"), listener) as address:
        assert not await reaches(address, PEER.node_id, credential=ME, engine=engine_named(dialer))


async def test_a_node_of_another_mesh_is_not_reached(engine: str) -> None:
    async with listening(Authority.create().issue_node("peer"), engine) as address:
        assert not await reaches(address, PEER.node_id, credential=ME, engine=engine_named(engine))


async def test_nobody_is_waited_for_only_so_long(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_back, "TIMEOUT_S", 0.05)
    with RawSocket.opened() as silent:
        assert not await reaches(silent.address, PEER.node_id, credential=ME, engine=engine_named(engine))
        assert silent.received


async def test_it_is_told_when_the_node_answers_and_asked_once_at_a_time(engine: str) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    dial_backs = DialBacks(engine_named(engine), lambda: ME)
    async with listening(PEER, engine) as address, asyncio.timeout(30):
        assert dial_backs.begin(PEER.node_id, address, told.put_nowait)
        assert not dial_backs.begin(PEER.node_id, address, told.put_nowait)
        assert await told.get() == f"127.0.0.1:{address[1]}"
    await dial_backs.close()
    assert told.empty()


async def test_dials_under_way_are_bounded_and_end_with_their_owner(engine: str) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    dial_backs = DialBacks(engine_named(engine), lambda: ME)
    with RawSocket.opened() as silent:
        begun = [dial_backs.begin(bytes([number]) * 16, silent.address, told.put_nowait) for number in range(20)]
        assert begun.count(True) == dial_back.MAX_DIAL_BACKS
        await dial_backs.close()
        await dial_backs.close()
    assert told.empty()
