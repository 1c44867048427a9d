"""The channel binding: 32 bytes that both ends of one TLS session know, and nobody else.

Both engines write their traffic secrets to `secrets_log_file` in the NSS key log format. The sink here stands in for
that file: it keeps nothing but an HMAC over the first application secrets of both directions, which depend on the
whole handshake, the listener's certificate included.
"""

from __future__ import annotations

import hashlib
import hmac
import io

__all__ = ["CHANNEL_BINDING_SIZE", "ChannelBindingSink"]

CHANNEL_BINDING_SIZE = 32

_CONTEXT = b"quicbus channel binding v1"
_LABELS = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0")


class ChannelBindingSink(io.TextIOBase):
    """Give one to each connection as `secrets_log_file`; `binding` is there once the handshake is complete.

    Secrets of the handshake, of early data and of later key updates pass through unread. Nothing here is ever shown:
    what the engines write would let anyone decrypt the connection.
    """

    def __init__(self) -> None:
        super().__init__()
        self._secrets: dict[str, bytes] = {}
        self._binding: bytes | None = None

    def __repr__(self) -> str:
        return f"<ChannelBindingSink {'complete' if self._binding else 'waiting'}>"

    @property
    def binding(self) -> bytes | None:
        """The same at both ends and of no other connection; `None` until both secrets have come."""
        return self._binding

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        """Take whole lines, as both engines write them."""
        if self._binding is None:
            for line in text.splitlines():
                self._take(line)
        return len(text)

    def _take(self, line: str) -> None:
        label, _, rest = line.partition(" ")
        _client_random, _, secret = rest.partition(" ")
        if label not in _LABELS or not secret:
            return
        self._secrets[label] = bytes.fromhex(secret)
        if len(self._secrets) == len(_LABELS):
            key = b"".join(len(part).to_bytes(2, "big") + part for part in map(self._secrets.__getitem__, _LABELS))
            self._binding = hmac.new(key, _CONTEXT, hashlib.sha256).digest()
            self._secrets.clear()
