"""Whom a client trusts, and what it does with a broker that is revoked."""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import pytest

import quicbus
from quicbus import limits
from quicbus.client.session import Session
from quicbus.client.trust import ClientTrust
from quicbus.client.trust_file import TrustFile
from quicbus.identity import Authority, Credential, DataFolder, load_authority, pem, prepare_node_folder
from quicbus.identity.folder_trust import add_revocations
from quicbus.identity.trust import Revocation, TrustList, seal_trust
from quicbus.testing.pipe import Pipe
from quicbus.wire import frames
from quicbus.wire.close_codes import CloseCode
from tests.client.brokers import broker_in_process
from tests.client.scripted_broker import NODE, ScriptedBroker
from tests.client.test_session import Owner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from quicbus.client.message import Replier


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


def listed(
    authority: Authority, version: int, revoked: Sequence[Credential] = (), further: Sequence[Authority] = ()
) -> bytes:
    content = TrustList(
        mesh=authority.mesh,
        version=version,
        made_at=1,
        authorities=tuple(pem.to_der(one.authorities[0]) for one in (authority, *further)),
        revoked=tuple(Revocation(one.node_id, str(one.role), one.name, 1_700_000_000, 1 << 33) for one in revoked),
    )
    return seal_trust(content, [authority, *further])


def trust_of(credential: Credential) -> ClientTrust:
    trust = ClientTrust()
    trust.follow(credential)
    return trust


def authorities_in(text: bytes) -> int:
    return text.count(b"BEGIN CERTIFICATE")


def test_a_client_trusts_the_authority_of_its_credential_until_it_is_told_more(authority: Authority) -> None:
    credential = authority.issue_client("alice")
    assert trust_of(credential).authority_pem == credential.authority_pem


def test_authorities_in_the_list_are_trusted_beside_that_of_the_credential(authority: Authority) -> None:
    following = Authority.create(mesh=authority.mesh)
    trust = trust_of(authority.issue_client("alice"))
    trust.learned(listed(authority, 1, further=[following]))
    assert authorities_in(trust.authority_pem) == 2
    assert following.certificate_pem in trust.authority_pem


def test_a_node_in_the_list_is_refused_by_name_and_others_are_not(authority: Authority) -> None:
    rogue, good = authority.issue_node("rogue"), authority.issue_node("good")
    trust = trust_of(authority.issue_client("alice"))
    trust.learned(listed(authority, 1, [rogue]))
    assert trust.refusal(good.node_id) == ""
    assert trust.refusal(rogue.node_id) == (
        f"node rogue ({rogue.node_id.hex()}) was revoked on 2023-11-14 22:13 UTC; use another"
    )


def test_an_earlier_list_changes_nothing(authority: Authority) -> None:
    rogue = authority.issue_node("rogue")
    trust = trust_of(authority.issue_client("alice"))
    trust.learned(listed(authority, 2, [rogue]))
    trust.learned(listed(authority, 1))
    assert trust.refusal(rogue.node_id)


