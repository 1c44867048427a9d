"""Checks of certificates on this machine: whose, of which mesh, until when, and whether key and authority fit."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, NamedTuple, Self

from quicbus.exceptions import CredentialError
from quicbus.identity import Credential, Role, pem
from quicbus.identity.folder_files import AUTHORITY_FILE, NODE_FILE, NODE_KEY_FILE
from quicbus.identity.folder_trust import read_trust
from quicbus.identity.keys import key_from_pem
from quicbus.identity.peer import ISSUE_CLIENT, ISSUE_NODE
from quicbus.identity.proof import RENEW_GRACE_DAYS
from quicbus_cli.doctor.finding import Finding, failure, ok, split_remedy, warning
from quicbus_cli.doctor.folder import check_secret, describe_duration

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.identity.trust import TrustStore

__all__ = [
    "NodeFiles",
    "check_mesh",
    "check_period",
    "check_role",
    "check_trust",
    "look_at_credential",
    "look_at_node",
    "read_credential",
    "read_node",
]

AUTHORITY_SOON_DAYS = 180
"""Time to see it, and for an authority to be followed by another: that takes two lives of a certificate."""
_ANY_TIME = dt.datetime.max.replace(tzinfo=dt.UTC)
"""Read with it, a certificate is neither too early nor, as expired ones are allowed, too late."""


class NodeFiles(NamedTuple):
    """Where the identity of a node is; PEM."""

    certificate: Path
    private_key: Path
    authority: Path

    @classmethod
    def of(cls, folder: Path) -> Self:
        return cls(folder / NODE_FILE, folder / NODE_KEY_FILE, folder / AUTHORITY_FILE)


def look_at_node(
    folder: Path, now: dt.datetime, files: NodeFiles | None = None
) -> tuple[TrustStore | None, list[Finding]]:
    """Return what the node on this machine trusts, and what is to be said about its certificate.

    `files`: those that the settings name in place of the data folder's.
    """
    try:
        node = read_node(files or NodeFiles.of(folder))
    except CredentialError as error:
        return None, [failure("node certificate", *split_remedy(str(error)))]
    findings = [check_role("node", node, Role.NODE), check_period("node certificate", node, now)]
    try:
        trust = read_trust(folder, node.mesh, node.authority_pem)
    except (CredentialError, OSError) as error:
        return None, [*findings, failure("trust list", *split_remedy(str(error)))]
    return trust, [*findings, check_trust("trust list", node, trust, now)]


def look_at_credential(
    path: Path, now: dt.datetime, trust: TrustStore | None
) -> tuple[Credential | None, list[Finding]]:
    """Return the client credential where it may be used, and what is to be said about it.

    `trust`: of the node on this machine, where there is one.
    """
    try:
        credential = read_credential(path)
    except CredentialError as error:
        return None, [failure("credential", *split_remedy(str(error)))]
    findings = [
        check_secret("credential file", path),
        check_role("credential", credential, Role.CLIENT),
        check_period("credential period", credential, now),
    ]
    if trust is not None:
        findings.append(check_mesh(credential, trust.mesh, path))
        if credential.mesh == trust.mesh:
            findings.append(check_trust("credential trusted", credential, trust, now))
    is_usable = credential.role is Role.CLIENT and credential.not_before <= now <= credential.not_after
    return (credential if is_usable else None), findings


def read_credential(path: Path) -> Credential:
    """Read a credential file of any role and period; raises `CredentialError` that names the remedy."""
    try:
        with path.open("rb") as file:
            data = file.read(pem.MAX_PEM_SIZE + 1)
    except FileNotFoundError:
        raise CredentialError(
            f"{path} does not exist; `quicbus broker` on this machine makes it, for a broker elsewhere have one "
            f"written there with {ISSUE_CLIENT} and name it with --credentials or QUICBUS_CREDENTIALS"
        ) from None
    except OSError as error:
        raise CredentialError(
            f"{path} can't be read: {error.strerror or error}; make it yours, or name another with --credentials"
        ) from None
    return Credential.from_pem(data, source=str(path), now=_ANY_TIME, allow_expired=True)


def read_node(files: NodeFiles) -> Credential:
    """Read a node's certificate, key and authority, whatever its period; raises `CredentialError`."""
    chain, keys, anchors = (_parts(path) for path in files)
    if not keys.keys:
        raise CredentialError(f"{files.private_key}: no private key in it; put it back")
    key = key_from_pem(keys.keys[0], str(files.private_key))
    own = [one for one in chain.certificates if one not in anchors.certificates]
    return Credential.from_parts(key, own, anchors.certificates, str(files.certificate))


