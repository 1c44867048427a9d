"""Reloading: all or nothing, asked for by code and by files in the data folder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.exceptions import InvalidSetting, NotPermitted
from quicbus.identity.folder_lock import FolderLock
from quicbus_broker import Broker, BrokerSettings, reload_files
from quicbus_broker.reload_files import Answer, ReloadFailed, answer, ask, requests_in
from quicbus_broker.reloading import Reloading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOG = logging.getLogger("tests.reloading")
DENY = '[permissions]\ndefault = "deny"\n'


class Part:
    """Something that can be reloaded, with a value that a test changes."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.applied: list[str] = []

    def read(self) -> Callable[[], str]:
        if self.value == "wrong":
            raise InvalidSetting("part", "wrong", "file:3")
        value = self.value

        def apply() -> str:
            self.applied.append(value)
            return f"part: {value}"

        return apply


async def test_all_parts_are_read_before_one_is_applied() -> None:
    first, second = Part("a"), Part("b")
    reloading = Reloading((first.read, second.read), LOG)
    reloading.load()

    assert await reloading.reload() == ("part: a", "part: b")
    first.value, second.value = "c", "wrong"
    with pytest.raises(InvalidSetting, match=r"part \(from file:3\): wrong"):
        await reloading.reload()

    assert (first.applied, second.applied) == (["a", "a"], ["b", "b"])


async def test_a_reload_is_over_when_all_that_follows_from_it_is_done() -> None:
    left = [3]

    def go_on() -> bool:
        left[0] -= 1
        return left[0] > 0

    await Reloading((Part("a").read,), LOG, go_on).reload()
    assert left == [0]


async def test_requests_in_the_folder_are_answered_each(tmp_path: Path) -> None:
    part = Part("a")
    serving = asyncio.create_task(Reloading((part.read,), LOG).serve(tmp_path))
    with contextlib.closing(_Lock(tmp_path)):
        assert await asyncio.gather(*(asyncio.to_thread(ask, tmp_path, 20.0) for _ in range(3))) == [("part: a",)] * 3
        part.value = "wrong"
        with pytest.raises(
            ReloadFailed, match=r"not reloaded, everything stays as it was: part \(from file:3\): wrong"
        ):
            await asyncio.to_thread(ask, tmp_path, 20.0)
    serving.cancel()
    await asyncio.wait((serving,))
    assert os.listdir(tmp_path) == ["lock"]


class _Lock:
    """What a broker holds."""

    def __init__(self, folder: Path) -> None:
        self._lock = FolderLock(folder / "lock")

    def close(self) -> None:
        self._lock.release()


def test_without_a_broker_the_remedy_is_told_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(ReloadFailed, match=r"no broker runs with the data folder .*quicbus broker"):
        ask(tmp_path / "missing", 1.0)
    assert not (tmp_path / "missing").exists()
    FolderLock(tmp_path / "lock").release()
    with pytest.raises(ReloadFailed, match="no broker runs"):
        ask(tmp_path, 1.0)
    assert os.listdir(tmp_path) == ["lock"]


def test_a_broker_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload_files, "POLL_S", 0.001)
    with contextlib.closing(_Lock(tmp_path)), pytest.raises(ReloadFailed, match=r"has not answered within 0\.01 s"):
        ask(tmp_path, 0.01)
    assert os.listdir(tmp_path) == ["lock"]


def test_results_that_nobody_fetched_are_removed_later(tmp_path: Path) -> None:
    old, new = tmp_path / f"reload-{'0' * 16}.result", tmp_path / f"reload-{'1' * 16}.result"
    for path in (old, new):
        path.write_bytes(b"{}")
    os.utime(old, (1, 1))
    (tmp_path / f"reload-{'2' * 16}.request").write_bytes(b"")
    (tmp_path / "reload-other.request").write_bytes(b"")

    answer(tmp_path, requests_in(tmp_path), Answer(lines=("x",)))

    assert sorted(os.listdir(tmp_path)) == [
        f"reload-{'1' * 16}.result",
        f"reload-{'2' * 16}.result",
        "reload-other.request",
    ]


def test_a_folder_that_is_gone_has_no_requests(tmp_path: Path) -> None:
    assert requests_in(tmp_path / "gone") == []


# --- a broker ---------------------------------------------------------------------------------------------------------


def settings(tmp_path: Path, permissions_file: Path | None = None) -> BrokerSettings:
    return BrokerSettings(listen="127.0.0.1:0", data_dir=tmp_path / "data", permissions_file=permissions_file)


def is_restricted(broker: Broker) -> bool:
    return broker._opened_edge.exchange.policy.restricts


async def test_a_broker_reads_the_file_that_is_named_and_reads_it_again(tmp_path: Path) -> None:
    path = tmp_path / "who.toml"
    path.write_text("")
    async with Broker(settings(tmp_path, permissions_file=path)) as broker:
        assert not is_restricted(broker)
        path.write_text(DENY)
        (line,) = await broker.reload()
        assert line == f"permissions: 0 roles, default deny ({path})"
        assert is_restricted(broker)
        for wrong in ("[permissions]\ndefault = 3\n", "[permissions\n"):
            path.write_text(wrong)
            with pytest.raises(InvalidSetting, match=r"who\.toml:[12]\)"):
                await broker.reload()
            assert is_restricted(broker)
        path.unlink()
        with pytest.raises(InvalidSetting, match="not readable"):
            await broker.reload()
        assert is_restricted(broker)


async def test_the_file_in_the_data_folder_counts_where_none_is_named(tmp_path: Path) -> None:
    async with Broker(settings(tmp_path)) as broker:
        (line,) = await broker.reload()
        assert "everyone may publish and subscribe to everything (there is no " in line
        path = broker.data_dir / "quicbus.toml"
        path.write_text(DENY)
        await broker.reload()
        assert is_restricted(broker)
        path.unlink()
        with pytest.raises(InvalidSetting, match="not readable"):
            await broker.reload()


async def test_a_broker_does_not_start_with_a_wrong_or_missing_table(tmp_path: Path) -> None:
    path = tmp_path / "who.toml"
    with pytest.raises(InvalidSetting, match="not readable: No such file"):
        await Broker(settings(tmp_path, permissions_file=path)).__aenter__()
    path.write_text("[permissions]\nroles = []\n")
    with pytest.raises(
        InvalidSetting, match=r"permissions\.roles \(from .*who\.toml:2\): unknown key; did you mean role\?"
    ):
        await Broker(settings(tmp_path, permissions_file=path)).__aenter__()


async def test_a_live_subscription_that_is_no_longer_permitted_raises_at_the_iterator(tmp_path: Path) -> None:
    async with asyncio.timeout(30), Broker(settings(tmp_path)) as broker:
        path = broker.data_dir / "quicbus.toml"
        async with quicbus.connect(broker.url, credentials=broker.credential_path) as bus:
            subscription = await bus.subscribe("t")
            await broker.bus.publish("t", b"1")
            assert (await anext(subscription)).payload == b"1"
            path.write_text(DENY)
            await broker.reload()
            with pytest.raises(NotPermitted) as caught:
                await anext(subscription)
            assert (caught.value.action, caught.value.topic) == ("subscribe", "t")
            with pytest.raises(NotPermitted):
                await bus.publish("t", b"2")
            path.write_text("")
            await broker.reload()
            await bus.ping()
            async with bus.subscribe("t") as again:
                await bus.publish("t", b"3")
                await bus.flush()
                assert (await anext(again)).payload == b"3"
            assert broker.statistics().books.balance == 0
