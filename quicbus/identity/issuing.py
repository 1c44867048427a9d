"""Answering requests for certificates, where the authority's key is: from holders of join tokens, and renewals.

`IssueRequest` and `Issued` are what travels, from the one who asks to a node and from there to the one with the key.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Self

import msgspec
from cryptography import x509

from quicbus import limits
from quicbus.exceptions import CredentialError, DataFolderError, InvalidSetting, ProtocolViolation
from quicbus.identity import pem
from quicbus.identity.credential import CLOCK_SKEW
from quicbus.identity.folder_files import one_error
from quicbus.identity.folder_trust import read_trust
from quicbus.identity.issued_log import IssuedLog
from quicbus.identity.keys import node_id_of
from quicbus.identity.names import Role
from quicbus.identity.peer import MAX_CHAIN_LENGTH, ProofRefused
from quicbus.identity.proof import Verifier
from quicbus.identity.requests import MAX_REQUEST_SIZE, request_key
from quicbus.identity.token_store import TokenStore
from quicbus.identity.tokens import TOKEN_ID_SIZE, TOKEN_SIGNATURE_SIZE
from quicbus.wire.close_codes import CloseCode

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    from quicbus.identity.authority import Authority

__all__ = ["MAX_ISSUED_SIZE", "MAX_ISSUE_REQUEST_SIZE", "IssueRequest", "Issued", "Issuer"]

MAX_ISSUE_REQUEST_SIZE = 32 * 1024
"""A chain of four certificates of 4 KiB, two requests, and room. One of quicbus has less than 2 KiB."""
MAX_ISSUED_SIZE = limits.MAX_TRUST_SIZE + 32 * 1024
_encoder = msgspec.msgpack.Encoder()

_Der = Annotated[bytes, msgspec.Meta(max_length=pem.MAX_DER_SIZE)]
_Chain = Annotated[tuple[_Der, ...], msgspec.Meta(max_length=MAX_CHAIN_LENGTH)]
_Csr = Annotated[bytes, msgspec.Meta(max_length=MAX_REQUEST_SIZE)]


class IssueRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Either `token_id` and `signature`, to join, or `chain`, to renew."""

    csr: _Csr
    token_id: Annotated[bytes, msgspec.Meta(max_length=TOKEN_ID_SIZE)] = b""
    signature: Annotated[bytes, msgspec.Meta(max_length=TOKEN_SIGNATURE_SIZE)] = b""
    """Of the token, over `csr` and `local_csr`."""
    chain: _Chain = ()
    """In DER, the own certificate first; it is for the key of `csr`."""
    local_csr: _Csr = b""
    """A node that joins may ask for the credential of its local applications, too: a client of the node's name."""

    def encode(self) -> bytes:
        return _encoder.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises `ProtocolViolation`."""
        return _decode(_request_decoder, data, MAX_ISSUE_REQUEST_SIZE, "signing request")  # type: ignore[return-value]


class Issued(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the authority has signed, all in DER."""

    chain: Annotated[_Chain, msgspec.Meta(min_length=1)]
    authorities: Annotated[tuple[_Der, ...], msgspec.Meta(min_length=1, max_length=limits.MAX_AUTHORITIES)]
    """What the mesh trusts now, the issuing one first: to be shown. What proves them is `trust`."""
    trust: Annotated[bytes, msgspec.Meta(max_length=limits.MAX_TRUST_SIZE)] = b""
    """The trust list, signed, for `TrustStore.take`; empty in a mesh that has none yet."""
    local_chain: _Chain = ()
    """For the key of `local_csr`, where there was one."""

    def encode(self) -> bytes:
        return _encoder.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises `ProtocolViolation`."""
        return _decode(_issued_decoder, data, MAX_ISSUED_SIZE, "answer to a signing request")  # type: ignore[return-value]


_request_decoder = msgspec.msgpack.Decoder(IssueRequest)
_issued_decoder = msgspec.msgpack.Decoder(Issued)


def _decode(
    decoder: msgspec.msgpack.Decoder[IssueRequest] | msgspec.msgpack.Decoder[Issued],
    data: bytes,
    size_max: int,
    what: str,
) -> object:
    if len(data) > size_max:
        raise ProtocolViolation(f"{what}: {len(data)} bytes, at most {size_max} may be")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolViolation(f"{what}: {error}") from None


class Issuer:
    """The authority of a data folder at work. Costs nothing to make; make another one when the authority changes.

    It reads and writes files: call it in a thread.
    """

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self.authority = authority

    def answer(self, request: IssueRequest, now: dt.datetime) -> Issued:
        """Issue what is asked for; raises `ProofRefused` with what to tell the one who asked.

        Name and role come from the token, or from the certificate that is renewed, never from the request. The answer
        to a repeated request is a further certificate for the same key and name.
        Raises `DataFolderError` where a file of the folder fails: that is for the operator here.
        """
        try:
            with one_error(self.folder):
                trust = read_trust(self.folder, self.authority.mesh, self.authority.authorities_pem)
            key = _key(request.csr)
            if trust.revocation(node_id_of(key)) is not None:
                raise ProofRefused(
                    CloseCode.CREDENTIAL_REVOKED, "the key of this request was revoked; make a request with a new key"
                )
            if request.chain:
                verifier = Verifier(trust.authorities_pem, self.authority.mesh, trust.revocation)
                leaves = self._renew(request, key, verifier, now)
            else:
                leaves = self._redeem(request, key, now)
        except InvalidSetting as error:
            # The token's name and days were checked when it was made: a newer quicbus may allow less.
            raise ProofRefused(CloseCode.TOKEN_REFUSED, f"the join token is not good any more: {error}") from None
        IssuedLog(self.folder).add(self.authority, *leaves, now=now)
        return Issued(
            chain=(leaves[0],),
            authorities=trust.authorities_der,
            trust=trust.raw,
            local_chain=tuple(leaves[1:]),
        )

    def _renew(
        self, request: IssueRequest, key: ec.EllipticCurvePublicKey, verifier: Verifier, now: dt.datetime
    ) -> list[bytes]:
        peer, certified = verifier.verify_renewal(request.chain, now)
        if certified != key:
            raise ProofRefused(
                CloseCode.CREDENTIAL_INVALID,
                "the signing request has another key than the certificate; a renewal keeps the key, a new key needs "
                "a token of `quicbus token create`",
            )
        return [self._certify(peer.role, peer.name, key, _life_days(request.chain[0]), now)]

    def _redeem(self, request: IssueRequest, key: ec.EllipticCurvePublicKey, now: dt.datetime) -> list[bytes]:
        if len(request.token_id) != TOKEN_ID_SIZE or len(request.signature) != TOKEN_SIGNATURE_SIZE:
            raise ProofRefused(
                CloseCode.TOKEN_REFUSED,
                "neither a join token nor a certificate to renew; get a token with `quicbus token create`",
            )
        local_key = _key(request.local_csr) if request.local_csr else None
        token, name = TokenStore(self.folder).redeem(
            request.token_id,
            request.csr,
            request.signature,
            now,
            mesh=self.authority.mesh,
            local_csr=request.local_csr,
        )
        leaves = [self._certify(token.role, name, key, token.days, now)]
        if local_key is not None and token.role is Role.NODE:
            leaves.append(self._certify(Role.CLIENT, name, local_key, token.days, now))
        return leaves

    def _certify(self, role: Role, name: str, key: ec.EllipticCurvePublicKey, days: float, now: dt.datetime) -> bytes:
        try:
            return self.authority.certify(role, name, key, days=days, now=now)
        except CredentialError as error:
            raise DataFolderError(str(self.folder), error.why) from None


def _key(csr: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return request_key(csr)
    except CredentialError as error:
        raise ProofRefused(CloseCode.CREDENTIAL_INVALID, error.why) from None


def _life_days(certificate_der: bytes) -> float:
    certificate = x509.load_der_x509_certificate(certificate_der)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc - CLOCK_SKEW
    return max(life / dt.timedelta(days=1), 1e-6)
