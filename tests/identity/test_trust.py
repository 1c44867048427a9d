"""The trust list: what is taken, what is refused, and that nothing of a refused list stays."""

from __future__ import annotations

import random

import msgspec
import pytest

from quicbus import limits
from quicbus.exceptions import CredentialError
from quicbus.identity import Authority, Revocation, SignatureContext, TrustList, TrustStore, mesh_id_of
from quicbus.identity.keys import generate_key
from quicbus.identity.trust import seal_trust
from tests.identity.certificates import DAY, NOW, impostor_of

FIRST = Authority.create(now=NOW)
SECOND = Authority.create(now=NOW, mesh=FIRST.mesh)
STRANGER = Authority.create(now=NOW)
STAMP = int(NOW.timestamp())
ALICE = Revocation(bytes(range(16)), "client", "alice", STAMP, STAMP + 86_400)


def content(version: int, *authorities: Authority, revoked: tuple[Revocation, ...] = ()) -> TrustList:
    certificates = tuple(one.authorities_der[0] for one in authorities or (FIRST,))
    return TrustList(mesh=FIRST.mesh, version=version, made_at=STAMP, authorities=certificates, revoked=revoked)


def sealed(version: int, *authorities: Authority, revoked: tuple[Revocation, ...] = ()) -> bytes:
    return seal_trust(content(version, *authorities, revoked=revoked), [FIRST])


@pytest.fixture
def store() -> TrustStore:
    return TrustStore(FIRST.mesh, FIRST.certificate_pem)


def refusal(store: TrustStore, raw: bytes) -> str:
    before = (store.version, store.raw, store.authorities_pem, store.revoked)
    with pytest.raises(CredentialError) as caught:
        store.take(raw, NOW)
    assert (store.version, store.raw, store.authorities_pem, store.revoked) == before
    return caught.value.why


def test_without_a_list_the_installed_authorities_are_trusted_and_nobody_is_revoked(store: TrustStore) -> None:
    assert (store.version, store.raw) == (0, b"")
    assert store.authorities_pem == FIRST.certificate_pem
    assert store.revocation(ALICE.key_id) is None


def test_a_newer_list_replaces_authorities_and_revocations(store: TrustStore) -> None:
    raw = sealed(7, SECOND, FIRST, revoked=(ALICE,))
    assert store.take(raw, NOW)
    assert (store.version, store.raw) == (7, raw)
    assert store.authorities_der == SECOND.authorities_der + FIRST.authorities_der
    assert store.revocation(ALICE.key_id) == ALICE
    assert store.revoked == (ALICE,)
    assert ALICE.time == NOW
    assert store.take(sealed(8), NOW)
    assert store.revocation(ALICE.key_id) is None


@pytest.mark.parametrize("version", [1, 6, 7])
def test_an_older_or_equal_list_changes_nothing(version: int, store: TrustStore) -> None:
    store.take(sealed(7, revoked=(ALICE,)), NOW)
    assert not store.take(sealed(version), NOW)
    assert (store.version, store.revoked) == (7, (ALICE,))


def test_a_stored_list_is_read_back(store: TrustStore) -> None:
    store.take(sealed(7, FIRST, SECOND, revoked=(ALICE,)), NOW)
    again = TrustStore(FIRST.mesh, FIRST.certificate_pem, store.raw)
    assert (again.version, again.raw, again.revoked) == (7, store.raw, (ALICE,))
    assert again.authorities_pem == store.authorities_pem


def test_a_list_of_the_next_authority_is_taken_once_it_is_trusted(store: TrustStore) -> None:
    by_second = seal_trust(content(8, SECOND), [SECOND])
    assert "not signed by an authority" in refusal(store, by_second)
    store.take(sealed(7, FIRST, SECOND), NOW)
    assert store.take(by_second, NOW)
    assert "not signed by an authority" in refusal(store, sealed(9))


def test_one_signature_of_several_is_enough(store: TrustStore) -> None:
    assert store.take(seal_trust(content(7), [SECOND, STRANGER, FIRST]), NOW)


def test_an_authority_that_has_expired_signs_nothing_more() -> None:
    short = Authority.create(days=10, now=NOW)
    store = TrustStore(short.mesh, short.certificate_pem)
    raw = seal_trust(TrustList(mesh=short.mesh, version=1, made_at=STAMP, authorities=short.authorities_der), [short])
    with pytest.raises(CredentialError, match="not signed by an authority"):
        store.take(raw, NOW + 11 * DAY)
    assert TrustStore(short.mesh, short.certificate_pem, raw).version == 1


def test_a_list_that_a_namesake_of_the_authority_signed_is_refused(store: TrustStore) -> None:
    assert "not signed by an authority" in refusal(store, seal_trust(content(7), [impostor_of(FIRST)]))


