"""Whether this machine lets a test send to a multicast group on its loopback interface."""

from __future__ import annotations

import socket

__all__ = ["multicast_on_loopback"]


def multicast_on_loopback() -> str:
    """Return why multicast does not work on the loopback interface; empty where it does."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        group, loopback = socket.inet_aton("224.0.0.251"), socket.inet_aton("127.0.0.1")
        receiver.settimeout(5)
        try:
            receiver.bind(("", 0))
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + loopback)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
            sender.sendto(b"quicbus", ("224.0.0.251", receiver.getsockname()[1]))
            return "" if receiver.recv(100) == b"quicbus" else "something else arrived"
        except OSError as error:
            return f"no multicast on the loopback interface: {error}"
