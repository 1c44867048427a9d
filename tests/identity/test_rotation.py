"""One authority follows another: whoever could come back before still can, and a power cut harms nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from quicbus.exceptions import DataFolderError, InvalidSetting
from quicbus.identity import (
    Authority,
    Credential,
    DataFolder,
    IssuedLog,
    TrustStore,
    load_authority,
    prepare_node_folder,
)
from quicbus.identity.by_hand import prepare_authority_folder
from quicbus.identity.folder_trust import read_trust
from quicbus.identity.rotation import OVERLAP_DAYS, Rotation, advance_rotation, read_rotation, start_rotation
from tests.identity.certificates import DAY, NOW, certificate_of

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

SWITCH = NOW + OVERLAP_DAYS * DAY
LEAVE = SWITCH + 61 * DAY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    DataFolder.open(tmp_path / "data", may_create_authority=True, node_name="tokyo", now=NOW).close()
    return tmp_path / "data"


def trusted(folder: Path) -> list[str]:
    """Return the key ids of the authorities, and see that the file and the list say the same."""
    authority = load_authority(folder)
    trust = read_trust(folder, authority.mesh, authority.authorities_pem)
    assert trust.authorities_pem == (folder / "authority.pem").read_bytes()
    return [Authority.load(authority_key_of(folder, one)).key_id.hex() for one in trust.authorities]


def authority_key_of(folder: Path, certificate: object) -> bytes:
    for name in ("authority-key.pem", "authority-next-key.pem", "authority-old-key.pem"):
        if (folder / name).exists():
            data = (folder / name).read_bytes() + pem_of(certificate)
            try:
                Authority.load(data)
            except Exception:  # noqa: S112  # the key of another one
                continue
            return data
    raise AssertionError("no key of a trusted authority")


def pem_of(certificate: object) -> bytes:
    from quicbus.identity import pem

    return pem.join([certificate])  # type: ignore[list-item]


def issuing(folder: Path) -> str:
    return load_authority(folder).key_id.hex()


def test_the_next_authority_is_trusted_at_once_and_issues_after_the_overlap(folder: Path) -> None:
    old = issuing(folder)
    rotation = start_rotation(folder, NOW)
    assert rotation == Rotation(
        old=old, next=rotation.next, started_at=int(NOW.timestamp()), switch_at=int(SWITCH.timestamp())
    )
    assert trusted(folder) == [old, rotation.next]
    assert not advance_rotation(folder, SWITCH - DAY)
    assert issuing(folder) == old
    assert advance_rotation(folder, SWITCH)
    assert issuing(folder) == rotation.next
    assert trusted(folder) == [rotation.next, old]
    assert not advance_rotation(folder, SWITCH + DAY)


def test_the_overlap_is_as_long_as_any_certificate_can_be_renewed(folder: Path) -> None:
    authority = load_authority(folder)
    robot = authority.issue_client("robot", days=200, now=NOW)
    IssuedLog(folder).add(authority, robot.chain_der[0], now=NOW)
    assert start_rotation(folder, NOW).switch_at == int((NOW + 230 * DAY).timestamp())


def test_an_authority_near_its_end_is_followed_before_it_can_issue_only_short_certificates(tmp_path: Path) -> None:
    prepare_authority_folder(tmp_path / "office", days=70, now=NOW)
    assert start_rotation(tmp_path / "office", NOW).switch_at == int((NOW + 40 * DAY).timestamp())


def test_the_mesh_keeps_its_id_and_members_keep_theirs(folder: Path) -> None:
    before = load_authority(folder)
    start_rotation(folder, NOW, overlap_days=0)
    after = load_authority(folder)
    assert after.mesh == before.mesh
    assert after.key_id != before.key_id
    with DataFolder.open(folder, may_create_authority=True, now=NOW) as opened:
        assert opened.node.chain_pem == (folder / "node.pem").read_bytes()
        assert opened.trust.authorities == after.authorities


def test_the_old_authority_leaves_when_nothing_of_it_can_be_renewed(folder: Path) -> None:
    old = load_authority(folder)
    start_rotation(folder, NOW, overlap_days=OVERLAP_DAYS)
    longest = old.issue_client("robot", days=200, now=NOW)
    IssuedLog(folder).add(old, longest.chain_der[0], now=NOW)
    advance_rotation(folder, SWITCH)
    assert not advance_rotation(folder, NOW + 229 * DAY)
    assert advance_rotation(folder, NOW + 231 * DAY)
    assert trusted(folder) == [issuing(folder)]
    assert read_rotation(folder) is None
    assert not (folder / "authority-old-key.pem").exists()
    assert not (folder / "authority-next-key.pem").exists()


def test_without_a_log_the_old_authority_stays_as_long_as_a_usual_certificate(folder: Path) -> None:
    start_rotation(folder, NOW)
    (folder / "issued.jsonl").unlink()
    advance_rotation(folder, SWITCH)
    assert not advance_rotation(folder, LEAVE - 2 * DAY)
    assert advance_rotation(folder, LEAVE)


def test_who_was_away_the_whole_time_takes_the_latest_list(folder: Path, tmp_path: Path) -> None:
    away = prepare_node_folder(load_authority(folder), "osaka", tmp_path / "osaka", issued_by=folder)
    start_rotation(folder, NOW)
    advance_rotation(folder, SWITCH)
    latest = (folder / "trust.bin").read_bytes()
    store = TrustStore(away.mesh, away.authority_pem)
    assert store.take(latest, SWITCH)
    assert len(store.authorities) == 2


def test_whoever_kept_up_takes_the_list_without_the_old_authority(folder: Path) -> None:
    store = TrustStore(load_authority(folder).mesh, (folder / "authority.pem").read_bytes())
    start_rotation(folder, NOW)
    for moment in (NOW, SWITCH, LEAVE):
        advance_rotation(folder, moment)
        assert store.take((folder / "trust.bin").read_bytes(), moment)
    assert [one.public_bytes for one in store.authorities] != []
    assert store.authorities_pem == (folder / "authority.pem").read_bytes()
    assert certificate_of(store.authorities_pem) == load_authority(folder).authorities[0]


def test_a_second_rotation_waits_for_the_first(folder: Path) -> None:
    start_rotation(folder, NOW)
    with pytest.raises(DataFolderError, match="the next one does not issue yet"):
        start_rotation(folder, NOW + DAY)
    advance_rotation(folder, SWITCH)
    with pytest.raises(DataFolderError, match="the old one is still trusted"):
        start_rotation(folder, SWITCH)
    advance_rotation(folder, LEAVE)
    start_rotation(folder, LEAVE)
    assert len(trusted(folder)) == 2


@pytest.mark.parametrize("days", [-1.0, 3651.0, float("nan")])
def test_an_overlap_that_is_none_is_refused(days: float, folder: Path) -> None:
    with pytest.raises(InvalidSetting, match="0 to 3650"):
        start_rotation(folder, NOW, overlap_days=days)
    assert read_rotation(folder) is None


def test_only_the_folder_of_the_authority_rotates(folder: Path, tmp_path: Path) -> None:
    prepare_node_folder(load_authority(folder), "osaka", tmp_path / "osaka")
    with pytest.raises(DataFolderError, match="no authority's key"):
        start_rotation(tmp_path / "osaka", NOW)


def test_a_running_broker_takes_the_steps_by_itself(folder: Path) -> None:
    with DataFolder.open(folder, may_create_authority=True, now=NOW) as opened:
        old = opened.authority
        assert old is not None
        start_rotation(folder, NOW)
        assert opened.reload(NOW).authorities
        assert not opened.reload(SWITCH - DAY)
        changes = opened.reload(SWITCH)
        assert changes.authority
        assert changes.trust
        opened.renew(SWITCH)
        assert opened.authority is not None
        assert opened.authority.key_id != old.key_id
        assert opened.node.not_after == SWITCH + 30 * DAY
        certificate_of(opened.node.chain_pem).verify_directly_issued_by(opened.authority.authorities[0])
        assert opened.reload(LEAVE + DAY).authorities
        assert len(opened.trust.authorities) == 1
        assert opened.node.authority_pem == opened.authority.certificate_pem
        assert not opened.reload(LEAVE + 2 * DAY)


def test_a_broker_that_was_off_the_whole_time_takes_all_steps_when_it_starts(folder: Path) -> None:
    old = load_authority(folder)
    start_rotation(folder, NOW)
    with DataFolder.open(folder, may_create_authority=True, now=LEAVE) as opened:
        assert opened.authority is not None
        assert opened.authority.key_id != old.key_id
        assert opened.trust.authorities == opened.authority.authorities
        assert opened.node.name == "tokyo"
        assert Credential.load(opened.credential_path, now=LEAVE).authority_pem == opened.node.authority_pem


class Cut(Exception):
    """The power went."""


@pytest.mark.parametrize("moment", [NOW, SWITCH, LEAVE], ids=["start", "switch", "leave"])
@pytest.mark.parametrize("nth", range(6))
def test_after_a_power_cut_the_next_attempt_goes_on(
    nth: int, moment: dt.datetime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = issuing(folder)

    def step() -> None:
        if moment is NOW and read_rotation(folder) is None:
            start_rotation(folder, NOW)
        advance_rotation(folder, moment)

    if moment is not NOW:
        start_rotation(folder, NOW)
    if moment is LEAVE:
        advance_rotation(folder, SWITCH)
    countdown, replace = nth, os.replace

    def failing(*paths: str) -> None:
        nonlocal countdown
        countdown -= 1
        if countdown < 0:
            raise Cut
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        try:
            step()
        except Cut:
            pass
    node_id = Credential.from_pem((folder / "credential.pem").read_bytes(), now=NOW).node_id
    with DataFolder.open(folder, may_create_authority=True, now=moment) as opened:
        assert opened.node.name == "tokyo"
        assert Credential.load(opened.credential_path, now=moment).node_id == node_id
    step()
    count = {NOW: 2, SWITCH: 2, LEAVE: 1}[moment]
    assert len(trusted(folder)) == count
    assert (issuing(folder) == before) is (moment is NOW)
    assert not any(path.name.endswith("next-key.pem") for path in folder.iterdir()) or moment is NOW
