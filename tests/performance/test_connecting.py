"""What one more connection costs at both ends, in signatures, certificates and files: times would be the machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import quicbus
from tests.client.brokers import broker_in_process
from tests.performance.builtin_calls import count_builtin_calls

if TYPE_CHECKING:
    from pathlib import Path

SIGNED = {"sign": 2}
"""The listener's in TLS, and the dialer's proof."""
VERIFIED = {
    # The listener's signature and the proof; aioquic has pyOpenSSL verify the listener's chain.
    "aioquic": {"verify": 2, "X509_verify_cert": 1},
    # The proof and, in qh3's core, the listener's chain; its signature has another name.
    "qh3": {"verify": 2, "verify_with_public_key": 1},
}
PARSED = {"aioquic": {"load_der_x509_certificate": 1, "load_pem_x509_certificate": 1}, "qh3": {}}
"""Of the listener's and its authority's, by aioquic itself."""
COUNTED = {
    "sign",
    "verify",
    "verify_with_public_key",
    "X509_verify_cert",
    "load_der_x509_certificate",
    "load_pem_x509_certificate",
    "load_pem_x509_certificates",
    "load_pem_private_key",
}


@pytest.mark.parametrize("engine", ["aioquic", "qh3"])
async def test_a_further_connection_verifies_three_signatures_and_parses_nothing_again(
    tmp_path: Path, engine: str
) -> None:
    credential = tmp_path / "credential.pem"
    async with (
        broker_in_process(tmp_path, engine) as broker,
        quicbus.connect(broker.url, credentials=credential, engine=engine),
    ):
        with count_builtin_calls() as calls:
            async with quicbus.connect(broker.url, credentials=credential, engine=engine):
                pass
    counted = {name: count for name, count in calls.items() if name in COUNTED}
    assert counted == {**SIGNED, **VERIFIED[engine], **PARSED[engine]}
    assert calls["read"] <= 1, "of the credential's file"
