"""The two frames of `quicbus-join/1`: asking a node for a certificate, and the certificate.

A connection of this protocol carries one stream each way, and one frame on each. What is asked and what is issued
travels in them as bytes: a node that has not the authority's key passes both on as they came. `AuthorityAnswer` is
what comes back over the mesh then. Which side sends what, and when, is in docs/protocol.md.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire.frames import Count, Frame

__all__ = [
    "AUTHORITY_GROUP",
    "AUTHORITY_TOPIC",
    "JOIN_ALPN",
    "JOIN_FRAME_TYPES",
    "JOIN_VERSION",
    "AuthorityAnswer",
    "JoinRequest",
    "Joined",
    "decode_answer",
    "encode_answer",
]

JOIN_ALPN: Final = "quicbus-join/1"
JOIN_VERSION: Final = 1
AUTHORITY_TOPIC: Final = "$quicbus/authority"
"""Nodes that have the authority's key answer requests to it, as members of `AUTHORITY_GROUP`."""
AUTHORITY_GROUP: Final = "authority"


class JoinRequest(Frame, frozen=True, kw_only=True):
    """Dialer: issue me a certificate. It says who may have one, and for which key: `quicbus.identity.issuing`."""

    TYPE = 0x40
    version: Count
    agent: str = ""
    request: Annotated[bytes, msgspec.Meta(min_length=1, max_length=limits.MAX_JOIN_REQUEST_SIZE)]


class Joined(Frame, frozen=True, kw_only=True):
    """Listener: the certificate. The dialer closes with GOODBYE once it has it."""

    TYPE = 0x41
    issued: Annotated[bytes, msgspec.Meta(min_length=1)]
    """Certificates and authorities; the dialer checks them against the authority that it trusts already."""
    brokers: tuple[str, ...] = ()
    """URLs of further brokers of the mesh."""


JOIN_FRAME_TYPES: dict[int, type[Frame]] = {cls.TYPE: cls for cls in (JoinRequest, Joined)}


class AuthorityAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node with the authority's key answers over the mesh: what it issued, or why it did not."""

    issued: bytes = b""
    code: Count = 0
    """Of the close that the joiner gets, where nothing was issued."""
    why: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AuthorityAnswer)


def encode_answer(answer: AuthorityAnswer) -> bytes:
    return _encoder.encode(answer)


def decode_answer(data: bytes) -> AuthorityAnswer:
    """Read an answer that came over the mesh; raises `ProtocolViolation`."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolViolation(f"AuthorityAnswer: {error}") from None
