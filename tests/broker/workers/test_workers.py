"""What the supervisor decides without a process: pauses, seats, sockets, what is refused before anything starts."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from quicbus.exceptions import InvalidSetting
from quicbus.transport.udp_socket import bind_udp
from quicbus_broker.settings import BrokerSettings
from quicbus_broker.workers.restarts import FIRST_PAUSE_S, MAX_PAUSE_S, STEADY_S, Restarts
from quicbus_broker.workers.seat import check_platform, folder_of, own_address, settings_of_worker

linux = pytest.mark.skipif(sys.platform != "linux", reason="several processes on one port need Linux")


def test_pause_doubles_with_each_start_that_did_not_last() -> None:
    restarts = Restarts()
    assert [restarts.died(1.0) for _ in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, MAX_PAUSE_S]


def test_worker_that_had_lived_long_is_started_again_soon() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.died(1.0)
    assert restarts.died(STEADY_S) == FIRST_PAUSE_S
    assert restarts.died(1.0) == 2 * FIRST_PAUSE_S


def test_first_worker_lives_in_the_data_folder_itself() -> None:
    home = Path("/data")
    assert [folder_of(home, number) for number in (1, 2)] == [home, home / "workers" / "2"]


def test_each_worker_advertises_its_own_port() -> None:
    settings = BrokerSettings(workers=2, advertise=("bus.example:4433", "[2001:db8::1]:5000"), join="token")
    second = settings_of_worker(settings, 2, ("seed.example:4433",))
    assert second.advertise == ("bus.example:4435", "[2001:db8::1]:5002")
    assert (second.workers, second.join, second.seed) == (1, "", ("seed.example:4433",))


@pytest.mark.parametrize(
    ("bound", "reached"),
    [("::", "127.0.0.1:9"), ("0.0.0.0", "127.0.0.1:9"), ("::1", "[::1]:9")],
)
def test_siblings_reach_each_other_on_this_host(bound: str, reached: str) -> None:
    assert own_address((bound, 9)) == reached


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"mode": "server"}, "mode"),
        ({"mode": "client"}, "mode"),
        ({"certificate": "a", "private_key": "b", "authority": "c"}, "certificate"),
        ({"listen": "127.0.0.1:65534"}, "listen"),
        ({"advertise": ("bus.example:65534",)}, "advertise"),
    ],
)
def test_what_workers_cannot_share_is_refused(settings: dict[str, object], setting: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        BrokerSettings(workers=2, **settings)  # type: ignore[arg-type]
    assert refused.value.name == setting


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_told_the_remedy(platform: str) -> None:
    with pytest.raises(InvalidSetting, match="need Linux; here start several brokers"):
        check_platform(platform)


@linux
def test_port_that_others_share_is_not_taken() -> None:
    from quicbus_broker.workers.sockets import WorkerSockets

    with bind_udp(("127.0.0.1", 0), is_shared=True) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OSError, match="in use") as refused:
            WorkerSockets.open(listen, 2)
    assert (refused.value.errno, refused.value.filename) == (errno.EADDRINUSE, listen)


@linux
def test_all_workers_have_the_shared_port_and_each_one_of_its_own() -> None:
    from quicbus_broker.workers.sockets import WorkerSockets

    sockets = WorkerSockets.open("127.0.0.1:0", 3)
    try:
        assert {each.getsockname()[1] for each in sockets.shared} == {sockets.address[1]}
        assert len({each.getsockname()[1] for each in (*sockets.shared, *sockets.own)}) == 4
        sockets.keep_only(2)
        assert [each.fileno() >= 0 for each in sockets.own] == [False, True, False]
        assert [each.writer.fileno() >= 0 for each in sockets.inboxes] == [True, True, True]
    finally:
        sockets.close()
