"""The file of members: what is kept of them, and that no state of the disk stops a broker."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from quicbus_broker import remembered
from quicbus_broker.mesh.outputs import State
from quicbus_broker.mesh.views import MemberView
from quicbus_broker.remembered import MAX_MEMBERS, REFRESH_S, RememberedMembers
from tests.clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

MESH = "ab" * 16
ME = bytes(16)


def node(number: int) -> bytes:
    return number.to_bytes(16, "big")


def member(
    number: int,
    *addresses: str,
    state: State = State.ALIVE,
    linked: bool = False,
    me: bool = False,
    mode: str = "hybrid",
) -> MemberView:
    return MemberView(
        node=node(number),
        name=f"n{number}",
        addresses=addresses or (f"192.0.2.{number % 250}:{4000 + number}",),
        state=state,
        mode=mode,
        boot=1,
        rtt_s=None,
        is_linked=linked,
        is_me=me,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock(1_700_000_000.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "members.json"


def opened(path: Path, clock: Clock, mesh: str = MESH) -> RememberedMembers:
    return RememberedMembers(path, me=ME, mesh=mesh, clock=clock)


def test_members_of_one_run_are_there_in_the_next(path: Path, clock: Clock) -> None:
    opened(path, clock).save([member(1, "a:1", "[::1]:2"), member(2, "b:3"), member(0, "me:1", me=True)])

    assert opened(path, clock).load() == ((node(1), "a:1"), (node(1), "[::1]:2"), (node(2), "b:3"))


def test_first_start_remembers_nothing(path: Path, clock: Clock) -> None:
    assert opened(path, clock).load() == ()


def test_file_is_for_nobody_else(path: Path, clock: Clock) -> None:
    opened(path, clock).save([member(1)])

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["members.json"]


def test_what_was_seen_last_comes_first_and_neighbours_before_others(path: Path, clock: Clock) -> None:
    memory = opened(path, clock)
    memory.save([member(1), member(2), member(3)])
    clock.now += 60
    memory.save([member(1, state=State.FAILED), member(2), member(3, linked=True), member(4)])

    assert [each for each, _ in opened(path, clock).load()] == [node(3), node(2), node(4), node(1)]


def test_failed_members_stay_and_those_that_left_go(path: Path, clock: Clock) -> None:
    memory = opened(path, clock)
    memory.save([member(1), member(2)])
    memory.save([member(1, state=State.FAILED), member(2, state=State.LEFT)])

    assert [each for each, _ in opened(path, clock).load()] == [node(1)]


def test_members_that_nobody_can_dial_are_not_remembered(path: Path, clock: Clock) -> None:
    memory = opened(path, clock)

    assert not memory.learn([member(1, mode="client"), member(2, state=State.SUSPECT)])


def test_what_an_earlier_run_knew_outlives_a_run_that_met_nobody(path: Path, clock: Clock) -> None:
    opened(path, clock).save([member(1)])
    lonely = opened(path, clock)
    lonely.load()
    lonely.save([])

    assert [each for each, _ in opened(path, clock).load()] == [node(1)]


def test_some_hundreds_are_kept_the_newest(path: Path, clock: Clock) -> None:
    memory = opened(path, clock)
    memory.save([member(number) for number in range(1, 1000)])
    clock.now += 60
    memory.save([member(1500)])
    kept = [each for each, _ in opened(path, clock).load()]

    assert len(kept) == MAX_MEMBERS
    assert kept[0] == node(1500)
    assert path.stat().st_size < 100_000


def test_it_is_written_only_when_something_changed(path: Path, clock: Clock) -> None:
    memory = opened(path, clock)
    members = [member(1), member(2)]

    assert memory.learn(members)
    memory.save(members)
    clock.now += REFRESH_S / 2
    assert not memory.learn(members)
    assert memory.learn([member(1, "moved:1"), member(2)])
    memory.save(members)
    clock.now += REFRESH_S
    assert memory.learn(members)


def test_a_clock_that_was_set_back_does_not_let_the_past_win(path: Path, clock: Clock) -> None:
    opened(path, clock).save([member(number) for number in range(1, MAX_MEMBERS + 1)])
    clock.now -= 1e6
    memory = opened(path, clock)
    memory.load()
    clock.now += 1
    memory.save([member(9999)])

    assert opened(path, clock).load()[0][0] == node(9999)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"mesh": "x", "members": [{}]}',
        b'{"mesh": "x", "members": [{"node": "zz", "addresses": [], "seen": 1}]}',
        b'{"mesh": "x", "members": [{"node": "ab", "addresses": [], "seen": 1}]}',
        json.dumps({"mesh": MESH, "members": [{"node": "ab" * 16, "addresses": ["no port"], "seen": 1}]}).encode(),
        b"[" * 100_000,
        b" " * (remembered.MAX_FILE_SIZE + 1),
    ],
)
def test_a_broken_file_is_named_in_a_warning_and_ignored(
    content: bytes, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    memory = opened(path, clock)

    assert memory.load() == ()
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert record.levelname == "WARNING"
    memory.save([member(1)])
    assert len(opened(path, clock).load()) == 1


def test_members_of_another_mesh_are_ignored(path: Path, clock: Clock) -> None:
    opened(path, clock, mesh="cd" * 16).save([member(1)])

    assert opened(path, clock).load() == ()


def test_a_disk_that_takes_nothing_is_told_once_and_tried_again(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = opened(path, clock)
    with monkeypatch.context() as patched:
        patched.setattr(remembered, "write_file", _full_disk)
        memory.save([member(1)])
        memory.save([member(1)])
    (record,) = caplog.records
    assert "No space left" in record.getMessage()
    memory.save([member(1)])
    assert len(opened(path, clock).load()) == 1


async def test_the_task_writes_when_there_is_news(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "FIRST_INTERVAL_S", 0.01)
    written = asyncio.Event()
    loop = asyncio.get_running_loop()

    def write(path: Path, data: bytes, *, private: bool) -> None:
        assert json.loads(data)["members"][0]["addresses"] == ["a:1"]
        loop.call_soon_threadsafe(written.set)

    monkeypatch.setattr(remembered, "write_file", write)
    task = asyncio.create_task(opened(path, clock).keep(lambda: [member(1, "a:1")]))
    async with asyncio.timeout(20):
        await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _full_disk(path: Path, data: bytes, *, private: bool) -> None:
    raise OSError(28, os.strerror(28))
