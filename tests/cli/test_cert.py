"""`quicbus cert` on data folders, also while a broker uses them."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import DataFolder
from quicbus.testing.launcher import Ended, run_quicbus

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with DataFolder.open(tmp_path / "data", may_create_authority=True):
        pass
    return tmp_path / "data"


def cert(folder: Path, *arguments: str) -> Ended:
    return run_quicbus("cert", *arguments, environment={"QUICBUS_DATA_DIR": str(folder)}, cwd=folder.parent)


def test_issued_credential_is_private_and_shown(folder: Path) -> None:
    issued = cert(folder, "issue", "--client", "alice", "--out", "alice.pem", "--json")
    assert issued.code == 0
    facts = json.loads(issued.stdout)
    assert (facts["path"], facts["role"], facts["name"]) == ("alice.pem", "client", "alice")
    path = folder.parent / "alice.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (shown,) = json.loads(cert(folder, "show", "alice.pem", "--json").stdout)
    assert (shown["name"], shown["role"], shown["has_private_key"]) == ("alice", "client", True)
    assert shown["mesh"] == facts["mesh"]
    assert "for          client alice" in cert(folder, "show", "alice.pem").stdout


def test_existing_credential_is_replaced_only_with_force(folder: Path) -> None:
    assert cert(folder, "issue", "--client", "alice").code == 0
    before = (folder.parent / "alice.pem").read_bytes()
    again = cert(folder, "issue", "--client", "alice")
    assert (again.code, again.stderr) == (1, "quicbus: alice.pem exists; --force replaces it\n")
    assert cert(folder, "issue", "--client", "alice", "--force").code == 0
    assert (folder.parent / "alice.pem").read_bytes() != before


def test_node_gets_a_data_folder_without_the_authoritys_key(folder: Path) -> None:
    assert cert(folder, "issue", "--node", "tokyo", "--out", "tokyo").code == 0
    names = {path.name for path in (folder.parent / "tokyo").iterdir()}
    assert names == {"authority.pem", "node.pem", "node-key.pem", "credential.pem"}
    shown = json.loads(cert(folder, "show", "tokyo", "--json").stdout)
    assert [each["role"] for each in shown] == ["authority", "node", "client"]


def test_days_are_obeyed(folder: Path) -> None:
    assert cert(folder, "issue", "--client", "bob", "--days", "3").code == 0
    (shown,) = json.loads(cert(folder, "show", "bob.pem", "--json").stdout)
    assert shown["days_left"] == 2


def test_folder_in_use_is_read_all_the_same(folder: Path) -> None:
    with DataFolder.open(folder, may_create_authority=True):
        assert cert(folder, "show").code == 0
        assert cert(folder, "issue", "--client", "carol").code == 0


def test_folder_without_authority_names_the_remedy(tmp_path: Path) -> None:
    ended = cert(tmp_path / "empty", "issue", "--client", "alice")
    assert ended.code == 1
    assert "quicbus broker" in ended.stderr


def test_name_that_no_certificate_can_carry_is_wrong_usage(folder: Path) -> None:
    ended = cert(folder, "issue", "--client", "a/b")
    assert ended.code == 2
    assert ended.stderr.count("\n") == 1
