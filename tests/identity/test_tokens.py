"""Join tokens: the text that people hand on, and the signature that redeems one."""

from __future__ import annotations

import base64
import datetime as dt
import random

import pytest

from quicbus.exceptions import CredentialError
from quicbus.identity import Authority, JoinToken, Role, make_request, server_name_of
from quicbus.identity.keys import generate_key
from quicbus.identity.tokens import is_signed_by_token
from tests.identity.certificates import NOW

HOUR = dt.timedelta(hours=1)
AUTHORITY = Authority.create(now=NOW)


def token(role: Role = Role.NODE, name: str = "osaka", *, authority: Authority = AUTHORITY) -> JoinToken:
    seeds = ["a.example:4433", "[2001:db8::1]:4433"]
    return JoinToken.make(AUTHORITY.mesh, seeds, authority.authorities_der, role, name, NOW + HOUR)


def refusal(text: str, now: dt.datetime = NOW) -> str:
    with pytest.raises(CredentialError) as caught:
        JoinToken.parse(text, now)
    assert "quicbus token create" in caught.value.why or "update quicbus" in caught.value.why
    return caught.value.why


def test_a_token_is_read_back_from_its_text() -> None:
    made = token()
    again = JoinToken.parse(made.text, NOW)
    assert again == made
    assert (again.server_name, again.authorities_pem) == (server_name_of(AUTHORITY.mesh), AUTHORITY.certificate_pem)


def test_a_token_survives_what_mail_and_terminals_do_to_lines() -> None:
    text = token().text
    assert JoinToken.parse(f"  {text[:70]}\r\n  {text[70:140]}\n{text[140:]}\n", NOW) == JoinToken.parse(text, NOW)


def test_no_token_shows_its_secret_when_printed() -> None:
    made = token()
    assert made.secret.hex() not in repr(made)
    assert repr(made.secret) not in repr(made)


def test_two_tokens_share_neither_id_nor_secret() -> None:
    one, other = token(), token()
    assert one.id != other.id
    assert one.secret != other.secret


def test_an_expired_token_says_when_and_what_the_clock_says_here() -> None:
    why = refusal(token().text, NOW + 2 * HOUR)
    assert "expired on 2026-03-01 13:00 UTC" in why
    assert "2026-03-01 14:00 UTC here" in why


@pytest.mark.parametrize("text", ["", "hello", "qbt2-AAAA", "quic://a:4433"])
def test_what_is_no_token_is_said_to_be_none(text: str) -> None:
    assert "this is no join token" in refusal(text)


@pytest.mark.parametrize("kept", [5, 6, 40, -1, -2, -3, -4, -10])
def test_a_token_that_was_cut_off_is_said_to_be(kept: int) -> None:
    assert "cut off or mistyped" in refusal(token().text[:kept])


def test_every_mistyped_character_is_noticed() -> None:
    text, rng = token().text, random.Random(7)
    for _ in range(200):
        at = rng.randrange(5, len(text) - 1)  # the last character has bits that mean nothing
        wrong = rng.choice([each for each in "ABCabc012-_!ü" if each != text[at]])
        assert "cut off or mistyped" in refusal(text[:at] + wrong + text[at + 1 :]), "seed 7"


def packed(content: bytes) -> str:
    from quicbus.identity.tokens import _checksum

    return "qbt1-" + base64.urlsafe_b64encode(content + _checksum(content)).decode().rstrip("=")


@pytest.mark.parametrize("content", [b"\x90", b"\xc0", b"\x98" + b"\xa1x" * 8, b"\xdd\xff\xff\xff\xff", b"\x91" * 2000])
def test_content_of_another_form_asks_for_a_newer_quicbus(content: bytes) -> None:
    assert "update quicbus" in refusal(packed(content))


def test_a_token_whose_authority_is_of_another_mesh_is_refused() -> None:
    assert "of another mesh" in refusal(token(authority=Authority.create(now=NOW)).text)


def test_a_token_without_a_readable_authority_is_refused() -> None:
    made = JoinToken.make(AUTHORITY.mesh, ["a:1"], [b"junk"], Role.NODE, "", NOW + HOUR)
    assert "no readable authority" in refusal(made.text)
    node = AUTHORITY.issue_node("tokyo", now=NOW)
    made = JoinToken.make(AUTHORITY.mesh, ["a:1"], node.chain_der, Role.NODE, "", NOW + HOUR)
    assert "no readable authority" in refusal(made.text)


class TestSignature:
    made = token()
    csr = make_request(generate_key())
    local = make_request(generate_key())

    def is_good(self, signature: bytes, **changes: bytes | str) -> bool:
        facts = {"mesh": self.made.mesh, "token_id": self.made.id, "csr": self.csr, "local_csr": self.local, **changes}
        return is_signed_by_token(self.made.public_key, signature, **facts)  # type: ignore[arg-type]

    def test_it_is_good_for_these_requests_and_no_others(self) -> None:
        signature = self.made.sign(self.csr, self.local)
        assert self.is_good(signature)
        assert not self.is_good(signature, csr=make_request(generate_key()))
        assert not self.is_good(signature, local_csr=b"")
        assert not self.is_good(signature, csr=self.csr + self.local, local_csr=b"")
        assert not self.is_good(signature, token_id=bytes(8))
        assert not self.is_good(signature, mesh="0" * 32)

    def test_another_token_has_not_signed_it(self) -> None:
        assert not self.is_good(token().sign(self.csr, self.local))

    @pytest.mark.parametrize("signature", [b"", bytes(64), bytes(63), b"x" * 1000])
    def test_what_is_no_signature_is_refused(self, signature: bytes) -> None:
        assert not self.is_good(signature)
