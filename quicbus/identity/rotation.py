"""One authority follows another: both are trusted at first, then the next one issues, then the old one goes.

The next authority is in the trust list from the beginning, so that by the time it issues every node and client that has
renewed in between knows it. The old one stays for as long as anything that it signed is valid or may be renewed.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

import msgspec

from quicbus.exceptions import DataFolderError, InvalidSetting
from quicbus.identity import pem
from quicbus.identity.authority import CERTIFICATE_DAYS, Authority
from quicbus.identity.files import write_file
from quicbus.identity.folder_files import (
    AUTHORITY_FILE,
    AUTHORITY_KEY_FILE,
    NEXT_KEY_FILE,
    OLD_KEY_FILE,
    ROTATION_FILE,
    exists,
    one_error,
    write,
)
from quicbus.identity.folder_lock import brief_lock
from quicbus.identity.folder_trust import make_trust, read_authority
from quicbus.identity.issued_log import IssuedLog
from quicbus.identity.keys import generate_key, key_from_pem, key_to_pem, node_id_of
from quicbus.identity.proof import RENEW_GRACE_DAYS

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

__all__ = [
    "OVERLAP_DAYS",
    "Rotation",
    "advance_rotation",
    "read_rotation",
    "start_rotation",
    "usual_overlap_days",
]

OVERLAP_DAYS = CERTIFICATE_DAYS + RENEW_GRACE_DAYS
"""Before the next authority issues. Whoever heard nothing of the mesh for so long has a certificate that can't even be
renewed, so nobody who can come back meets an authority that he never heard of. Shorter locks out who was away."""
MAX_OVERLAP_DAYS = 3650.0

logger = logging.getLogger("quicbus.identity")


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """A rotation that is under way."""

    old: str
    """Key id of the authority that is followed, hex."""
    next: str
    """That of the one that follows."""
    started_at: int
    """Seconds since 1970, as are the others."""
    switch_at: int
    """From then on the next one issues."""
    has_switched: bool = False
    """The next one issues; the old one is trusted until nothing of it is left."""


_decoder = msgspec.json.Decoder(Rotation)


def read_rotation(folder: Path) -> Rotation | None:
    """Return the rotation that is under way; raises `DataFolderError`."""
    path = folder / ROTATION_FILE
    with one_error(folder):
        if not exists(path):
            return None
        try:
            return _decoder.decode(path.read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataFolderError(
                str(folder), f"{ROTATION_FILE} is damaged ({error}); put it back from a copy of the folder"
            ) from None


def usual_overlap_days(folder: Path, now: dt.datetime) -> float:
    """Return the days after which each certificate of today was renewed, or can't be; raises `DataFolderError`.

    `OVERLAP_DAYS`, longer where some live for longer, shorter where the authority ends before that.
    """
    with one_error(folder):
        authority = read_authority(folder)
    last = max((one.renewable_until for one in IssuedLog(folder).entries()), default=0)
    days = max(float(OVERLAP_DAYS), (last - now.timestamp()) / 86_400)
    if authority is not None:
        left = (authority.not_after - now) / dt.timedelta(days=1)
        days = min(days, max(0.0, left - CERTIFICATE_DAYS))
    return min(days, MAX_OVERLAP_DAYS)


def start_rotation(folder: Path, now: dt.datetime, *, overlap_days: float | None = None) -> Rotation:
    """Make the next authority, and have the mesh trust it from now on; raises `DataFolderError`, `InvalidSetting`.

    `overlap_days`: `usual_overlap_days` unless given. Shorter, those who were away in the meantime can't verify brokers
    whose certificate is of the next authority, and have to join again; 0: it issues at once. The old one stays trusted
    in any case: this is no remedy for a stolen key.
    """
    if overlap_days is None:
        overlap_days = usual_overlap_days(folder, now)
    if not 0 <= overlap_days <= MAX_OVERLAP_DAYS:
        raise InvalidSetting("overlap", f"{overlap_days:g} days are not allowed: 0 to {MAX_OVERLAP_DAYS:g}")
    with one_error(folder), brief_lock(folder):
        authority = read_authority(folder)
        if authority is None:
            raise DataFolderError(
                str(folder), f"no authority's key in it ({AUTHORITY_KEY_FILE}); name the folder of the authority"
            )
        if (under_way := read_rotation(folder)) is not None:
            state = "the old one is still trusted" if under_way.has_switched else "the next one does not issue yet"
            raise DataFolderError(str(folder), f"one authority follows another already, {state}; wait until it is done")
        following = _next_authority(folder, authority, now)
        rotation = Rotation(
            old=authority.key_id.hex(),
            next=following.key_id.hex(),
            started_at=int(now.timestamp()),
            switch_at=int((now + dt.timedelta(days=overlap_days)).timestamp()),
        )
        own = following.authorities[0]
        make_trust(folder, now, authorities=[*(one for one in authority.authorities if one != own), own])
        _write(folder, rotation)
    advance_rotation(folder, now)
    return read_rotation(folder) or rotation


def advance_rotation(folder: Path, now: dt.datetime) -> bool:
    """Take the steps whose time has come, and tell whether there was one; raises `DataFolderError`.

    Costs a `stat` where no rotation is under way.
    """
    rotation = read_rotation(folder)
    if rotation is None:
        return False
    has_moved = False
    with one_error(folder), brief_lock(folder):
        rotation = read_rotation(folder)
        if rotation is not None and not rotation.has_switched and now.timestamp() >= rotation.switch_at:
            rotation = _switch(folder, rotation, now)
            has_moved = True
        if rotation is not None and rotation.has_switched and now.timestamp() > old_ends_at(folder, rotation):
            _finish(folder, rotation, now)
            has_moved = True
    return has_moved


def old_ends_at(folder: Path, rotation: Rotation) -> int:
    """Return when nothing that the old authority signed is valid or renewable any more, in seconds since 1970."""
    issued = (one.renewable_until for one in IssuedLog(folder).entries() if one.issuer == rotation.old)
    # At least that, should the log be incomplete.
    return max([rotation.switch_at + OVERLAP_DAYS * 86_400, *issued])


def _next_authority(folder: Path, authority: Authority, now: dt.datetime) -> Authority:
    """Make it, or find what a rotation that was cut off has left of it."""
    path = folder / NEXT_KEY_FILE
    if not exists(path):
        write(folder, NEXT_KEY_FILE, key_to_pem(generate_key()))
    key = key_from_pem(path.read_bytes(), NEXT_KEY_FILE)
    for one in authority.authorities:
        if one.public_key() == key.public_key():
            return Authority(key, one, authority.mesh)
    return Authority.create(key=key, mesh=authority.mesh, now=now)


def _switch(folder: Path, rotation: Rotation, now: dt.datetime) -> Rotation:
    # Each step may be the last before a power cut, and all of them may be taken again.
    if exists(folder / NEXT_KEY_FILE):
        following = (folder / NEXT_KEY_FILE).read_bytes()
        current = (folder / AUTHORITY_KEY_FILE).read_bytes()
        if current != following:
            write(folder, OLD_KEY_FILE, current)
            write(folder, AUTHORITY_KEY_FILE, following)
    certificates = pem.split((folder / AUTHORITY_FILE).read_bytes(), AUTHORITY_FILE).certificates
    make_trust(folder, now, authorities=sorted(certificates, key=lambda one: _key_id(one) != rotation.next))
    rotation = msgspec.structs.replace(rotation, has_switched=True)
    _write(folder, rotation)
    (folder / NEXT_KEY_FILE).unlink(missing_ok=True)
    logger.info("data folder %s: authority %s issues from now on", folder, rotation.next)
    return rotation


def _finish(folder: Path, rotation: Rotation, now: dt.datetime) -> None:
    certificates = pem.split((folder / AUTHORITY_FILE).read_bytes(), AUTHORITY_FILE).certificates
    make_trust(folder, now, authorities=[one for one in certificates if _key_id(one) != rotation.old])
    (folder / OLD_KEY_FILE).unlink(missing_ok=True)
    (folder / ROTATION_FILE).unlink(missing_ok=True)
    logger.info("data folder %s: authority %s is not trusted any more", folder, rotation.old)


def _write(folder: Path, rotation: Rotation) -> None:
    write_file(folder / ROTATION_FILE, msgspec.json.encode(rotation), private=False)


def _key_id(certificate: x509.Certificate) -> str:
    return node_id_of(certificate.public_key()).hex()  # type: ignore[arg-type]  # P-256, as authority_mesh has checked
