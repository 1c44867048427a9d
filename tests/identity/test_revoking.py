"""Which keys a name, a file or a key id stands for, and how long each is remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus.exceptions import CredentialError
from quicbus.identity import Authority, IssuedLog, Revocation
from quicbus.identity.revoking import keys_of_file, keys_of_name
from tests.identity.certificates import DAY, NOW

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    from quicbus.identity import Credential

AUTHORITY = Authority.create(now=NOW)


def issue(
    folder: Path, name: str, *, is_node: bool = False, now: dt.datetime = NOW, like: Credential | None = None
) -> Credential:
    make = AUTHORITY.issue_node if is_node else AUTHORITY.issue_client
    credential = make(name, now=now, key=like.private_key if like else None)
    IssuedLog(folder).add(AUTHORITY, credential.chain_der[0], now=now)
    return credential


def seconds(when: dt.datetime) -> int:
    return int(when.timestamp())


def names(folder: Path, which: str, now: dt.datetime = NOW) -> list[bytes]:
    return [one.key_id for one in keys_of_name(folder, AUTHORITY, which, now)]


def test_a_name_stands_for_all_its_keys_that_still_matter(tmp_path: Path) -> None:
    old, first, second = (issue(tmp_path, "alice", now=NOW + days * DAY) for days in (-61, 0, 0))
    issue(tmp_path, "bob")
    assert names(tmp_path, "alice") == [first.node_id, second.node_id]
    assert old.node_id not in names(tmp_path, "alice")


def test_a_name_of_a_node_stands_for_its_local_credential_too(tmp_path: Path) -> None:
    node, local = issue(tmp_path, "tokyo", is_node=True), issue(tmp_path, "tokyo")
    assert names(tmp_path, "tokyo") == [node.node_id, local.node_id]
    assert names(tmp_path, "node/tokyo") == [node.node_id]
    assert names(tmp_path, "client/tokyo") == [local.node_id]


def test_a_key_is_remembered_until_its_last_certificate_can_not_be_renewed(tmp_path: Path) -> None:
    alice = issue(tmp_path, "alice")
    issue(tmp_path, "alice", now=NOW + 20 * DAY, like=alice)
    (revocation,) = keys_of_name(tmp_path, AUTHORITY, "alice", NOW + 21 * DAY)
    assert revocation == Revocation(
        alice.node_id, "client", "alice", seconds(NOW + 21 * DAY), seconds(NOW + (20 + 30 + 30) * DAY)
    )


def test_a_key_id_is_taken_whether_it_is_in_the_log_or_not(tmp_path: Path) -> None:
    alice = issue(tmp_path, "alice")
    assert names(tmp_path, alice.node_id.hex()) == [alice.node_id]
    (unknown,) = keys_of_name(tmp_path, AUTHORITY, "AB" * 16, NOW)
    assert unknown == Revocation(b"\xab" * 16, "", "", seconds(NOW), seconds(AUTHORITY.not_after + 30 * DAY))


@pytest.mark.parametrize("which", ["nobody", "node/alice", "", "abcd"])
def test_nobody_is_an_error_that_says_where_to_look(which: str, tmp_path: Path) -> None:
    issue(tmp_path, "alice")
    with pytest.raises(CredentialError, match="quicbus cert list"):
        names(tmp_path, which)


def test_what_has_expired_for_good_need_not_be_revoked(tmp_path: Path) -> None:
    issue(tmp_path, "alice")
    with pytest.raises(CredentialError, match="expired for good"):
        names(tmp_path, "alice", NOW + 61 * DAY)


def test_a_file_stands_for_its_key(tmp_path: Path) -> None:
    alice = issue(tmp_path, "alice")
    issue(tmp_path, "alice", now=NOW + 5 * DAY, like=alice)
    for data in (alice.to_pem(), alice.chain_pem):
        (revocation,) = keys_of_file(tmp_path, data, "alice.pem", AUTHORITY.mesh, NOW)
        assert revocation.key_id == alice.node_id
        assert revocation.until == seconds(NOW + 65 * DAY)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    cases = {
        "no certificate of a node or client": AUTHORITY.certificate_pem,
        "it is of mesh": Authority.create(now=NOW).issue_client("alice", now=NOW).to_pem(),
    }
    for why, data in cases.items():
        with pytest.raises(CredentialError, match=f"^alice.pem: {why}"):
            keys_of_file(tmp_path, data, "alice.pem", AUTHORITY.mesh, NOW)
