"""Joining and renewing at a desk, over real engines and over the memory engine."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.client.urls import BrokerUrl
from quicbus.exceptions import AuthorityUnavailable, ConnectFailed, CredentialRefused
from quicbus.identity import Authority, Credential, PreparedFolder, Role, Verifier, make_request
from quicbus.identity.folder_trust import add_revocations
from quicbus.identity.keys import generate_key
from quicbus.identity.trust import Revocation
from quicbus.transport.endpoint import Endpoint
from quicbus.transport.engine import EngineConfiguration
from quicbus.transport.engines import engine_named
from quicbus.transport.memory_network import MemoryNetwork
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import STREAM_TYPE_CONTROL, Ping, encode_frame
from quicbus.wire.join_frames import JOIN_ALPN, JoinRequest
from tests.broker.enrolment.offices import ADDRESS, BROKERS, open_office
from tests.transport.recorder import Recorder
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from quicbus.transport.connection import Connection
    from tests.broker.enrolment.offices import Office

ADDRESS_URL = BrokerUrl(*ADDRESS)
A_REQUEST = bytes((STREAM_TYPE_CONTROL,)) + encode_frame(JoinRequest(version=1, request=b"?"))


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path / "data") as office:
        yield office


async def stranger(network: MemoryNetwork) -> Recorder:
    """Return the session of one who dials the desk and knows nothing; its endpoint is closed with the loop."""
    made: list[Recorder] = []

    def make(connection: Connection) -> Recorder:
        made.append(Recorder(connection))
        return made[0]

    endpoint = await Endpoint.open(bind=None, engine=engine_named("memory"), network=network)
    endpoint.dial(ADDRESS, EngineConfiguration(is_client=True, alpn=JOIN_ALPN), make)
    return made[0]


async def test_a_token_becomes_a_credential_of_its_role_and_name(tmp_path: Path, engine: str) -> None:
    async with open_office(tmp_path / "data", engine=engine) as office:
        token, key = office.token(name="alice"), generate_key()
        answer = await office.office.join(token, make_request(key))
        credential = Credential.from_issued(key, answer.issued.chain, office.folder.trust.authorities)
        assert (credential.role, credential.name, credential.mesh) == (Role.CLIENT, "alice", token.mesh)
        assert answer.brokers == ("quic://127.0.0.1:4433", *BROKERS)
        await eventually(lambda: office.desk.statistics().open == 0)
        assert (office.desk.statistics().joined, office.desk.statistics().refused) == (1, {})


async def test_a_folder_without_a_certificate_becomes_that_of_a_node(tmp_path: Path, office: Office) -> None:
    token = office.token(Role.NODE, name="tokyo")
    with PreparedFolder.open(tmp_path / "tokyo") as prepared:
        answer = await office.office.join(token, prepared.request, prepared.local_request)
        node = prepared.install(answer.issued, token.authorities)
    assert (node.role, node.name) == (Role.NODE, "tokyo")
    assert Credential.load(tmp_path / "tokyo" / "credential.pem", role=Role.CLIENT).name == "tokyo"


async def test_a_token_with_one_use_is_refused_the_second_time_by_its_sentence(office: Office) -> None:
    token = office.token()
    await office.office.join(token, make_request(generate_key()))
    with pytest.raises(CredentialRefused, match="was good for joining once and is used up") as refused:
        await office.office.join(token, make_request(generate_key()))
    assert refused.value.code == CloseCode.TOKEN_REFUSED
    assert office.desk.statistics().refused == {"token_refused": 1}


async def test_the_same_key_is_answered_again_after_its_answer_was_lost(office: Office) -> None:
    token, csr = office.token(name="alice"), make_request(generate_key())
    first, second = await office.office.join(token, csr), await office.office.join(token, csr)
    assert len({first.issued.chain, second.issued.chain}) == 2
    assert office.desk.statistics().joined == 2


async def test_a_listener_of_another_authority_is_sent_nothing(tmp_path: Path, engine: str) -> None:
    async with open_office(tmp_path / "ours", engine=engine) as ours:
        token = ours.token()
    async with open_office(tmp_path / "theirs", engine=engine) as theirs:
        with pytest.raises(ConnectFailed, match="no node of this mesh answers there"):
            await theirs.office.join(token, make_request(generate_key()))
        statistics = theirs.desk.statistics()
        assert (statistics.open, statistics.joined, statistics.refused) == (0, 0, {})


@pytest.mark.parametrize("age_days", [21.0, 31.0, 59.0], ids=["due", "expired", "almost beyond renewal"])
async def test_a_certificate_is_renewed_for_its_key_and_life(office: Office, age_days: float) -> None:
    old = office.client(age_days=age_days)
    new = await office.office.renew(old, [ADDRESS_URL])
    assert (new.name, new.node_id, new.role) == (old.name, old.node_id, old.role)
    assert new.life_days == pytest.approx(30)
    assert new.not_after > dt.datetime.now(dt.UTC) + dt.timedelta(days=29)
    Verifier(old.authority_pem, old.mesh).verify_chain(new.chain_der, dt.datetime.now(dt.UTC))
    await eventually(lambda: office.desk.statistics().renewed == 1)


async def test_a_certificate_that_expired_long_ago_is_not_renewed(office: Office) -> None:
    with pytest.raises(CredentialRefused, match="more than 30 days ago, so it can't be renewed") as refused:
        await office.office.renew(office.client(age_days=61.0), [ADDRESS_URL])
    assert refused.value.code == CloseCode.CREDENTIAL_EXPIRED


async def test_a_revoked_key_is_not_renewed(office: Office) -> None:
    credential = office.client()
    now = int(dt.datetime.now(dt.UTC).timestamp())
    revocation = Revocation(credential.node_id, "client", credential.name, now, now + 90 * 86_400)
    add_revocations(office.folder.path, [revocation], dt.datetime.now(dt.UTC))
    with pytest.raises(CredentialRefused, match="revoked") as refused:
        await office.office.renew(credential, [ADDRESS_URL])
    assert refused.value.code == CloseCode.CREDENTIAL_REVOKED


async def test_a_certificate_of_another_mesh_is_not_renewed(office: Office) -> None:
    other = Authority.create().issue_client("mallory")
    with pytest.raises(CredentialRefused, match="of mesh") as refused:
        await office.office.renew(other, [ADDRESS_URL])  # the memory engine lets anyone listen
    assert refused.value.code == CloseCode.CREDENTIAL_OTHER_MESH
    assert office.bus.asked == 0


async def test_without_a_node_with_the_authoritys_key_joining_works_later(tmp_path: Path) -> None:
    async with open_office(tmp_path / "data", has_authority=False) as office:
        token, csr = office.token(), make_request(generate_key())
        with pytest.raises(AuthorityUnavailable, match="start the broker that has it"):
            await office.office.join(token, csr)
        assert office.desk.statistics().refused == {"not_available": 1}


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"\x02", "is not the one that a joiner opens"),
        (b"\x01" + encode_frame(JoinRequest(version=1, request=b"\xc1")), "signing request"),
        (b"\x01" + b"\x40\x40\x80\x01\x00\x00", "has 65536 bytes, at most 8192 may be"),
        (b"\x01\x3f" + bytes(limits.MAX_JOIN_SIZE), "sends at most 8192 bytes"),
    ],
    ids=["another stream", "garbage", "a frame too large", "too much"],
)
async def test_what_is_no_request_closes_the_connection(tmp_path: Path, sent: bytes, why: str) -> None:
    network = MemoryNetwork()
    async with open_office(tmp_path / "data", network=network) as office:
        session = await stranger(network)
        await session.wait_connected()
        session.connection.send(session.connection.open_stream(), sent)
        termination = await session.wait_closed()
        assert termination.code == CloseCode.PROTOCOL_VIOLATION
        assert why in termination.reason
        assert office.desk.statistics().refused == {"protocol_violation": 1}


async def test_a_later_version_of_joining_is_refused_by_name(tmp_path: Path) -> None:
    network = MemoryNetwork()
    async with open_office(tmp_path / "data", network=network):
        session = await stranger(network)
        await session.wait_connected()
        frame = encode_frame(JoinRequest(version=2, request=b"?"))
        session.connection.send(session.connection.open_stream(), b"\x01" + frame)
        assert (await session.wait_closed()).code == CloseCode.UNSUPPORTED_VERSION


async def test_frames_of_other_protocols_are_skipped_as_unknown(tmp_path: Path) -> None:
    network = MemoryNetwork()
    async with open_office(tmp_path / "data", network=network):
        session = await stranger(network)
        await session.wait_connected()
        session.connection.send(session.connection.open_stream(), b"\x01" + encode_frame(Ping(id=7)) + A_REQUEST[1:])
        assert "signing request" in (await session.wait_closed()).reason


async def test_joiners_beyond_their_room_are_told_to_try_again(tmp_path: Path) -> None:
    network = MemoryNetwork()
    async with open_office(tmp_path / "data", network=network) as office:
        waiting = [await stranger(network) for _ in range(limits.MAX_JOINERS_PER_ADDRESS)]
        for session in waiting:
            await session.wait_connected()
        await eventually(lambda: office.desk.statistics().open == limits.MAX_JOINERS_PER_ADDRESS)
        termination = await (await stranger(network)).wait_closed()
        assert termination.code == CloseCode.TOO_MANY_CONNECTIONS
        assert "joiners from 127.0.0.1: 8 of 8 are being served; try again in 10 s" in termination.reason
        waiting[0].connection.close(CloseCode.GOODBYE, "")
        await eventually(lambda: office.desk.statistics().open == limits.MAX_JOINERS_PER_ADDRESS - 1)
        await office.office.join(office.token(), make_request(generate_key()))


async def test_requests_with_tokens_beyond_the_rate_go_no_further_and_renewals_do(tmp_path: Path) -> None:
    now = 100.0
    async with open_office(tmp_path / "data", has_authority=False, max_rate=1, clock=lambda: now) as office:
        token = office.token()
        for _ in range(3):
            with pytest.raises(AuthorityUnavailable):
                await office.office.join(token, make_request(generate_key()))
        asked = office.bus.asked
        assert asked == 2, "a quarter of ten requests"
        with pytest.raises(AuthorityUnavailable, match=r"max_join_rate: .* is not used up, try again in 2 s"):
            await office.office.join(token, make_request(generate_key()))
        assert office.desk.statistics().limits == {"max_joiners": 0, "max_joiners_per_address": 0, "max_join_rate": 2}
        with pytest.raises(AuthorityUnavailable, match="start the broker that has it"):
            await office.office.renew(office.client(), [ADDRESS_URL])
        now += 2.0
        with pytest.raises(AuthorityUnavailable, match="start the broker that has it"):
            await office.office.join(token, make_request(generate_key()))


async def test_a_joiner_that_asks_for_nothing_is_closed(tmp_path: Path) -> None:
    network = MemoryNetwork()
    async with open_office(tmp_path / "data", network=network, request_timeout_s=0.01) as office:
        termination = await (await stranger(network)).wait_closed()
        assert termination.code == CloseCode.HANDSHAKE_TIMEOUT
        assert termination.reason == "no request within 0.01 s; check the network and try again"
        assert office.desk.statistics().open == 0
        assert office.desk.statistics().refused == {"handshake_timeout": 1}


async def test_a_desk_that_closes_tells_those_who_wait(tmp_path: Path) -> None:
    network = MemoryNetwork()
    async with open_office(tmp_path / "data", network=network) as office:
        session = await stranger(network)
        await session.wait_connected()
        await eventually(lambda: office.desk.statistics().open == 1)
        await office.desk.close()
        assert (await session.wait_closed()).code == CloseCode.GOING_AWAY
        await office.desk.close()
