"""nats-server processes with TLS, alone or as a cluster: what the throughput of quicbus is compared with."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quicbus.identity import Authority, Credential
from quicbus.testing.launcher import Launched

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NatsServer", "nats_broker", "nats_cluster", "nats_server"]


@dataclass(frozen=True, slots=True)
class NatsServer:
    """A server that is ready. `authority` is the file of the certificate that clients trust."""

    url: str
    authority: Path
    server_name: str
    pid: int


def nats_server() -> str | None:
    """Return the path of the program, or `None`."""
    return shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def nats_broker() -> Iterator[NatsServer]:
    """Run one server."""
    with tempfile.TemporaryDirectory(prefix="quicbus-nats-") as name:
        node = _write_certificates(Path(name))
        with _run(Path(name), "nats", node, "") as server:
            yield server


@contextlib.contextmanager
def nats_cluster() -> Iterator[tuple[NatsServer, NatsServer]]:
    """Run two servers with a route between them, TLS on clients and routes."""
    ports = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="quicbus-nats-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        node = _write_certificates(folder)
        servers = []
        for number, port in enumerate(ports):
            # `insecure`: the name in the certificate is not compared with 127.0.0.1; it is encrypted all the same.
            cluster = (
                f'cluster {{ name: bench, listen: "127.0.0.1:{port}", no_advertise: true, '
                f'routes: ["nats-route://127.0.0.1:{ports[1 - number]}"], '
                f'tls {{ cert_file: "{folder}/certificate.pem", key_file: "{folder}/key.pem", '
                f'ca_file: "{folder}/authority.pem", insecure: true }} }}\n'
            )
            servers.append(stack.enter_context(_run(folder, f"nats{number}", node, cluster)))
        yield servers[0], servers[1]


def _write_certificates(folder: Path) -> Credential:
    authority = Authority.create()
    node = authority.issue_node("nats")
    (folder / "authority.pem").write_bytes(authority.certificate_pem)
    (folder / "certificate.pem").write_bytes(node.chain_pem)
    (folder / "key.pem").write_bytes(node.private_key_pem)
    return node


@contextlib.contextmanager
def _run(folder: Path, name: str, node: Credential, more: str) -> Iterator[NatsServer]:
    program = nats_server()
    assert program is not None
    # The outbox of a subscriber may hold the whole load: NATS disconnects slow ones, and nothing shall be lost.
    (folder / f"{name}.conf").write_text(
        f"server_name: {name}\nhost: 127.0.0.1\nport: {free_port()}\nmax_pending: 2GB\n"
        f'tls {{ cert_file: "{folder}/certificate.pem", key_file: "{folder}/key.pem" }}\n{more}'
    )
    with Launched([program, "-c", str(folder / f"{name}.conf")], own_session=True) as process:
        listening = process.wait_line("Listening for client connections on", stream="stderr")
        address = listening.rsplit(" ", 1)[-1].strip()
        process.wait_line("Server is ready", stream="stderr")
        yield NatsServer(f"tls://{address}", folder / "authority.pem", node.server_name, process.pid)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
