"""Cutting PEM text into keys and certificates."""

from __future__ import annotations

import pytest

from quicbus.exceptions import CredentialError
from quicbus.identity import Authority
from quicbus.identity.pem import MAX_PEM_SIZE, split
from tests.identity.certificates import certificate_of


def test_keys_and_certificates_are_found_among_other_text_and_blocks() -> None:
    authority = Authority.create()
    other = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    parts = split(b"notes\n" + authority.certificate_pem + other + authority.private_key_pem, "file")
    assert parts.keys == [authority.private_key_pem]
    assert parts.certificates == [certificate_of(authority.certificate_pem)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\n-----END PRIVATE KEY-----",
        b"-----BEGIN  -----" * 1000,
    ],
)
def test_what_is_no_block_is_skipped(data: bytes) -> None:
    parts = split(data, "file")
    assert (parts.keys, parts.certificates) == ([], [])


def test_an_unreadable_certificate_names_its_source() -> None:
    with pytest.raises(CredentialError, match=r"^file: a certificate in it is unreadable"):
        split(b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----", "file")


def test_a_large_file_is_not_searched() -> None:
    with pytest.raises(CredentialError, match=r"^file: .* too many"):
        split(b"x" * (MAX_PEM_SIZE + 1), "file")
