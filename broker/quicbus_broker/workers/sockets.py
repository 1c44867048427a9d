"""The sockets of all workers. The supervisor opens them once and keeps them: who is started again finds them as they
were, and the system goes on spreading datagrams as it did."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from quicbus.transport.connection import shown_address
from quicbus.transport.network import plain_address
from quicbus.transport.sibling_sockets import Inbox, open_inbox
from quicbus.transport.udp_socket import bind_udp
from quicbus_broker.settings import parse_listen
from quicbus_broker.workers.seat import own_address

if TYPE_CHECKING:
    from quicbus.transport.connection import Address

__all__ = ["WorkerSockets"]


class WorkerSockets:
    """Made by `open`; each list has an entry for each worker."""

    def __init__(self) -> None:
        self.shared: list[socket.socket] = []
        self.own: list[socket.socket] = []
        self.inboxes: list[Inbox] = []

    @classmethod
    def open(cls, listen: str, workers: int) -> WorkerSockets:
        """Bind everything; raises `OSError` with the address as its `filename`. Asks for the host's address."""
        sockets = cls()
        try:
            sockets._open(listen, workers)
        except BaseException:
            sockets.close()
            raise
        return sockets

    def _open(self, listen: str, workers: int) -> None:
        host, port = parse_listen(listen)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except UnicodeError as error:
            raise OSError(socket.EAI_NONAME, f"no host name ({error})", listen) from None
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), listen) from None
        ip = str(found[0][4][0])
        # Alone first: who shares a port with strangers of the same user would take half of each other's clients.
        with _bind((ip, port), listen) as alone:
            shared = plain_address(alone.getsockname())
        for number in range(1, workers + 1):
            self.shared.append(_bind((ip, shared[1]), listen, is_shared=True))
            own_port = port + number if port else 0
            self.own.append(_bind((ip, own_port), shown_address((host, own_port))))
            self.inboxes.append(open_inbox())

    @property
    def address(self) -> Address:
        """Of the shared port."""
        return plain_address(self.shared[0].getsockname())

    def own_address(self, number: int) -> str:
        """Where worker `number` is reached on this host."""
        return own_address(plain_address(self.own[number - 1].getsockname()))

    def keep_only(self, number: int) -> None:
        """In the process of one worker: close what is the others' alone."""
        for at, (shared, own, inbox) in enumerate(zip(self.shared, self.own, self.inboxes, strict=True)):
            if at != number - 1:
                shared.close()
                own.close()
                inbox.reader.close()

    def close(self) -> None:
        for udp in (*self.shared, *self.own):
            udp.close()
        for inbox in self.inboxes:
            inbox.close()


def _bind(address: Address, listen: str, *, is_shared: bool = False) -> socket.socket:
    try:
        return bind_udp(address, is_shared=is_shared)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), listen) from None
