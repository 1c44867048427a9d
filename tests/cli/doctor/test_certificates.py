"""What a doctor says about certificates: whose, until when, of which mesh, revoked or not."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import Authority, Credential, DataFolder, Role, load_authority
from quicbus.identity.trust import Revocation, TrustList, TrustStore, seal_trust
from quicbus_cli.doctor.certificates import (
    NodeFiles,
    check_period,
    check_role,
    check_trust,
    look_at_credential,
    look_at_node,
    read_node,
)
from quicbus_cli.doctor.finding import State

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus_cli.doctor.finding import Finding

NOW = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)
AUTHORITY = Authority.create(now=NOW)
ALICE = AUTHORITY.issue_client("alice", days=30, now=NOW)
TRUST = TrustStore(AUTHORITY.mesh, AUTHORITY.certificate_pem)


def saved(folder: Path, credential: Credential) -> Path:
    path = folder / "alice.pem"
    credential.save(path)
    return path


def states(findings: list[Finding]) -> dict[str, State]:
    return {finding.check: finding.state for finding in findings}


def test_a_good_credential_is_well_and_usable(tmp_path: Path) -> None:
    credential, findings = look_at_credential(saved(tmp_path, ALICE), NOW, TRUST)
    assert credential is not None
    assert set(states(findings).values()) == {State.OK}, findings
    assert "client alice" in findings[1].seen


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_credential_that_others_may_read_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path, ALICE)
    path.chmod(0o644)
    _, findings = look_at_credential(path, NOW, None)
    assert findings[0].state is State.FAILURE
    assert findings[0].remedy == f"chmod 600 {path}"


def test_a_missing_credential_names_how_one_is_made(tmp_path: Path) -> None:
    credential, (finding,) = look_at_credential(tmp_path / "none.pem", NOW, None)
    assert credential is None
    assert finding.state is State.FAILURE
    assert "quicbus cert issue" in finding.remedy


def test_a_credential_that_is_no_file_of_ours_is_told(tmp_path: Path) -> None:
    (tmp_path / "file.pem").write_text("hello")
    assert look_at_credential(tmp_path / "file.pem", NOW, None)[1][0].state is State.FAILURE
    assert look_at_credential(tmp_path, NOW, None)[1][0].state is State.FAILURE


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mixed.pem"
    path.write_bytes(AUTHORITY.issue_client("bob").private_key_pem + ALICE.chain_pem + ALICE.authority_pem)
    credential, (finding,) = look_at_credential(path, NOW, None)
    assert credential is None
    assert "the private key does not fit the certificate" in finding.seen


def test_the_credential_of_a_node_is_not_for_clients(tmp_path: Path) -> None:
    credential, findings = look_at_credential(saved(tmp_path, AUTHORITY.issue_node("tokyo", now=NOW)), NOW, None)
    assert credential is None
    assert findings[1].state is State.FAILURE
    assert "that of a client is wanted" in findings[1].seen
    assert check_role("node", AUTHORITY.issue_node("tokyo"), Role.NODE).state is State.OK


def test_a_credential_of_another_mesh_than_the_broker_here_is_told(tmp_path: Path) -> None:
    other = Authority.create(now=NOW)
    _, findings = look_at_credential(saved(tmp_path, other.issue_client("eve", now=NOW)), NOW, TRUST)
    assert states(findings)["credential mesh"] is State.FAILURE


@pytest.mark.parametrize(
    ("day", "state", "said"),
    [
        (-1, State.FAILURE, "valid only from"),
        (1, State.OK, "29 days from now"),
        (21, State.OK, "9 days from now"),
        (26, State.WARNING, "not renewed since 2026-05-21"),
        (31, State.FAILURE, "renewed by itself once its mesh is reached"),
        (70, State.FAILURE, "too long ago to renew it"),
    ],
    ids=["not yet", "fresh", "being renewed", "not renewed", "expired", "long expired"],
)
def test_the_period_is_judged_by_this_machines_clock(day: int, state: State, said: str, tmp_path: Path) -> None:
    then = NOW + dt.timedelta(days=day)
    finding = check_period("credential period", ALICE, then)
    assert (finding.state, said in f"{finding.seen} {finding.remedy}") == (state, True), finding
    usable, _ = look_at_credential(saved(tmp_path, ALICE), then, None)
    assert (usable is not None) == (state is not State.FAILURE)


def test_a_revoked_key_is_told() -> None:
    until = NOW + dt.timedelta(days=60)
    revoked = Revocation(ALICE.node_id, "client", "alice", int(NOW.timestamp()), int(until.timestamp()))
    content = TrustList(
        mesh=AUTHORITY.mesh,
        version=7,
        made_at=int(NOW.timestamp()),
        authorities=TRUST.authorities_der,
        revoked=(revoked,),
    )
    trust = TrustStore(AUTHORITY.mesh, AUTHORITY.certificate_pem, seal_trust(content, [AUTHORITY]))
    finding = check_trust("credential trusted", ALICE, trust, NOW)
    assert (finding.state, "revoked on 2026-05-01" in finding.seen) == (State.FAILURE, True)
    finding = check_trust("credential trusted", AUTHORITY.issue_client("bob"), trust, NOW)
    assert (finding.state, "version 7, 1 keys revoked" in finding.seen) == (State.OK, True)


def test_an_authority_that_ends_is_told_in_time() -> None:
    assert check_trust("trust list", ALICE, TRUST, NOW).state is State.OK
    assert check_trust("trust list", ALICE, TRUST, NOW + dt.timedelta(days=3600)).state is State.WARNING
    assert check_trust("trust list", ALICE, TRUST, NOW + dt.timedelta(days=3700)).state is State.FAILURE


def test_the_node_of_a_data_folder_is_read_without_opening_it(data_dir: Path) -> None:
    with DataFolder.open(data_dir, may_create_authority=True, node_name="tokyo", now=NOW) as opened:
        assert read_node(NodeFiles.of(data_dir)).node_id == opened.node_id  # also while a broker uses it
        trust, findings = look_at_node(data_dir, NOW)
    assert trust is not None
    assert trust.mesh == opened.mesh
    assert set(states(findings).values()) == {State.OK}, findings


@pytest.mark.parametrize(
    ("name", "content", "check"),
    [
        ("node-key.pem", None, "node certificate"),
        ("node-key.pem", b"", "node certificate"),
        ("node.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "node certificate"),
        ("trust.bin", b"no list", "trust list"),
    ],
)
def test_damage_of_a_nodes_files_is_told(data_dir: Path, name: str, content: bytes | None, check: str) -> None:
    DataFolder.open(data_dir, may_create_authority=True, node_name="tokyo", now=NOW).close()
    (data_dir / name).unlink() if content is None else (data_dir / name).write_bytes(content)
    trust, findings = look_at_node(data_dir, NOW)
    assert trust is None
    assert states(findings)[check] is State.FAILURE


def test_a_node_of_another_mesh_than_its_authority_is_told(data_dir: Path) -> None:
    DataFolder.open(data_dir, may_create_authority=True, node_name="tokyo", now=NOW).close()
    assert load_authority(data_dir).mesh != AUTHORITY.mesh
    (data_dir / "authority.pem").write_bytes(AUTHORITY.certificate_pem)
    _, (finding,) = look_at_node(data_dir, NOW)
    assert "not signed by the authority beside it" in finding.seen


def test_files_that_the_settings_name_are_looked_at_in_place_of_the_folders(tmp_path: Path) -> None:
    node = AUTHORITY.issue_node("tokyo", now=NOW)
    files = NodeFiles(tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "a.pem")
    for path, content in zip(files, (node.chain_pem, node.private_key_pem, AUTHORITY.certificate_pem), strict=True):
        path.write_bytes(content)
    trust, findings = look_at_node(tmp_path / "none", NOW, files)
    assert trust is not None
    assert set(states(findings).values()) == {State.OK}, findings
    files.private_key.write_bytes(b"")
    assert look_at_node(tmp_path / "none", NOW, files)[0] is None
