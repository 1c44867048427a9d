"""Ctrl-C while a command waits for a broker that says nothing: one line on what to do next, and exit code 130."""

from __future__ import annotations

import datetime as dt
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import Authority, JoinToken, Role, prepare_node_folder
from quicbus.testing.launcher import BrokerProcess, Ended, Launched, quicbus_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there SIGINT is not sent to one process")

AUTHORITY = Authority.create()
INTERRUPTED = 128 + signal.SIGINT
DEADLINE_S = 120.0


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port where datagrams arrive and nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.settimeout(DEADLINE_S)
        yield taken


def address(silent: socket.socket) -> str:
    return f"127.0.0.1:{silent.getsockname()[1]}"


def token(silent: socket.socket, role: Role) -> str:
    expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    made = JoinToken.make(AUTHORITY.mesh, [address(silent)], AUTHORITY.authorities_der, role, "osaka", expires_at)
    return made.text


def interrupted(tmp_path: Path, silent: socket.socket, *arguments: str) -> Ended:
    """Run a command, and interrupt it when its first datagram has arrived."""
    with Launched([*quicbus_command(), *arguments], cwd=tmp_path) as process:
        silent.recv(65_536)
        process.interrupt()
        return process.wait(DEADLINE_S)


def test_cert_enroll_says_that_the_same_command_goes_on(silent: socket.socket, tmp_path: Path) -> None:
    ended = interrupted(tmp_path, silent, "cert", "enroll", token(silent, Role.CLIENT))
    assert ended == Ended(
        INTERRUPTED, "", "quicbus: interrupted; the same command goes on, also where the token is used up by now\n"
    )
    assert not (tmp_path / "osaka.pem").exists()


def test_a_broker_that_joins_says_that_the_same_command_goes_on(silent: socket.socket, tmp_path: Path) -> None:
    options = ("--data-dir", "data", "--listen", "127.0.0.1:0", "--join", token(silent, Role.NODE))
    ended = interrupted(tmp_path, silent, "broker", *options)
    assert ended == Ended(
        INTERRUPTED, "", "quicbus: interrupted before the broker was ready; the same command goes on\n"
    )


def test_a_broker_whose_seed_says_nothing_is_ready_and_stops_at_once(silent: socket.socket, tmp_path: Path) -> None:
    prepare_node_folder(AUTHORITY, "osaka", tmp_path / "data")
    with BrokerProcess(data_dir=tmp_path / "data", seeds=[address(silent)]) as broker:
        silent.recv(65_536)
        broker.interrupt()
        ended = broker.wait(DEADLINE_S)
    assert (ended.code, ended.stderr) == (0, "")
