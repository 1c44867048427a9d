"""Retry tokens: an address proves that it receives what is sent to it before anything is kept for it."""

from __future__ import annotations

import ipaddress
import os
import struct
from enum import StrEnum
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["RetryTokenRefused", "RetryTokens", "TokenRefusal", "ValidatedToken"]

LIFETIME_S = 10.0
"""A dialer returns its token at once (RFC 9000 section 8.1.4); time enough for its own repetitions."""
REMEMBERED = 16_384
"""Used tokens that are remembered: about 1,600 handshakes a second for a lifetime, 2 MiB."""
_NONCE_SIZE = 12
_HEAD = struct.Struct("!QHBB")


class TokenRefusal(StrEnum):
    """Why a token is not taken; the names of counters."""

    FORGED = "forged"
    """Not made by this endpoint since it started, or changed."""
    EXPIRED = "expired"
    REPLAYED = "replayed"
    OTHER_ADDRESS = "other_address"
    OTHER_CONNECTION = "other_connection"
    """Sent to a connection id that is not the one of its Retry."""


class RetryTokenRefused(Exception):
    def __init__(self, reason: TokenRefusal) -> None:
        super().__init__(reason)
        self.reason = reason


class ValidatedToken(NamedTuple):
    original_destination_connection_id: bytes
    retry_source_connection_id: bytes


class RetryTokens:
    """Makes and takes the tokens of one endpoint. `now` is a monotonic time in seconds.

    Each token is taken once, from the address that it was made for (IP address and port), for `lifetime_s`.
    Several endpoints may have one `key` (16 bytes) and one clock; then once by each.
    """

    def __init__(self, key: bytes | None = None, lifetime_s: float = LIFETIME_S, remembered: int = REMEMBERED) -> None:
        self._lifetime_s = lifetime_s
        self._remembered = remembered
        self._cipher = AESGCM(key or AESGCM.generate_key(bit_length=128))
        self._used: dict[bytes, int] = {}  # nonce: when it was made
        self._not_before = 0

    def create(
        self,
        address: tuple[str, int],
        original_destination_connection_id: bytes,
        retry_source_connection_id: bytes,
        now: float,
    ) -> bytes:
        nonce = os.urandom(_NONCE_SIZE)
        original, retry = original_destination_connection_id, retry_source_connection_id
        head = _HEAD.pack(_milliseconds(now), address[1], len(original), len(retry))
        plain = head + original + retry + ipaddress.ip_address(address[0]).packed
        return nonce + self._cipher.encrypt(nonce, plain, None)

    def validate(
        self, token: bytes, address: tuple[str, int], destination_connection_id: bytes, now: float
    ) -> ValidatedToken:
        """Take the token of an Initial from `address` to `destination_connection_id`.

        Raises `RetryTokenRefused`. A token that is refused for its address or connection is not used up by that.
        """
        nonce = token[:_NONCE_SIZE]
        try:
            plain = self._cipher.decrypt(nonce, token[_NONCE_SIZE:], None)
        except (InvalidTag, ValueError):
            raise RetryTokenRefused(TokenRefusal.FORGED) from None
        made, port, original_size, retry_size = _HEAD.unpack_from(plain)
        original_end = _HEAD.size + original_size
        retry_end = original_end + retry_size
        original, retry = plain[_HEAD.size : original_end], plain[original_end:retry_end]
        if made < _milliseconds(now - self._lifetime_s) or made < self._not_before:
            raise RetryTokenRefused(TokenRefusal.EXPIRED)
        if (port, plain[retry_end:]) != (address[1], ipaddress.ip_address(address[0]).packed):
            raise RetryTokenRefused(TokenRefusal.OTHER_ADDRESS)
        if destination_connection_id != retry:
            raise RetryTokenRefused(TokenRefusal.OTHER_CONNECTION)
        if nonce in self._used:
            raise RetryTokenRefused(TokenRefusal.REPLAYED)
        self._remember(nonce, made, now)
        return ValidatedToken(original, retry)

    def _remember(self, nonce: bytes, made: int, now: float) -> None:
        expired = _milliseconds(now - self._lifetime_s)
        while self._used:
            oldest = next(iter(self._used))
            if self._used[oldest] >= expired:
                break
            del self._used[oldest]
        if len(self._used) >= self._remembered:
            # What is forgotten early must not be taken again: tokens of its age and older count as expired.
            self._not_before = max(self._not_before, int(self._used.pop(next(iter(self._used)))) + 1)
        self._used[nonce] = made


def _milliseconds(seconds: float) -> int:
    return max(0, int(seconds * 1000))
