"""How a broker keeps its certificates alive: whom it asks, what it installs, and what operators are told."""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING, cast

import pytest

from quicbus.client.enrolment import renewal_request
from quicbus.client.urls import BrokerUrl
from quicbus.identity import Authority, Credential, Issued, ProofRefused, request_key
from quicbus.identity.peer import parse_certificate, peer_of
from quicbus.wire.close_codes import CloseCode
from quicbus_broker.enrolment.keeper import CertificateKeeper
from quicbus_broker.events import BrokerEvent, CertificateExpiring, CertificateRenewed
from quicbus_broker.node import NodeIdentity
from quicbus_broker.settings import BrokerSettings
from tests.identity.aged import aged_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from quicbus.client.enrolment import CertificateOffice
    from quicbus.identity import IssueRequest
    from quicbus_broker.enrolment.authority_service import AuthorityService

NOW = dt.datetime.now(dt.UTC)
AUTHORITY = Authority.create(now=NOW - dt.timedelta(days=100))
KNOWN = [BrokerUrl("lima", 4433)]
NOT_AVAILABLE = ProofRefused(CloseCode.NOT_AVAILABLE, "nobody has the key; try again")


class FakeAuthority:
    """Over the mesh and over the network: issues what is asked for, unless `failure` says otherwise."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.asked = 0
        self.dialed: list[Sequence[BrokerUrl]] = []

    async def serve(self) -> None: ...

    async def ask(self, request: IssueRequest) -> Issued:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return self._issued(request)

    async def renewal(self, credential: Credential, known: Sequence[BrokerUrl]) -> Issued:
        self.dialed.append(known)
        return self._issued(renewal_request(credential))

    def _issued(self, request: IssueRequest) -> Issued:
        peer = peer_of(parse_certificate(request.chain[0]))
        leaf = AUTHORITY.certify(peer.role, peer.name, request_key(request.csr), days=30)
        return Issued(chain=(leaf,), authorities=AUTHORITY.authorities_der)


class Kept:
    """A node's identity, its keeper, and what was told."""

    def __init__(self, identity: NodeIdentity, known: Sequence[BrokerUrl] = KNOWN) -> None:
        self.now = dt.datetime.now(dt.UTC)
        self.identity = identity
        self.authority = FakeAuthority()
        self.events: list[BrokerEvent] = []
        self.keeper = CertificateKeeper(
            identity,
            cast("AuthorityService", self.authority),
            cast("CertificateOffice", self.authority),
            lambda: known,
            changed=identity.adopt,
            report=self.events.append,
            wall_clock=lambda: self.now,
            rng=random.Random(1),
        )

    def told(self) -> list[tuple[type[BrokerEvent], str]]:
        return [
            (type(event), event.whose)
            for event in self.events
            if isinstance(event, CertificateExpiring | CertificateRenewed)
        ]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[[float], Kept]]:
    opened: list[NodeIdentity] = []

    def open_(age_days: float) -> Kept:
        folder = aged_folder(AUTHORITY, tmp_path / "tokyo", "tokyo", age_days)
        opened.append(NodeIdentity(BrokerSettings(data_dir=folder, seed=("lima:4433",))))
        return Kept(opened[0])

    yield open_
    for identity in opened:
        identity.close()


async def test_nothing_is_asked_for_before_the_last_third(node: Callable[[float], Kept]) -> None:
    kept = node(10)
    assert await kept.keeper.look() == pytest.approx(600)
    assert (kept.authority.asked, kept.events) == (0, [])


async def test_the_nodes_certificate_and_the_local_credential_are_renewed_for_their_keys(
    node: Callable[[float], Kept],
) -> None:
    kept = node(25)
    before, local = kept.identity.credential, kept.identity.local()
    await kept.keeper.look()
    after, new_local = kept.identity.credential, kept.identity.local()
    assert local is not None
    assert new_local is not None
    assert (after.node_id, after.name) == (before.node_id, "tokyo")
    assert new_local.node_id == local.node_id
    assert min(after.not_after, new_local.not_after) > NOW + dt.timedelta(days=29)
    assert kept.told() == [(CertificateRenewed, "node"), (CertificateRenewed, "local")]
    await kept.keeper.look()
    assert kept.authority.asked == 2


async def test_without_the_authority_it_is_tried_again_and_operators_are_warned(node: Callable[[float], Kept]) -> None:
    kept = node(29.5)
    kept.authority.failure = NOT_AVAILABLE
    assert 0 < await kept.keeper.look() <= 1.5
    assert kept.told() == [(CertificateExpiring, "node"), (CertificateExpiring, "local")]
    (told, _) = kept.events
    assert isinstance(told, CertificateExpiring)
    assert told.why == "nobody has the key; try again"
    assert told.expires_in_s == pytest.approx(43_200, abs=600)
    assert not kept.authority.dialed, "its links still work"
    kept.now += dt.timedelta(seconds=3)
    kept.authority.failure = None
    await kept.keeper.look()
    assert kept.told()[2:] == [(CertificateRenewed, "node"), (CertificateRenewed, "local")]


async def test_once_it_has_expired_a_node_that_is_known_is_dialed(node: Callable[[float], Kept]) -> None:
    kept = node(40)
    kept.authority.failure = NOT_AVAILABLE
    await kept.keeper.look()
    assert kept.authority.dialed == [KNOWN, KNOWN]
    assert kept.identity.credential.not_after > NOW + dt.timedelta(days=29)


async def test_a_refusal_is_not_taken_elsewhere(node: Callable[[float], Kept]) -> None:
    kept = node(40)
    kept.authority.failure = ProofRefused(CloseCode.CREDENTIAL_REVOKED, "the key was revoked")
    await kept.keeper.look()
    assert not kept.authority.dialed
    assert {kind for kind, _ in kept.told()} == {CertificateExpiring}


async def test_a_local_credential_that_cannot_be_read_does_not_keep_the_node_from_renewing(
    node: Callable[[float], Kept],
) -> None:
    kept = node(25)
    path = kept.identity.credential_path
    assert path is not None
    path.write_text("no credential")
    await kept.keeper.look()
    assert kept.told() == [(CertificateRenewed, "node")]


async def test_where_the_authoritys_key_is_it_issues_itself(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    identity = NodeIdentity(BrokerSettings(data_dir=folder))
    try:
        kept = Kept(identity)
        before = identity.credential.not_after
        kept.now += dt.timedelta(days=25)
        await kept.keeper.look()
        assert kept.authority.asked == 0
        assert identity.credential.not_after >= before
    finally:
        identity.close()


async def test_named_files_are_rewritten(tmp_path: Path) -> None:
    folder = aged_folder(AUTHORITY, tmp_path / "tokyo", "tokyo", 25)
    named = BrokerSettings(
        data_dir=tmp_path / "other",
        certificate=folder / "node.pem",
        private_key=folder / "node-key.pem",
        authority=folder / "authority.pem",
    )
    identity = NodeIdentity(named)
    try:
        kept = Kept(identity)
        await kept.keeper.look()
        assert kept.told() == [(CertificateRenewed, "node")]
        again = Credential.from_files(folder / "node.pem", folder / "node-key.pem", folder / "authority.pem")
        assert again.not_after > NOW + dt.timedelta(days=29)
    finally:
        identity.close()
