"""Who was issued what, in the folder with the authority's key: one line of JSON for each certificate.

Without it nobody could revoke by name, and nobody would know when an old authority has nothing left to vouch for.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
from typing import TYPE_CHECKING

import msgspec
from cryptography import x509

from quicbus.identity.files import PRIVATE_FILE_MODE
from quicbus.identity.folder_files import ISSUED_FILE, exists, one_error, write
from quicbus.identity.folder_lock import brief_lock
from quicbus.identity.names import Role  # noqa: TC001  # msgspec reads the annotation
from quicbus.identity.peer import peer_of
from quicbus.identity.proof import RENEW_GRACE_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from quicbus.identity.authority import Authority

__all__ = ["IssuedCertificate", "IssuedLog"]

COMPACT_SIZE = 4 * 1024 * 1024
"""Bytes, about 17,000 certificates: over it only those are kept that are valid or renewable, the last of each key."""

logger = logging.getLogger("quicbus.identity")


class IssuedCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """One line."""

    role: Role
    name: str
    key_id: str
    """32 hex digits: `node_id` of the key, of clients too."""
    serial: str
    """Hex."""
    issuer: str
    """Key id of the authority that signed it."""
    issued_at: int
    """Seconds since 1970, as is the other."""
    not_after: int

    @property
    def renewable_until(self) -> int:
        return self.not_after + RENEW_GRACE_DAYS * 86_400


_decoder = msgspec.json.Decoder(IssuedCertificate)


class IssuedLog:
    """Blocks for the file at each call. All methods raise `DataFolderError`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, authority: Authority, *certificates_der: bytes, now: dt.datetime | None = None) -> None:
        """Note certificates that `authority` has just signed."""
        now = now or dt.datetime.now(dt.UTC)
        entries = [_entry(authority, x509.load_der_x509_certificate(der), now) for der in certificates_der]
        with one_error(self.folder), brief_lock(self.folder):
            path = self.folder / ISSUED_FILE
            if exists(path) and path.stat().st_size > COMPACT_SIZE:
                self._compact(now)
            data = _lines(entries)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            with open(os.open(path, flags, PRIVATE_FILE_MODE), "ab") as file:
                if file.tell() and not _ends_line(path):
                    data = b"\n" + data  # a write was cut off
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    def entries(self) -> list[IssuedCertificate]:
        """Return all, the oldest first. Lines that can't be read are left out, with a warning."""
        with one_error(self.folder):
            return self._read()

    def find(self, which: str) -> list[IssuedCertificate]:
        """Return the certificates of a name, of `node/NAME` or `client/NAME`, or of a key id in hex."""
        role, slash, name = which.partition("/")
        found = []
        for one in self.entries():
            is_named = one.name == name and one.role == role if slash else one.name == which
            if is_named or one.key_id == which.lower():
                found.append(one)
        return found

    def _read(self) -> list[IssuedCertificate]:
        path = self.folder / ISSUED_FILE
        if not exists(path):
            return []
        found, damaged = [], 0
        for line in path.read_bytes().splitlines():
            try:
                found.append(_decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                damaged += bool(line.strip())
        if damaged:
            logger.warning("data folder %s: %d lines of %s can't be read", self.folder, damaged, ISSUED_FILE)
        return found

    def _compact(self, now: dt.datetime) -> None:
        last = {(one.key_id, one.issuer): one for one in self._read() if one.renewable_until > now.timestamp()}
        write(self.folder, ISSUED_FILE, _lines(last.values()))


def _entry(authority: Authority, certificate: x509.Certificate, now: dt.datetime) -> IssuedCertificate:
    peer = peer_of(certificate)
    return IssuedCertificate(
        role=peer.role,
        name=peer.name,
        key_id=peer.node_id.hex(),
        serial=f"{certificate.serial_number:x}",
        issuer=authority.key_id.hex(),
        issued_at=int(now.timestamp()),
        not_after=int(peer.not_after.timestamp()),
    )


def _lines(entries: Iterable[IssuedCertificate]) -> bytes:
    return b"".join(msgspec.json.encode(one) + b"\n" for one in entries)


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
