"""Certificates, proofs and credentials: what strangers show, and files that somebody else has written."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from quicbus.exceptions import CredentialError, InvalidSetting
from quicbus.identity import (
    Authority,
    Credential,
    ProofRefused,
    Verifier,
    check_listener_certificate,
    describe_certificate,
    sign_proof,
)
from quicbus.identity.names import check_name, mesh_of
from quicbus.identity.peer import parse_certificate, peer_of
from tests.fuzz import samples
from tests.fuzz.target import Target, join, parts

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TARGETS", "verifier"]

BINDING = bytes(32)


@cache
def verifier() -> Verifier:
    return Verifier(samples.authority().certificate_pem, samples.authority().mesh)


def certificates(data: bytes) -> None:
    certificate = parse_certificate(data)
    peer = peer_of(certificate)
    assert check_listener_certificate(data, peer.mesh, peer.node_id) == peer


def proofs(data: bytes) -> None:
    """A signature, then a chain: only what the authority has signed is taken."""
    signature, *chain = list(parts(data)) or [b""]
    for kind in ("client", "node"):
        try:
            peer = verifier().verify(chain, signature, BINDING, kind, samples.NOW)
        except ProofRefused:
            continue
        assert peer.name in ("oslo", "alice")
    peer, _ = verifier().verify_chain(chain, samples.NOW)
    assert chain[0] in (samples.node().chain_der[0], samples.client().chain_der[0]) or peer.mesh == verifier().mesh


def credentials(data: bytes) -> None:
    credential = Credential.from_pem(data, now=samples.NOW, allow_expired=True)
    assert Credential.from_pem(credential.to_pem(), now=samples.NOW, allow_expired=True).node_id == credential.node_id


def certificate_files(data: bytes) -> None:
    describe_certificate(data, now=samples.NOW).as_dict()
    Authority.load(data)


def names(data: bytes) -> None:
    text = data.decode(errors="replace")
    try:
        assert check_name(text) == text
    except InvalidSetting:
        pass
    mesh_of(text)


def _proof_seeds() -> Iterable[bytes]:
    for credential, kind in ((samples.client(), "client"), (samples.node(), "node")):
        yield join(sign_proof(credential, BINDING, kind), *credential.chain_der)
    yield join(b"x" * 70, *samples.node().chain_der, *samples.client().chain_der)


def _credential_seeds() -> Iterable[bytes]:
    yield samples.client().to_pem()
    yield samples.node().chain_pem
    yield b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
    yield b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"


def _file_seeds() -> Iterable[bytes]:
    yield from _credential_seeds()
    yield samples.authority().private_key_pem + samples.authority().certificate_pem


TARGETS = (
    Target(
        "certificates",
        certificates,
        lambda: [samples.node().chain_der[0], samples.client().chain_der[0]],
        (ProofRefused,),
    ),
    Target("proofs", proofs, _proof_seeds, (ProofRefused,)),
    Target("credentials", credentials, _credential_seeds, (CredentialError,), max_size=4096),
    Target("certificate_files", certificate_files, _file_seeds, (CredentialError,), max_size=4096),
    Target(
        "names",
        names,
        lambda: [b"alice@site-1", samples.node().server_name.encode()],
        (InvalidSetting,),
        max_size=128,
    ),
)
