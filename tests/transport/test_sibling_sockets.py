"""Inboxes between workers, on real Unix sockets: what is told, handed over, and lost where a sibling does not read."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from quicbus.transport.handover import Handover
from quicbus.transport.network import Path
from quicbus.transport.sibling_sockets import MAX_UNTOLD, SiblingSockets, open_inbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quicbus.transport.sibling_sockets import Inbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several processes on one port need Linux")

PATH = Path(("192.0.2.1", 5000), ("192.0.2.1", 5000))
DEADLINE_S = 120.0


class Taker:
    """An endpoint that writes down what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, int, Path]] = []
        self.turned = asyncio.Event()

    def received(self, buffer: bytes, segment_size: int, path: Path) -> None:
        self.got.append((buffer, segment_size, path))

    def turn_ended(self, *, is_behind: bool = False) -> None:
        self.turned.set()

    async def turn(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.turned.wait()
        self.turned.clear()


@pytest.fixture
def inboxes() -> Iterator[list[Inbox]]:
    pair = [open_inbox(), open_inbox()]
    yield pair
    for inbox in pair:
        inbox.close()


def identifier(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_inbox_has_no_name_and_no_started_program_has_it(inboxes: list[Inbox]) -> None:
    for inbox in inboxes:
        for end in (inbox.reader, inbox.writer):
            assert end.getsockname() == end.getpeername() == ""
            assert not end.get_inheritable()


async def test_datagrams_reach_the_worker_whose_connection_they_are_of(inboxes: list[Inbox]) -> None:
    takers = [Taker(), Taker()]
    workers = [SiblingSockets(Handover(number), inboxes) for number in (0, 1)]
    for worker, taker in zip(workers, takers, strict=True):
        worker.open(taker)
    workers[1].added(identifier(7))
    while not workers[0].statistics().known_ids:
        await takers[0].turn()
    assert workers[0].takes(identifier(7), b"x" * 60_000, 1200, PATH)
    assert not workers[0].takes(identifier(8), b"x", 1, PATH)
    while not takers[1].got:
        await takers[1].turn()
    assert takers[1].got == [(b"x" * 60_000, 1200, PATH)]
    assert (workers[0].statistics().handed_over, workers[1].statistics().taken_over) == (1, 1)
    for worker in workers:
        worker.close()
        worker.close()


async def test_what_a_full_inbox_does_not_take_is_lost_and_counted_but_ids_come_later(inboxes: list[Inbox]) -> None:
    here, taker = SiblingSockets(Handover(0), inboxes), Taker()
    here.open(taker)
    inboxes[0].writer.send(Handover(1).greetings()[0])
    other = Handover(1)
    other.added(identifier(7))
    inboxes[0].writer.send(other.changes()[0])
    while not here.statistics().known_ids:
        await taker.turn()
    while not here.statistics().dropped:
        assert here.takes(identifier(7), bytes(60_000), 1200, PATH)
    for number in range(MAX_UNTOLD + 10):
        here.added(identifier(1000 + number))
        await asyncio.sleep(0)
    reader, told = Handover(1), Taker()
    there = SiblingSockets(reader, inboxes)
    there.open(told)
    while len(reader) < MAX_UNTOLD + 10:
        await told.turn()
    assert there.statistics().taken_over == here.statistics().handed_over > 0
    here.close()
    there.close()
