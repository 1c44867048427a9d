"""What a doctor learns of a listener that it speaks to: the right broker, a foreign one, something else."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import Authority, Credential, load_authority
from quicbus.identity.trust import Revocation, TrustList, TrustStore, seal_trust
from quicbus.transport.engine import Terminated
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Accepted, Limits, PeerEntry, Welcome
from quicbus_cli.doctor.broker import (
    check_clock,
    check_members,
    check_proof,
    check_protocol,
    check_round_trip,
    check_tls,
    judge_conversation,
)
from quicbus_cli.doctor.conversation import Conversation, Stage, converse
from quicbus_cli.doctor.finding import State
from tests.cli.doctor.listeners import quic_listener, refusing, silent

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.testing.launcher import BrokerProcess
    from quicbus.transport.connection import Address

LONG_S = 20.0
SHORT_S = 0.2
NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)
AUTHORITY = Authority.create()
ALICE = AUTHORITY.issue_client("alice")


def address_of(broker: BrokerProcess) -> Address:
    host, _, port = broker.address.rpartition(":")
    return host, int(port)


def told(**facts: object) -> Conversation:
    """A conversation that came to its end well, but for `facts`."""
    limits = Limits(max_message_size=1024, max_headers_size=1, max_subscriptions=1, max_filter_size=1)
    good = Conversation(
        stage=Stage.ACCEPTED,
        node="0a" * 16,
        welcome=Welcome(version=1, node=bytes(16), boot=1, agent="quicbus", limits=limits),
        acceptance=Accepted(session=bytes(16), name="alice", publish_credit=1, expires_in_s=1000.0),
        accepted_at=ALICE.not_after - dt.timedelta(seconds=1000),
        handshake_s=0.05,
        round_trips_s=[0.001, 0.002, 0.009],
        peers=[peer("me", is_self=True)],
    )
    return dataclasses.replace(good, **facts)  # type: ignore[arg-type]  # tests name the fields


def peer(name: str, state: str = "alive", *, linked: bool = False, is_self: bool = False) -> PeerEntry:
    return PeerEntry(node="0a" * 16, name=name, state=state, mode="hybrid", boot=1, linked=linked, is_self=is_self)


def closed(code: int, reason: str, *, is_application: bool = True, is_local: bool = False) -> Terminated:
    return Terminated(code, reason, is_application=is_application, is_local=is_local)


# --- real listeners


async def test_a_broker_of_the_mesh_is_well(shared_broker: BrokerProcess, engine: str) -> None:
    credential = Credential.load(shared_broker.credential_path)
    heard = await converse(address_of(shared_broker), credential, engine, LONG_S)
    findings = judge_conversation(heard, credential)
    assert {finding.state for finding in findings} == {State.OK}, findings
    checks = ["TLS", "protocol", "credential accepted", "clocks", "round trip", "mesh"]
    assert [finding.check for finding in findings] == checks
    assert shared_broker.node in findings[2].seen


async def test_a_broker_of_another_mesh_is_told(shared_broker: BrokerProcess, engine: str) -> None:
    heard = await converse(address_of(shared_broker), ALICE, engine, LONG_S)
    first, clocks = judge_conversation(heard, ALICE)
    assert (first.check, first.state) == ("TLS", State.FAILURE)
    assert "a broker of another mesh" in first.seen
    assert "use a credential of that broker's mesh" in first.remedy
    assert clocks.state is State.SKIPPED


async def test_a_credential_that_the_broker_does_not_take_is_told_with_its_reason(
    shared_broker: BrokerProcess, engine: str
) -> None:
    # An authority that calls itself like the broker's, with another key, and a listener check that TLS passes.
    credential = Credential.load(shared_broker.credential_path)
    forged = dataclasses.replace(ALICE, authority_pem=credential.authority_pem, mesh=credential.mesh)
    heard = await converse(address_of(shared_broker), forged, engine, LONG_S)
    assert heard.stage is Stage.WELCOMED
    finding = judge_conversation(heard, forged)[-2]
    assert (finding.check, finding.state) == ("credential accepted", State.FAILURE)
    assert ALICE.mesh in finding.seen


async def test_a_quic_service_that_is_no_broker_is_told(engine: str) -> None:
    async with quic_listener(engine, AUTHORITY, alpn="h3") as address:
        finding = judge_conversation(await converse(address, ALICE, engine, LONG_S), ALICE)[0]
    assert (finding.check, finding.state) == ("TLS", State.FAILURE)
    assert "speaks QUIC but not quicbus" in finding.seen


async def test_the_conversation_is_recorded_where_that_is_asked_for(engine: str, tmp_path: Path) -> None:
    async with quic_listener(engine, AUTHORITY) as address:
        await converse(address, ALICE, engine, LONG_S, qlog_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1  # noqa: ASYNC240 (nothing else runs)


async def test_a_broker_that_refuses_for_now_is_told(engine: str) -> None:
    why = "max_connections: 11 is over the limit of 10; try again in 5 s"
    too_many = refusing(CloseCode.TOO_MANY_CONNECTIONS, why)
    async with quic_listener(engine, AUTHORITY, make_handler=too_many) as address:
        heard = await converse(address, ALICE, engine, LONG_S)
    finding = judge_conversation(heard, ALICE)[-2]
    assert finding.state is State.FAILURE
    assert why in finding.seen


async def test_a_listener_that_answers_nothing_is_waited_for_and_left(engine: str) -> None:
    with silent() as address:
        heard = await converse(address, ALICE, engine, SHORT_S)
    assert (heard.stage, heard.termination) == (Stage.SILENT, None)
    assert check_tls(heard, ALICE).state is State.FAILURE


async def test_an_engine_that_can_not_dial_there_fails_with_its_reason(engine: str) -> None:
    heard = await converse(("nowhere", 1), ALICE, engine, SHORT_S)
    assert "nowhere" in check_tls(heard, ALICE).seen


async def test_a_node_that_is_revoked_in_the_trust_list_of_this_machine_is_told(
    shared_broker: BrokerProcess, engine: str
) -> None:
    credential = Credential.load(shared_broker.credential_path)
    authority = load_authority(shared_broker.data_dir)
    now = int(dt.datetime.now(dt.UTC).timestamp())
    revoked = Revocation(bytes.fromhex(shared_broker.node), "node", "tokyo", now, now + 86_400)
    authorities = TrustStore(authority.mesh, authority.certificate_pem).authorities_der
    content = TrustList(mesh=authority.mesh, version=1, made_at=now, authorities=authorities, revoked=(revoked,))
    trust = seal_trust(content, [authority])
    heard = await converse(address_of(shared_broker), credential, engine, LONG_S, trust=trust)
    first = judge_conversation(heard, credential)[0]
    assert (first.check, first.state) == ("TLS", State.FAILURE)
    assert "was revoked on" in first.seen


# --- judgement


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (closed(0x12D, "certificate has expired", is_application=False, is_local=True), "by this machine's clock"),
        (closed(0x128, "handshake failure", is_application=False), "speaks QUIC but not quicbus"),
        (closed(0x101, "node 1 answers where 2 was expected; check the address", is_local=True), "node 1 answers"),
        (closed(0x1, "internal", is_application=False), "the handshake failed: internal (code 0x1)"),
    ],
)
def test_each_end_of_a_handshake_has_its_sentence(end: Terminated, said: str) -> None:
    finding = check_tls(told(stage=Stage.HEARD, termination=end), ALICE)
    assert finding.state is State.FAILURE
    assert said in finding.seen
    assert finding.remedy


def test_another_version_of_the_protocol_is_told() -> None:
    welcome = told().welcome
    assert welcome is not None
    newer = Welcome(version=2, node=bytes(16), boot=1, agent="quicbus/9", limits=welcome.limits)
    finding = check_protocol(told(welcome=newer))
    assert (finding.state, finding.remedy) == (State.FAILURE, "update the older of the two")
    assert check_protocol(told(failure="protocol violation: a second Welcome")).state is State.FAILURE
    assert check_protocol(told(welcome=None)).state is State.FAILURE


def test_a_broker_that_takes_a_valid_credential_for_expired_points_at_the_clocks() -> None:
    end = closed(CloseCode.CREDENTIAL_EXPIRED, "expired on 2026-01-01; write a new one")
    finding = check_proof(told(stage=Stage.WELCOMED, acceptance=None, termination=end), ALICE)
    assert finding.state is State.FAILURE
    assert "compare the clocks" in finding.remedy


def test_a_proof_that_nobody_answers_is_a_failure() -> None:
    assert check_proof(told(acceptance=None), ALICE).state is State.FAILURE


@pytest.mark.parametrize(
    ("apart_s", "state", "said"),
    [
        (0.0, State.OK, "agree within"),
        (59.0, State.OK, "agree within 59.0 s"),
        (200.0, State.WARNING, "3 minutes ahead of"),
        (-200.0, State.WARNING, "3 minutes behind"),
        (7200.0, State.FAILURE, "2 hours ahead of"),
    ],
)
def test_clocks_are_compared_by_the_end_of_the_certificate(apart_s: float, state: State, said: str) -> None:
    good = told()
    assert good.accepted_at is not None
    finding = check_clock(told(accepted_at=good.accepted_at - dt.timedelta(seconds=apart_s)), ALICE)
    assert (finding.state, said in finding.seen) == (state, True), finding


def test_without_an_answer_the_clock_is_compared_with_nothing() -> None:
    assert check_clock(told(acceptance=None), ALICE).state is State.SKIPPED
    endless = Accepted(session=bytes(16), name="alice", publish_credit=1)
    assert check_clock(told(acceptance=endless), ALICE).state is State.SKIPPED


def test_round_trips_are_shown_and_missing_ones_fail() -> None:
    finding = check_round_trip(told())
    assert (finding.state, finding.seen) == (
        State.OK,
        "2.0 ms in the middle of 3, 9.0 ms at most; connected in 50 ms",
    )
    assert check_round_trip(told(round_trips_s=[])).state is State.FAILURE


@pytest.mark.parametrize(
    ("others", "state", "said"),
    [
        ([], State.OK, "alone in its mesh"),
        (
            [peer("osaka", linked=True), peer("kyoto", "left")],
            State.OK,
            "1 alive, 1 left; the broker is linked to 1 of",
        ),
        ([peer("osaka", linked=True), peer("kyoto", "failed")], State.WARNING, "1 alive, 1 failed"),
        ([peer("osaka")], State.FAILURE, "linked to 0"),
        ([peer("osaka", "failed")], State.FAILURE, "1 failed"),
        ([peer("osaka", "suspect")], State.WARNING, "1 suspect"),
        ([peer("osaka", "left")], State.OK, "1 left"),
    ],
)
def test_the_mesh_is_judged_as_the_broker_sees_it(others: list[PeerEntry], state: State, said: str) -> None:
    finding = check_members(told(peers=[peer("me", is_self=True), *others]))
    assert (finding.state, said in finding.seen) == (state, True), finding


def test_a_mesh_that_was_not_told_is_skipped() -> None:
    assert check_members(told(peers=None)).state is State.SKIPPED
