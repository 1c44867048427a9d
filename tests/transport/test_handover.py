"""Workers behind one port: whose connection an id is, what siblings are told, datagrams on their way between them."""

from __future__ import annotations

import random

import pytest

from quicbus.transport.handover import MAX_IDS, Handed, Handover
from quicbus.transport.network import Path

PATH = Path(("192.0.2.1", 5000), ("::ffff:192.0.2.1", 5000, 0, 0), (41, 50, bytes(20)))


def identifier(number: int) -> bytes:
    return number.to_bytes(8, "big")


def tell(source: Handover, *others: Handover) -> None:
    for message in source.changes():
        for other in others:
            other.handle(message)


def test_id_is_known_to_siblings_once_they_were_told() -> None:
    one, other = Handover(0), Handover(1)
    one.added(identifier(7))
    assert other.owner(identifier(7)) is None
    tell(one, other)
    assert other.owner(identifier(7)) == 0
    assert one.owner(identifier(7)) is None
    assert one.changes() == []


def test_retired_id_is_forgotten() -> None:
    one, other = Handover(0), Handover(1)
    one.added(identifier(7))
    tell(one, other)
    one.retired(identifier(7))
    tell(one, other)
    assert len(other) == 0


def test_id_that_came_and_went_in_one_turn_leaves_nothing() -> None:
    one, other = Handover(0), Handover(1)
    one.added(identifier(7))
    one.retired(identifier(7))
    tell(one, other)
    assert len(other) == 0


def test_id_of_another_size_is_told_to_nobody() -> None:
    one = Handover(0)
    one.added(bytes(20))
    one.retired(bytes(20))
    assert one.changes() == []


def test_id_of_a_siblings_connection_cannot_be_taken_over() -> None:
    victim, attacked, here = Handover(0), Handover(1), Handover(2)
    victim.added(identifier(7))
    tell(victim, here)
    attacked.added(identifier(7))
    tell(attacked, here)
    assert here.owner(identifier(7)) == 0
    attacked.retired(identifier(7))
    tell(attacked, here)
    assert here.owner(identifier(7)) == 0


def test_many_ids_go_in_several_messages() -> None:
    one, other = Handover(0), Handover(1)
    for number in range(2 * MAX_IDS + 1):
        one.added(identifier(number))
    messages = one.changes()
    assert len(messages) == 3
    assert max(map(len, messages)) < 40_000
    for message in messages:
        other.handle(message)
    assert len(other) == 2 * MAX_IDS + 1


def test_process_in_place_of_another_is_told_everything_and_the_old_ids_are_forgotten() -> None:
    survivor, dead, successor = Handover(0), Handover(1), Handover(1)
    survivor.added(identifier(1))
    dead.added(identifier(2))
    tell(dead, survivor)
    successor.added(identifier(3))
    asked_by = [survivor.handle(message) for message in successor.greetings()]
    assert asked_by == [None, None, 1]
    assert survivor.owner(identifier(2)) is None
    assert survivor.owner(identifier(3)) == 1
    for message in survivor.everything():
        successor.handle(message)
    assert successor.owner(identifier(1)) == 0


@pytest.mark.parametrize("path", [PATH, Path(("192.0.2.1", 5000), ("192.0.2.1", 5000))])
def test_datagrams_arrive_as_they_were(path: Path) -> None:
    one, other = Handover(0), Handover(1)
    buffer = bytes(range(256)) * 250
    assert other.handle(one.head(1200, path) + buffer) == Handed(buffer, 1200, path)
    assert other.handle(one.head(65_000, path) + b"x") == Handed(b"x", 65_000, path)


def test_all_tables_agree_after_any_order_of_changes_and_restarts() -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    workers = [Handover(number) for number in range(4)]
    queues: dict[int, list[bytes]] = {number: [] for number in range(4)}
    own: list[set[bytes]] = [set() for _ in workers]

    def post(source: int, messages: list[bytes], *targets: int) -> None:
        for target in targets or [number for number in range(4) if number != source]:
            queues[target] += messages

    def read(target: int, count: int) -> None:
        for _ in range(min(count, len(queues[target]))):
            asked_by = workers[target].handle(queues[target].pop(0))
            if isinstance(asked_by, int):
                post(target, workers[target].everything(), asked_by)

    for _ in range(2000):
        at = rng.randrange(4)
        match rng.randrange(8):
            case 0 if rng.random() < 0.1:
                workers[at], own[at] = Handover(at), set()
                post(at, workers[at].greetings())
            case 0 | 1 if own[at]:
                gone = rng.choice(sorted(own[at]))
                own[at].discard(gone)
                workers[at].retired(gone)
            case 2 | 3 | 4:
                new = rng.randbytes(8)
                own[at].add(new)
                workers[at].added(new)
            case 5:
                post(at, workers[at].changes())
            case _:
                read(at, rng.randrange(4))
    for at, worker in enumerate(workers):
        post(at, worker.changes())
    while any(queues.values()):
        for at in range(4):
            read(at, 10)
    for at, worker in enumerate(workers):
        for other, ids in enumerate(own):
            if other != at:
                assert all(worker.owner(each) == other for each in ids), f"seed {seed}"
        assert len(worker) == sum(len(ids) for other, ids in enumerate(own) if other != at), f"seed {seed}"