def test_a_list_of_an_authority_that_is_not_trusted_is_told_of_and_ignored(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    rogue = authority.issue_node("rogue")
    trust = trust_of(authority.issue_client("alice"))
    trust.learned(listed(Authority.create(mesh=authority.mesh), 9, [rogue]))
    assert not trust.refusal(rogue.node_id)
    assert "not to be believed" in caplog.text


def test_what_was_told_outlives_a_renewed_credential(authority: Authority) -> None:
    rogue, following = authority.issue_node("rogue"), Authority.create(mesh=authority.mesh)
    trust = trust_of(authority.issue_client("alice"))
    trust.learned(listed(authority, 1, [rogue], [following]))
    trust.follow(following.issue_client("alice"))
    assert trust.refusal(rogue.node_id)
    assert authorities_in(trust.authority_pem) == 2


# --- the file


def kept(path: Path, credential: Credential) -> ClientTrust:
    """That of a client which is started with the credential in `path`."""
    credential.save(path)
    trust = ClientTrust(TrustFile(path))
    trust.follow(credential)
    return trust


def test_a_client_that_is_started_anew_knows_who_is_revoked(authority: Authority, tmp_path: Path) -> None:
    credential, rogue, following = (
        authority.issue_client("alice"),
        authority.issue_node("rogue"),
        Authority.create(mesh=authority.mesh),
    )
    trust = kept(tmp_path / "alice.pem", credential)
    learned = Counter[str]()
    trust.on_learned = lambda: learned.update(["list"])
    for _ in range(2):
        trust.learned(listed(authority, 1, [rogue], [following]))
    assert (learned["list"], trust.is_to_keep) == (1, True)
    trust.keep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice.pem", "alice.trust"]

    again = kept(tmp_path / "alice.pem", credential)
    assert again.refusal(rogue.node_id)
    assert authorities_in(again.authority_pem) == 2
    again.learned(listed(authority, 1, [rogue], [following]))
    assert not again.is_to_keep


def test_a_list_that_another_process_has_kept_is_not_replaced_by_an_earlier_one(
    authority: Authority, tmp_path: Path
) -> None:
    credential, rogue = authority.issue_client("alice"), authority.issue_node("rogue")
    late, early = (kept(tmp_path / "alice.pem", credential) for _ in range(2))
    early.learned(listed(authority, 1))
    late.learned(listed(authority, 2, [rogue]))
    late.keep()
    early.keep()
    assert kept(tmp_path / "alice.pem", credential).refusal(rogue.node_id)


@pytest.mark.parametrize("which", ["another mesh", "damaged", "enormous"])
def test_a_file_that_is_of_no_use_is_ignored_and_replaced(authority: Authority, tmp_path: Path, which: str) -> None:
    credential, rogue = authority.issue_client("alice"), authority.issue_node("rogue")
    other = Authority.create()
    stored = {"another mesh": listed(other, 9), "damaged": b"\x92", "enormous": bytes(limits.MAX_TRUST_SIZE + 2)}
    (tmp_path / "alice.trust").write_bytes(stored[which])
    trust = kept(tmp_path / "alice.pem", credential)
    trust.learned(listed(authority, 1, [rogue]))
    trust.keep()
    assert kept(tmp_path / "alice.pem", credential).refusal(rogue.node_id)


def test_where_it_cannot_be_kept_it_counts_all_the_same_and_that_is_said_once(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    credential, rogue = authority.issue_client("alice"), authority.issue_node("rogue")
    trust = kept(tmp_path / "alice.pem", credential)
    (tmp_path / "alice.trust").mkdir()
    with caplog.at_level(logging.INFO, "quicbus.client"):
        for version in (1, 2):
            trust.learned(listed(authority, version, [rogue]))
            trust.keep()
    assert trust.refusal(rogue.node_id)
    (line,) = caplog.messages
    assert "who is revoked is not kept for the next start" in line


def test_beside_the_credential_of_a_data_folder_the_list_of_its_broker_counts(
    authority: Authority, tmp_path: Path
) -> None:
    prepare_node_folder(authority, "tokyo", tmp_path / "data")
    path, rogue = tmp_path / "data" / "credential.pem", authority.issue_node("rogue")
    (tmp_path / "data" / "trust.bin").write_bytes(listed(authority, 3, [rogue]))
    trust = ClientTrust(TrustFile(path))
    trust.follow(Credential.load(path))
    assert trust.refusal(rogue.node_id)
    trust.learned(listed(authority, 4))
    assert not trust.is_to_keep
    assert "credential.trust" not in {each.name for each in path.parent.iterdir()}


async def test_a_client_keeps_what_its_broker_has_told(tmp_path: Path) -> None:
    DataFolder.open(tmp_path / "data", may_create_authority=True).close()
    authority, now = load_authority(tmp_path / "data"), dt.datetime.now(dt.UTC)
    credential, rogue = authority.issue_client("alice"), authority.issue_node("rogue")
    stamp = int(now.timestamp())
    add_revocations(tmp_path / "data", [Revocation(rogue.node_id, "node", "rogue", stamp, stamp + 86_400)], now)
    path = tmp_path / "alice.pem"
    credential.save(path)
    async with broker_in_process(tmp_path / "data", "auto") as broker:
        connecting = quicbus.connect(broker.url, credentials=path)
        async with connecting as bus:
            await bus.ping(10.0)
    assert kept(path, credential).refusal(rogue.node_id)


class Refusing:
    """A `SessionTrust` that refuses a node once it was told a list."""

    def __init__(self, *, knows: bool = False) -> None:
        self.told: list[bytes] = []
        self._knows = knows

    def learned(self, signed: bytes) -> None:
        self.told.append(signed)

    def refusal(self, node: bytes) -> str:
        return "node rogue was revoked" if node == NODE and (self._knows or self.told) else ""


def joined(trust: Refusing) -> tuple[Pipe, ScriptedBroker, Owner]:
    pipe, owner = Pipe(), Owner()
    pipe.dialer.listener_node = NODE
    session = Session(pipe.dialer, cast("Any", owner), bus=cast("Replier", None), clock=lambda: 0.0, trust=trust)
    broker = ScriptedBroker(pipe.listener)
    pipe.start(session, broker)
    pipe.pump()
    return pipe, broker, owner


def test_a_broker_that_is_known_to_be_revoked_gets_no_proof() -> None:
    _, broker, owner = joined(Refusing(knows=True))
    assert broker.of(frames.Hello) == []
    assert owner.termination is not None
    assert (owner.termination.code, owner.termination.reason) == (
        CloseCode.CREDENTIAL_REVOKED,
        "node rogue was revoked",
    )


def test_a_broker_that_tells_of_its_own_revocation_is_left() -> None:
    trust = Refusing()
    pipe, broker, owner = joined(trust)
    assert owner.calls == ["welcomed", "accepted"]
    broker.send(frames.Trust(signed=b"a list"))
    pipe.pump()
    assert trust.told == [b"a list"]
    assert owner.termination is not None
    assert owner.termination.code == CloseCode.CREDENTIAL_REVOKED
