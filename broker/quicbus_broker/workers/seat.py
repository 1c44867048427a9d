"""What one of several workers is given before it starts: its sockets, its number, who its siblings are."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from quicbus.exceptions import InvalidSetting
from quicbus.transport.connection import shown_address
from quicbus_broker.host_port import parse_host_port

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from quicbus.transport.connection import Address
    from quicbus.transport.sibling_sockets import Inbox
    from quicbus_broker.settings import BrokerSettings

__all__ = ["WORKERS_FOLDER", "Seat", "check_platform", "folder_of", "own_address", "settings_of_worker"]

WORKERS_FOLDER = "workers"


@dataclass(frozen=True, slots=True)
class Seat:
    """Of worker `number`, from 1. The sockets are closed by the broker that has the seat."""

    number: int
    home: Path
    """The data folder that all workers are started from, where worker 1 lives and `quicbus.toml` may stand."""
    shared: socket.socket
    """Of the port that all workers have."""
    own: socket.socket
    """Of the port that is this worker's alone."""
    inboxes: tuple[Inbox, ...]
    """Of all workers, in their order."""
    retry_key: bytes = field(repr=False)
    siblings: tuple[tuple[bytes, str], ...]
    """Node ids of the other workers, and where each is reached."""


def check_platform(platform: str = sys.platform) -> None:
    """Raise `InvalidSetting` where one port can't be shared."""
    if platform != "linux":
        why = (
            "several processes on one port need Linux; here start several brokers, with --listen, --data-dir and --seed"
        )
        raise InvalidSetting("workers", why)


def folder_of(home: Path, number: int) -> Path:
    """Return the data folder of a worker."""
    return home if number == 1 else home / WORKERS_FOLDER / str(number)


def settings_of_worker(settings: BrokerSettings, number: int, seed: tuple[str, ...]) -> BrokerSettings:
    """Return the settings of one worker: a single broker, which advertises its own port where addresses are given."""
    advertise = tuple(_moved(address, number) for address in settings.advertise)
    return replace(
        settings,
        data_dir=folder_of(settings.folder, number),
        advertise=advertise,
        seed=seed,
        join="",
        workers=1,
    )


def _moved(address: str, by: int) -> str:
    host, port = parse_host_port(address)
    return shown_address((host, port + by))


def own_address(own: Address) -> str:
    """Return where a worker's own socket is reached on this host."""
    host = {"::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(own[0], own[0])  # noqa: S104 (compared, not bound)
    return shown_address((host, own[1]))
