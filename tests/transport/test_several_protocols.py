"""A listener that serves several application protocols: the handler of each connection is chosen when it is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from quicbus.transport.endpoint import Endpoint, Listener
from quicbus.transport.engines import engine_named
from quicbus.transport.memory_network import MemoryNetwork
from tests.transport.pump import ALPN, every_pairing, listening
from tests.transport.recorder import LOCALHOST, Recorder, dial, opened
from tests.waiting import eventually

if TYPE_CHECKING:
    from quicbus.transport.connection import Connection

FURTHER = "further/1"


class Chooser(Recorder):
    """Hands each connection to an echo that is made for its protocol."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.chosen: Recorder | None = None

    def negotiated(self) -> Recorder:  # type: ignore[override]
        super().negotiated()
        self.chosen = Recorder(self.connection, echo=True)
        self.chosen.calls.append(self.connection.alpn)
        return self.chosen


@every_pairing
@pytest.mark.parametrize("wanted", [ALPN, FURTHER])
async def test_the_handler_that_was_chosen_hears_all_that_follows(dialer: str, listener: str, wanted: str) -> None:
    network = MemoryNetwork()
    choosers: list[Chooser] = []

    def make(connection: Connection) -> Chooser:
        assert connection.alpn == ""
        choosers.append(Chooser(connection))
        return choosers[0]

    configuration = replace(listening(), further_alpns=(FURTHER,))
    here = await Endpoint.open(
        bind=LOCALHOST, engine=engine_named(listener), listener=Listener(configuration, make), network=network
    )
    async with here, opened(dialer, network=network) as there:
        session = dial(there, here.address, alpn=wanted)
        await session.wait_connected()
        assert session.connection.alpn == wanted
        stream = session.connection.open_stream()
        session.connection.send(stream, b"hello")
        await session.wait(lambda me: me.all_received == b"hello")
        session.connection.close(0, "that is all")
        chosen = choosers[0].chosen
        assert chosen is not None
        await eventually(lambda: chosen.termination)
        assert chosen.calls == [wanted, "negotiated", "connected", "closed"]
        assert choosers[0].calls == ["negotiated"]
        assert choosers[0].termination is None