def _parts(path: Path) -> pem.Parts:
    try:
        return pem.split(path.read_bytes(), str(path))
    except OSError as error:
        raise CredentialError(
            f"{path} can't be read: {error.strerror or error}; run as the user of the broker, or put it back"
        ) from None


def check_role(check: str, credential: Credential, wanted: Role) -> Finding:
    who = f"{credential.role} {credential.name} of mesh {credential.mesh}"
    if credential.role is wanted:
        return ok(check, f"{who}; key, certificate and authority fit")
    issue = ISSUE_CLIENT if wanted is Role.CLIENT else ISSUE_NODE
    return failure(check, f"this is the credential of {who}, that of a {wanted} is wanted", f"write one with {issue}")


def check_mesh(credential: Credential, mesh: str, path: Path) -> Finding:
    if credential.mesh == mesh:
        return ok("credential mesh", "that of the broker on this machine")
    return failure(
        "credential mesh",
        f"{path} is of mesh {credential.mesh}, the broker on this machine of mesh {mesh}",
        f"have one written by the authority of that mesh: {ISSUE_CLIENT}",
    )


def check_period(check: str, credential: Credential, now: dt.datetime) -> Finding:
    """Judge by this machine's clock."""
    who = f"the certificate of {credential.role} {credential.name}"
    begin, end = credential.not_before, credential.not_after
    issue = ISSUE_NODE if credential.role is Role.NODE else ISSUE_CLIENT
    if now < begin:
        return failure(
            check, f"{who} is valid only from {begin:%Y-%m-%d %H:%M} UTC", "set this machine's clock, which is behind"
        )
    if now > end:
        ago = describe_duration((now - end).total_seconds())
        seen = f"{who} expired on {end:%Y-%m-%d %H:%M} UTC, {ago} ago"
        if now <= end + dt.timedelta(days=RENEW_GRACE_DAYS):
            remedy = f"renewed by itself once its mesh is reached, until {RENEW_GRACE_DAYS} days after that; or {issue}"
            return failure(check, seen, remedy)
        return failure(check, seen, f"too long ago to renew it: write a new one with {issue}, or join with a token")
    seen = f"valid until {end:%Y-%m-%d %H:%M} UTC, {describe_duration((end - now).total_seconds())} from now"
    # From `renew_at` on it is asked for again and again; half of the time that there is for it has passed in vain.
    if now > credential.renew_at + (end - credential.renew_at) / 2:
        remedy = f"see why in the broker's or client's log: is the authority reachable? Else {issue} before that"
        return warning(check, f"{seen}, and not renewed since {credential.renew_at:%Y-%m-%d}", remedy)
    return ok(check, seen)


def check_trust(check: str, credential: Credential, trust: TrustStore, now: dt.datetime) -> Finding:
    """Judge by the list of authorities and revoked keys that the node on this machine has."""
    revocation = trust.revocation(credential.node_id)
    if revocation is not None:
        return failure(
            check,
            f"the key of {credential.role} {credential.name} was revoked on {revocation.time:%Y-%m-%d %H:%M} UTC",
            "join again with a token of the mesh, or have a credential with another key issued",
        )
    ends = max(one.not_valid_after_utc for one in trust.authorities)
    if now > ends:
        return failure(check, f"the authority itself expired on {ends:%Y-%m-%d}", "make another: `quicbus cert rotate`")
    seen = f"version {trust.version}, {len(trust.revoked)} keys revoked, authority until {ends:%Y-%m-%d}"
    if now > ends - dt.timedelta(days=AUTHORITY_SOON_DAYS):
        return warning(check, seen, "let another follow in time: `quicbus cert rotate`")
    return ok(check, f"not revoked; trust list {seen}")
