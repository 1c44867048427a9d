"""What an authority writes for a request that was brought to it as a file: certificate, authorities, trust list.

All of it is PEM text; the trust list stands in a block of its own kind, which other tools skip.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

import msgspec

from quicbus.exceptions import CredentialError
from quicbus.identity import pem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

__all__ = ["SignedFile", "read_signed", "trust_from_pem", "trust_to_pem"]

_LABEL = "QUICBUS TRUST LIST"
_BLOCK = re.compile(rb"-----BEGIN QUICBUS TRUST LIST-----\s(.*?)-----END QUICBUS TRUST LIST-----", re.DOTALL)
_LINE = 64


class SignedFile(msgspec.Struct, frozen=True):
    """Who installs it has brought the request there himself, and so trusts the authorities in it."""

    chain: Sequence[x509.Certificate]
    authorities: Sequence[x509.Certificate]
    trust: bytes = b""

    def to_pem(self) -> bytes:
        """Return the file's content. It holds no secret."""
        return pem.join(self.chain) + pem.join(self.authorities) + trust_to_pem(self.trust)


def read_signed(data: bytes, source: str) -> SignedFile:
    """Read the file; raises `CredentialError` that begins with `source`. The trust list is not verified."""
    certificates = pem.split(data, source).certificates
    return SignedFile(
        [one for one in certificates if one.issuer != one.subject],
        [one for one in certificates if one.issuer == one.subject],
        trust_from_pem(data, source),
    )


def trust_to_pem(raw: bytes) -> bytes:
    """Return the list as text, nothing for an empty one."""
    if not raw:
        return b""
    text = base64.b64encode(raw).decode()
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join([f"-----BEGIN {_LABEL}-----", *lines, f"-----END {_LABEL}-----", ""]).encode()


def trust_from_pem(data: bytes, source: str) -> bytes:
    """Return the list in the text, empty where there is none; raises `CredentialError`."""
    match = _BLOCK.search(data)
    if match is None:
        return b""
    try:
        return base64.b64decode(re.sub(rb"\s", b"", match[1]), validate=True)
    except binascii.Error:
        raise CredentialError(f"{source}: the trust list in it is unreadable") from None