def test_a_signature_of_another_kind_is_refused(store: TrustStore) -> None:
    payload = msgspec.msgpack.encode(content(7))
    raw = msgspec.msgpack.encode([payload, [[FIRST.key_id, FIRST.sign(SignatureContext.RECORD, payload)]]])
    assert "not signed by an authority" in refusal(store, raw)
    raw = msgspec.msgpack.encode([payload, [[FIRST.key_id, FIRST.sign(SignatureContext.TRUST, payload)]]])
    assert store.take(raw, NOW)


def test_a_list_of_another_mesh_is_refused(store: TrustStore) -> None:
    other = TrustList(mesh=STRANGER.mesh, version=9, made_at=STAMP, authorities=STRANGER.authorities_der)
    assert "of another mesh" in refusal(store, seal_trust(other, [STRANGER, FIRST]))


@pytest.mark.parametrize(
    "authorities",
    [
        (STRANGER.authorities_der[0],),
        (FIRST.authorities_der[0], STRANGER.authorities_der[0]),
        (b"junk",),
        tuple(FIRST.issue_node("tokyo", now=NOW).chain_der),
        (bytes(5000),),
    ],
    ids=["other mesh", "one of another mesh", "junk", "a node", "too long"],
)
def test_a_list_with_what_is_no_authority_of_the_mesh_is_refused(
    authorities: tuple[bytes, ...], store: TrustStore
) -> None:
    wrong = msgspec.structs.replace(content(7), authorities=authorities)
    refusal(store, seal_trust(wrong, [FIRST]))


def test_a_list_without_authorities_is_refused(store: TrustStore) -> None:
    assert "unreadable" in refusal(store, seal_trust(msgspec.structs.replace(content(7), authorities=()), [FIRST]))


def test_unknown_fields_of_a_later_version_are_ignored(store: TrustStore) -> None:
    fields = {**msgspec.to_builtins(content(7), builtin_types=(bytes,)), "later": [1, 2]}
    payload = msgspec.msgpack.encode(fields)
    raw = msgspec.msgpack.encode([payload, [[FIRST.key_id, FIRST.sign(SignatureContext.TRUST, payload)]], "later"])
    assert store.take(raw, NOW)


def test_a_full_list_fits_and_one_more_is_refused_where_it_is_made(store: TrustStore) -> None:
    def some(count: int) -> tuple[Revocation, ...]:
        return tuple(Revocation(n.to_bytes(16, "big"), "client", "n" * 64, STAMP, STAMP) for n in range(count))

    raw = sealed(7, FIRST, SECOND, revoked=some(limits.MAX_REVOKED_KEYS))
    assert len(raw) < limits.MAX_TRUST_SIZE
    assert store.take(raw, NOW)
    with pytest.raises(CredentialError, match="no room for more than 1500"):
        sealed(8, revoked=some(limits.MAX_REVOKED_KEYS + 1))


@pytest.mark.parametrize("raw", [b"", b"\xc0", b"\x92\xc4\x00\x90", b"\x91" * 5000, bytes(limits.MAX_TRUST_SIZE + 1)])
def test_what_is_no_list_is_refused(raw: bytes, store: TrustStore) -> None:
    refusal(store, raw)


def test_mutated_lists_are_refused_or_the_same(store: TrustStore) -> None:
    rng = random.Random(21)
    raw = sealed(7, FIRST, SECOND, revoked=(ALICE,))
    for _ in range(200):
        mutated = bytearray(raw)
        mutated[rng.randrange(len(mutated))] ^= rng.randrange(1, 256)
        fresh = TrustStore(FIRST.mesh, FIRST.certificate_pem)
        try:
            fresh.take(bytes(mutated), NOW)
        except CredentialError:
            assert fresh.version == 0, "seed 21"
        else:
            assert (fresh.version, fresh.revoked) == (7, (ALICE,)), "seed 21"


def test_what_an_operator_installs_replaces_the_list(store: TrustStore) -> None:
    store.take(sealed(7, revoked=(ALICE,)), NOW)
    store.install(SECOND.certificate_pem)
    assert (store.version, store.raw, store.revoked) == (0, b"", ())
    assert store.authorities_pem == SECOND.certificate_pem
    for junk in (b"", STRANGER.certificate_pem, b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"):
        with pytest.raises(CredentialError):
            store.install(junk)
    assert store.authorities_pem == SECOND.certificate_pem


def test_the_mesh_keeps_the_id_of_its_first_authority() -> None:
    key = generate_key()
    assert Authority.create(key=key, mesh=FIRST.mesh).mesh == FIRST.mesh != mesh_id_of(key.public_key())
