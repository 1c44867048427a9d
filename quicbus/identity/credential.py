"""A credential: a private key, the certificate for it, and the authority that signed it; one PEM file."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self
from weakref import WeakValueDictionary

from cryptography.hazmat.primitives.serialization import Encoding

from quicbus.exceptions import CredentialError
from quicbus.identity import pem
from quicbus.identity.files import advice, write_file
from quicbus.identity.keys import key_from_pem, key_to_pem, node_id_of
from quicbus.identity.names import Role, identity_of, server_name_of
from quicbus.identity.peer import ISSUE_CLIENT, ISSUE_NODE

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["CLOCK_SKEW", "RENEW_FRACTION", "Credential"]

CLOCK_SKEW = dt.timedelta(minutes=5)
"""Certificates begin this much before they are issued, so that a peer whose clock is behind takes them at once."""
RENEW_FRACTION = 3
"""Certificates are renewed in the last third of their life: ten days of thirty, in which the authority may be away."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Credential:
    """Made by `Authority.issue_*`, `load` and `from_files`; what it holds fits together."""

    role: Role
    name: str
    mesh: str
    node_id: bytes
    """Of the key's holder, also for clients."""
    not_before: dt.datetime
    not_after: dt.datetime
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)
    private_key_pem: bytes = field(repr=False)
    chain_pem: bytes = field(repr=False)
    """The own certificate first; without the authority's."""
    chain_der: list[bytes] = field(repr=False)
    authority_pem: bytes = field(repr=False)

    @property
    def server_name(self) -> str:
        """What dialers ask TLS for, whatever host they dial."""
        return server_name_of(self.mesh)

    @property
    def renew_at(self) -> dt.datetime:
        """When to ask for a new certificate: at the beginning of the last third of its life."""
        return self.not_after - (self.not_after - self.not_before) / RENEW_FRACTION

    @property
    def life_days(self) -> float:
        """What it was issued for, and is renewed for."""
        return (self.not_after - self.not_before - CLOCK_SKEW) / dt.timedelta(days=1)

    @classmethod
    def from_issued(
        cls,
        key: ec.EllipticCurvePrivateKey,
        chain_der: Sequence[bytes],
        authorities: Sequence[x509.Certificate],
        source: str = "the answer to the signing request",
    ) -> Self:
        """Join what was issued for `key` with the authorities that are trusted, of which one must have signed it.

        Raises `CredentialError`. Authorities that came with the answer prove nothing: whoever passed it on may have
        added his own. Those of a token or credential do, and what a `TrustStore` made of them.
        """
        return cls.from_parts(key, [pem.certificate_from_der(der, source) for der in chain_der], authorities, source)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        role: Role | None = None,
        now: dt.datetime | None = None,
        allow_expired: bool = False,
    ) -> Self:
        """Read a credential file; raises `CredentialError` with the remedy.

        `role`: refuse others. `now` decides about expiry and is the clock's unless given.
        """
        data = _read(path, "credential")
        return cls.from_pem(data, source=f"credential {path}", role=role, now=now, allow_expired=allow_expired)

    @classmethod
    def from_files(
        cls,
        certificate: str | os.PathLike[str],
        private_key: str | os.PathLike[str],
        authority: str | os.PathLike[str],
        *,
        role: Role | None = None,
        now: dt.datetime | None = None,
        allow_expired: bool = False,
    ) -> Self:
        """Read the three parts from the files that the settings of these names give; raises `CredentialError`."""
        names = (("certificate", certificate), ("private_key", private_key), ("authority", authority))
        parts = {setting: pem.split(_read(path, setting), f"{setting} {path}") for setting, path in names}
        for setting, path in names:
            wanted = "keys" if setting == "private_key" else "certificates"
            if not getattr(parts[setting], wanted):
                raise CredentialError(f"{setting} {path}: no {setting.replace('_', ' ')} in this file")
        chain, anchors = parts["certificate"].certificates, parts["authority"].certificates
        source = f"certificate {certificate}"
        key = key_from_pem(parts["private_key"].keys[0], f"private_key {private_key}")
        credential = cls.from_parts(key, [one for one in chain if one not in anchors], anchors, source)
        credential.check(source, role=role, now=now, allow_expired=allow_expired)
        return credential

    @classmethod
    def from_pem(
        cls,
        data: bytes,
        *,
        source: str = "the credential",
        role: Role | None = None,
        now: dt.datetime | None = None,
        allow_expired: bool = False,
    ) -> Self:
        """Like `load`, from the bytes of a file; errors begin with `source`.

        The same bytes give the same object, as long as somebody has it: clients look at their file again and again, and
        the many clients of one process mostly have one.
        """
        digest = hashlib.sha256(data).digest()
        credential = _in_use.get((cls, digest))
        if credential is None:
            _in_use[cls, digest] = credential = cls._parse(data, source)
        assert isinstance(credential, cls)
        credential.check(source, role=role, now=now, allow_expired=allow_expired)
        return credential

    @classmethod
    def _parse(cls, data: bytes, source: str) -> Self:
        parts = pem.split(data, source)
        if not parts.keys and not parts.certificates:
            raise CredentialError(f"{source}: neither a key nor a certificate in it; write one with {ISSUE_CLIENT}")
        if len(parts.keys) != 1:
            found = "no private key" if not parts.keys else f"{len(parts.keys)} private keys"
            raise CredentialError(f"{source}: {found} in it where one belongs; write a new one with {ISSUE_CLIENT}")
        key = key_from_pem(parts.keys[0], source)
        anchors = [one for one in parts.certificates if one.issuer == one.subject]
        chain = [one for one in parts.certificates if one.issuer != one.subject]
        return cls.from_parts(key, chain, anchors, source)

    @classmethod
    def from_parts(
        cls,
        key: ec.EllipticCurvePrivateKey,
        chain: Sequence[x509.Certificate],
        authorities: Sequence[x509.Certificate],
        source: str = "the credential",
    ) -> Self:
        """Join the parts; raises `CredentialError` where they do not fit together. Validity in time is not checked."""
        if not chain:
            raise CredentialError(f"{source}: no certificate in it; write a new one with {ISSUE_CLIENT}")
        if not authorities:
            raise CredentialError(
                f"{source}: the authority's certificate is missing; write a new one with {ISSUE_CLIENT}"
            )
        public_key = key.public_key()
        own = next((one for one in chain if one.public_key() == public_key), None)
        if own is None:
            raise CredentialError(
                f"{source}: the private key does not fit the certificate; write a new one with {ISSUE_CLIENT}"
            )
        identity = identity_of(own)
        if identity is None:
            raise CredentialError(
                f"{source}: the certificate names no quicbus node or client; write one with {ISSUE_CLIENT}"
            )
        ordered = [own, *(one for one in chain if one is not own)]
        if not _leads_to(ordered, authorities):
            raise CredentialError(
                f"{source}: the certificate is not signed by the authority beside it; "
                f"write a new one with {ISSUE_CLIENT}"
            )
        return cls(
            role=identity.role,
            name=identity.name,
            mesh=identity.mesh,
            node_id=node_id_of(public_key),
            not_before=own.not_valid_before_utc,
            not_after=own.not_valid_after_utc,
            private_key=key,
            private_key_pem=key_to_pem(key),
            chain_pem=b"".join(one.public_bytes(Encoding.PEM) for one in ordered),
            chain_der=[one.public_bytes(Encoding.DER) for one in ordered],
            authority_pem=b"".join(one.public_bytes(Encoding.PEM) for one in authorities),
        )

    def check(
        self,
        source: str = "the credential",
        *,
        role: Role | None = None,
        now: dt.datetime | None = None,
        allow_expired: bool = False,
    ) -> None:
        """Raise `CredentialError` where it is of another role or not valid now."""
        now = now or dt.datetime.now(dt.UTC)
        issue = ISSUE_NODE if (role or self.role) is Role.NODE else ISSUE_CLIENT
        if role is not None and self.role is not role:
            raise CredentialError(
                f"{source}: this is the credential of {self.role} {self.name}, a {role} credential is wanted; "
                f"write one with {issue}"
            )
        if now > self.not_after and not allow_expired:
            raise CredentialError(
                f"{source}: the certificate of {self.role} {self.name} expired on {self.not_after:%Y-%m-%d %H:%M} UTC; "
                f"write a new one with {issue}"
            )
        if now < self.not_before:
            raise CredentialError(
                f"{source}: the certificate of {self.role} {self.name} is valid only from "
                f"{self.not_before:%Y-%m-%d %H:%M} UTC and it is {now:%Y-%m-%d %H:%M} UTC here; "
                "set this machine's clock"
            )

    def to_pem(self) -> bytes:
        """Return the file's content: key, certificate, authority. It is a secret."""
        return self.private_key_pem + self.chain_pem + self.authority_pem

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole or not at all, readable by its owner only; raises `CredentialError`."""
        try:
            write_file(Path(path), self.to_pem(), private=True)
        except OSError as error:
            why = f"{error.strerror or error}{advice(error)}"
            raise CredentialError(f"credential {path}: can't be written: {why}") from error


_in_use: WeakValueDictionary[tuple[type[Credential], bytes], Credential] = WeakValueDictionary()


def _read(path: str | os.PathLike[str], what: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(pem.MAX_PEM_SIZE + 1)
    except FileNotFoundError:
        raise CredentialError(f"{what} {path}: no such file; write a credential with {ISSUE_CLIENT}") from None
    except OSError as error:
        raise CredentialError(f"{what} {path}: can't be read: {error.strerror or error}") from None


def _leads_to(chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]) -> bool:
    current: x509.Certificate | None = chain[0]
    for _ in chain:
        if current is None:
            break
        if any(_is_issued_by(current, authority) for authority in authorities):
            return True
        current = next((one for one in chain[1:] if one is not current and _is_issued_by(current, one)), None)
    return False


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # ValueError, TypeError, InvalidSignature: whatever it is, it is not issued by this one
        return False
    return True
