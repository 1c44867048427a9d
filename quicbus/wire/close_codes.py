"""Application close codes of a quicbus connection (docs/protocol.md, "Closing").

Only GOODBYE counts as clean. Codes from 0x100 concern the credential: trying again with the same one does not help.
"""

from __future__ import annotations

__all__ = ["CREDENTIAL_CODES", "CloseCode"]

from enum import IntEnum


class CloseCode(IntEnum):
    GOODBYE = 0x00
    INTERNAL_ERROR = 0x01
    PROTOCOL_VIOLATION = 0x02
    HANDSHAKE_TIMEOUT = 0x03
    TOO_MANY_CONNECTIONS = 0x04
    LIMIT_EXCEEDED = 0x05
    UNSUPPORTED_VERSION = 0x06
    GOING_AWAY = 0x07
    STALLED = 0x08
    REPLACED = 0x09
    NOT_AVAILABLE = 0x0A
    CREDENTIAL_MISSING = 0x100
    CREDENTIAL_INVALID = 0x101
    CREDENTIAL_EXPIRED = 0x102
    CREDENTIAL_OTHER_MESH = 0x103
    CREDENTIAL_WRONG_ROLE = 0x104
    PROOF_INVALID = 0x105
    CREDENTIAL_REVOKED = 0x106
    TOKEN_REFUSED = 0x107


CREDENTIAL_CODES = frozenset(code for code in CloseCode if code >= 0x100)
