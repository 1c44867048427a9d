"""docs/protocol.md says what the code does: join tokens, requests, what is issued, and the trust list."""

from __future__ import annotations

import datetime as dt
import re

import msgspec
import pytest

from quicbus import limits
from quicbus.identity import Issued, IssueRequest, JoinToken, Revocation, Role, SignatureContext, TrustList
from quicbus.identity.proof import RENEW_GRACE_DAYS
from quicbus.identity.requests import MAX_REQUEST_SIZE
from quicbus.identity.tokens import _Content, _signed_bytes
from tests.wire.test_protocol_document import DOCUMENT, example

TOKEN = JoinToken(
    "0f" * 16, ("a:1",), (b"",), bytes(range(1, 9)), b"\x11" * 32, Role.NODE, "", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
)


def rows(heading: str) -> list[str]:
    """Return the names in the first column of the first table below a heading."""
    section = DOCUMENT.partition(f"\n{heading}\n")[2]
    assert section, heading
    table = section[section.index("\n|") :].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_worked_example_of_a_token_is_what_the_code_signs() -> None:
    assert example("join-signed") == _signed_bytes(TOKEN.mesh, TOKEN.id, b"csr", b"")
    assert example("join-signature") == TOKEN.sign(b"csr")


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("### What is asked for", IssueRequest),
        ("### What is issued", Issued),
        ("### Join tokens", _Content),
        ("## 30. The trust list", TrustList),
    ],
)
def test_each_field_is_described_in_its_place(heading: str, kind: type[msgspec.Struct]) -> None:
    assert rows(heading) == [field.name for field in msgspec.structs.fields(kind)]


def test_each_element_of_a_revocation_is_named() -> None:
    (row,) = re.findall(r"^\| `revoked` \|.*$", DOCUMENT, re.MULTILINE)
    named = [name for name in re.findall(r"`(\w+)`", row) if name in Revocation.__struct_fields__]
    assert list(dict.fromkeys(named)) == list(Revocation.__struct_fields__)
    assert f"at most {limits.MAX_REVOKED_KEYS:,}" in row


def test_contexts_and_limits_are_those_of_the_code() -> None:
    for text in (
        SignatureContext.TRUST.value.decode(),
        "one to four signatures",
        f"at most {MAX_REQUEST_SIZE:,} bytes, with a key on P-256",
        f"until\n{RENEW_GRACE_DAYS} days after it has ended",
        f"1 to {limits.MAX_SEEDS_OF_TOKEN} of `HOST:PORT`",
        f"A list has at most {limits.MAX_TRUST_SIZE:,} bytes",
    ):
        assert text in DOCUMENT, text
    assert limits.MAX_AUTHORITIES == 4
