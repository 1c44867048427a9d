"""Revoking: which keys a name, a file or a key id stands for, and until when each has to be remembered."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

from quicbus.exceptions import CredentialError
from quicbus.identity import pem
from quicbus.identity.issued_log import IssuedLog
from quicbus.identity.peer import ProofRefused, peer_of
from quicbus.identity.proof import RENEW_GRACE_DAYS
from quicbus.identity.trust import Revocation

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.identity.authority import Authority
    from quicbus.identity.issued_log import IssuedCertificate

__all__ = ["keys_of_file", "keys_of_name"]

_GRACE = dt.timedelta(days=RENEW_GRACE_DAYS)


def keys_of_name(folder: Path, authority: Authority, which: str, now: dt.datetime) -> list[Revocation]:
    """Return how to revoke a name, `node/NAME`, `client/NAME` or a key id: all its keys that are valid or renewable.

    A name alone stands for the node and for the clients that have it: a node's local credential has the name of the
    node, and who has stolen the one has the other.
    Raises `CredentialError` where that is nobody, `DataFolderError`.
    """
    stamp = int(now.timestamp())
    found = IssuedLog(folder).find(which)
    live = [one for one in found if one.renewable_until > stamp]
    if not live:
        if re.fullmatch(r"[0-9a-fA-F]{32}", which) and not found:
            # Issued by somebody else with this authority's key, or before the log was kept.
            until = authority.not_after + _GRACE
            return [Revocation(bytes.fromhex(which), "", "", stamp, int(until.timestamp()))]
        why = "expired for good already" if found else "not in the log of certificates; `quicbus cert list` shows it"
        raise CredentialError(f"{which}: {why}; name a certificate file instead if you have one")
    return list(_by_key(live, stamp).values())


def keys_of_file(folder: Path, data: bytes, source: str, mesh: str, now: dt.datetime) -> list[Revocation]:
    """Return how to revoke the holder of a certificate or credential file.

    Raises `CredentialError` for the file, `DataFolderError`.
    """
    certificate = next((one for one in pem.split(data, source).certificates if one.issuer != one.subject), None)
    if certificate is None:
        raise CredentialError(f"{source}: no certificate of a node or client in it")
    try:
        peer = peer_of(certificate)
    except ProofRefused as error:
        raise CredentialError(f"{source}: {error.why}") from None
    if peer.mesh != mesh:
        raise CredentialError(f"{source}: it is of mesh {peer.mesh}, this authority of mesh {mesh}")
    until = int((peer.not_after + _GRACE).timestamp())
    renewed = (one.renewable_until for one in IssuedLog(folder).find(peer.node_id.hex()))
    return [Revocation(peer.node_id, str(peer.role), peer.name, int(now.timestamp()), max([until, *renewed]))]


def _by_key(entries: list[IssuedCertificate], stamp: int) -> dict[str, Revocation]:
    found: dict[str, Revocation] = {}
    for one in entries:
        until = one.renewable_until
        if one.key_id in found:
            until = max(until, found[one.key_id].until)
        found[one.key_id] = Revocation(bytes.fromhex(one.key_id), str(one.role), one.name, stamp, until)
    return found
