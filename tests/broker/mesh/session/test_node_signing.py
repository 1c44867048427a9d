"""Signatures as they run in production: what is taken, and what is forged."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest
from msgspec.structs import replace

from quicbus import limits
from quicbus.identity import Authority, Credential, SignatureContext, Verifier, sign
from quicbus.wire.node_frames import InterestEntry, InterestPiece, MemberRecord, Signed
from quicbus_broker.mesh.interest.own_interest import PIECE_SIZE, _parts
from quicbus_broker.mesh.session.node_signing import MAX_PIECE_SIZE, MAX_RECORD_SIZE, NodeSigning
from quicbus_broker.mesh.signing import Expired, Forged, Revoked
from tests.broker.mesh.linked import authority, node_credential
from tests.identity.certificates import impostor_of

encode = msgspec.msgpack.Encoder().encode


class Clock:
    def __init__(self) -> None:
        self.now = dt.datetime.now(dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now


def signing_of(credential: Credential, clock: Clock | None = None, max_known: int = 100) -> NodeSigning:
    verifier = Verifier(authority().certificate_pem, authority().mesh)
    return NodeSigning(lambda: credential, verifier, clock or Clock(), max_known=max_known)


def record_of(credential: Credential, name: str | None = None) -> MemberRecord:
    return MemberRecord(
        node=credential.node_id,
        name=name or credential.name,
        boot=1,
        incarnation=1,
        mode="hybrid",
        addresses=("192.0.2.1:4433",),
    )


def sealed(credential: Credential, record: MemberRecord | None = None) -> Signed:
    return signing_of(credential).seal_record(record or record_of(credential))


OSLO = node_credential("oslo")
TOKYO = node_credential("tokyo")
PIECE = InterestPiece(node=OSLO.node_id, boot=1, base=0, version=1, added=(InterestEntry("a/#"),))


def test_a_record_is_opened_by_others_and_carries_the_chain() -> None:
    record = signing_of(TOKYO).open_record(sealed(OSLO))

    assert record == replace(record_of(OSLO), chain=tuple(OSLO.chain_der))


def test_once_a_record_was_opened_its_node_can_be_checked() -> None:
    oslo, tokyo = signing_of(OSLO), signing_of(TOKYO)
    interest, signature = oslo.seal_interest(PIECE), oslo.sign_bundle(b"bundle")
    assert not tokyo.knows(OSLO.node_id)
    assert not tokyo.check_bundle(OSLO.node_id, b"bundle", signature)
    with pytest.raises(Forged, match="no record is known"):
        tokyo.open_interest(interest)

    tokyo.open_record(sealed(OSLO))

    assert tokyo.knows(OSLO.node_id)
    assert tokyo.check_bundle(OSLO.node_id, b"bundle", signature)
    assert tokyo.open_interest(interest) == PIECE


def test_nothing_of_a_revoked_node_is_taken_whatever_was_known_of_it() -> None:
    revoked: list[bytes] = []
    verifier = Verifier(authority().certificate_pem, authority().mesh)
    tokyo = NodeSigning(lambda: TOKYO, verifier, Clock(), is_revoked=revoked.__contains__)
    oslo = signing_of(OSLO)
    tokyo.open_record(sealed(OSLO))
    revoked.append(OSLO.node_id)

    assert not tokyo.knows(OSLO.node_id)
    assert not tokyo.check_bundle(OSLO.node_id, b"bundle", oslo.sign_bundle(b"bundle"))
    with pytest.raises(Forged, match="no record is known"):
        tokyo.open_interest(oslo.seal_interest(PIECE))
    with pytest.raises(Revoked, match="key is revoked"):
        tokyo.open_record(sealed(OSLO))


@pytest.mark.parametrize("signature", [b"", b"x" * 70, b"x" * 81])
def test_a_bundle_with_another_signature_is_forged(signature: bytes) -> None:
    tokyo = signing_of(TOKYO)
    tokyo.open_record(sealed(OSLO))

    assert not tokyo.check_bundle(OSLO.node_id, b"bundle", signature)


def test_altered_bytes_and_another_origin_are_forged() -> None:
    tokyo, signature = signing_of(TOKYO), signing_of(OSLO).sign_bundle(b"bundle")
    for credential in (OSLO, node_credential("lima")):
        tokyo.open_record(sealed(credential))

    assert not tokyo.check_bundle(OSLO.node_id, b"bundl3", signature)
    assert not tokyo.check_bundle(node_credential("lima").node_id, b"bundle", signature)


@pytest.mark.parametrize("context", [SignatureContext.INTEREST, SignatureContext.BUNDLE])
def test_a_signature_of_one_kind_is_of_no_use_for_another(context: SignatureContext) -> None:
    payload = sealed(OSLO).payload

    with pytest.raises(Forged, match="not signed by it"):
        signing_of(TOKYO).open_record(Signed(payload, sign(OSLO, context, payload)))


def test_a_record_cannot_be_altered() -> None:
    signed = sealed(OSLO)
    altered = encode(replace(msgspec.msgpack.decode(signed.payload, type=MemberRecord), incarnation=9))

    with pytest.raises(Forged, match="not signed by it"):
        signing_of(TOKYO).open_record(Signed(altered, signed.signature))


def forged_record(credential: Credential, record: MemberRecord) -> Signed:
    payload = encode(replace(record, chain=tuple(credential.chain_der)))
    return Signed(payload, sign(credential, SignatureContext.RECORD, payload))


@pytest.mark.parametrize(
    ("credential", "record", "why"),
    [
        (OSLO, record_of(TOKYO), "with the certificate of node"),
        (OSLO, record_of(OSLO, "lima"), "calls itself 'lima', its certificate 'oslo'"),
        (authority().issue_client("alice"), None, "certificate of client alice"),
        (Authority.create().issue_node("oslo"), None, "of mesh"),
        (impostor_of(authority()).issue_node("oslo"), None, "not signed by the authority"),
    ],
)
def test_a_record_that_its_certificate_does_not_bear_out_is_forged(
    credential: Credential, record: MemberRecord | None, why: str
) -> None:
    with pytest.raises(Forged, match=why):
        signing_of(TOKYO).open_record(forged_record(credential, record or record_of(credential)))


@pytest.mark.parametrize("payload", [b"", b"\xc1", encode({"node": b"short"}), b"\x91" * 2000])
def test_what_cannot_be_read_is_forged(payload: bytes) -> None:
    tokyo = signing_of(TOKYO)

    with pytest.raises(Forged, match="unreadable"):
        tokyo.open_record(Signed(payload, b""))
    with pytest.raises(Forged, match="unreadable"):
        tokyo.open_interest(Signed(payload, b""))


def test_what_others_could_not_pass_on_is_forged() -> None:
    """Unknown fields are passed on too: a record that just fits a frame would fit no other."""
    tokyo = signing_of(TOKYO)
    padded = encode({**msgspec.to_builtins(record_of(OSLO)), "node": OSLO.node_id, "padding": bytes(MAX_RECORD_SIZE)})
    piece = encode(replace(PIECE, added=(InterestEntry("a" * MAX_PIECE_SIZE),)))

    with pytest.raises(Forged, match=f"at most {MAX_RECORD_SIZE} may be"):
        tokyo.open_record(Signed(padded, sign(OSLO, SignatureContext.RECORD, padded)))
    tokyo.open_record(sealed(OSLO))
    with pytest.raises(Forged, match=f"at most {MAX_PIECE_SIZE} may be"):
        tokyo.open_interest(Signed(piece, sign(OSLO, SignatureContext.INTEREST, piece)))


def test_the_largest_honest_piece_of_interest_is_taken() -> None:
    largest = InterestEntry("f" * limits.MAX_TOPIC_SIZE, "g" * limits.MAX_TOPIC_SIZE, True)
    small = tuple(InterestEntry(f"{number:06}") for number in range(PIECE_SIZE // 14))
    parts = _parts((), (*small, largest))
    tokyo = signing_of(TOKYO)
    tokyo.open_record(sealed(OSLO))

    for _, added in parts:
        tokyo.open_interest(signing_of(OSLO).seal_interest(replace(PIECE, added=tuple(added))))
    assert len(parts) == 1, "the largest entry comes on top of a piece that is almost full"


def test_a_record_without_a_chain_is_forged() -> None:
    payload = encode(record_of(OSLO))

    with pytest.raises(Forged, match="a chain has 1 to 4 certificates, not 0"):
        signing_of(TOKYO).open_record(Signed(payload, sign(OSLO, SignatureContext.RECORD, payload)))


def test_an_expired_certificate_ends_its_records() -> None:
    clock = Clock()
    tokyo = signing_of(TOKYO, clock)
    signed = sealed(OSLO)
    tokyo.open_record(signed)

    clock.now = OSLO.not_after + dt.timedelta(seconds=1)

    for signing in (tokyo, signing_of(TOKYO, clock)):
        with pytest.raises(Expired, match="expired"):
            signing.open_record(signed)


def test_a_renewed_certificate_of_the_same_key_replaces_the_old_one() -> None:
    clock = Clock()
    tokyo = signing_of(TOKYO, clock)
    tokyo.open_record(sealed(OSLO))
    renewed = authority().issue_node("oslo", key=OSLO.private_key, days=3000)
    clock.now = OSLO.not_after + dt.timedelta(seconds=1)

    tokyo.open_record(sealed(renewed, record_of(OSLO)))

    assert tokyo.check_bundle(OSLO.node_id, b"b", signing_of(OSLO).sign_bundle(b"b"))


def test_keys_are_bounded_and_that_of_the_oldest_record_goes() -> None:
    tokyo = signing_of(TOKYO, max_known=2)
    names = ("oslo", "lima", "oslo", "cairo")
    for name in names:
        tokyo.open_record(sealed(node_credential(name)))

    assert [tokyo.knows(node_credential(name).node_id) for name in ("oslo", "lima", "cairo")] == [True, False, True]
