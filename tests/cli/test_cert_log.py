"""`quicbus cert list`, `revoke` and `rotate`, beside the folder of a broker."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import DataFolder, Role, TokenStore, load_authority, make_request
from quicbus.identity.keys import generate_key
from tests.cli.in_process import Here

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    DataFolder.open(tmp_path / "data", may_create_authority=True, node_name="tokyo").close()
    return Here(capsys, tmp_path / "data", monkeypatch)


def test_what_was_issued_is_listed_with_its_state(here: Here) -> None:
    here.json("cert", "issue", "--client", "alice")
    here.json("cert", "issue", "--node", "osaka")
    rows = here.json("cert", "list")
    assert [(row["role"], row["name"], row["state"]) for row in rows][-3:] == [
        ("client", "alice", "valid"),
        ("node", "osaka", "valid"),
        ("client", "osaka", "valid"),
    ]
    assert here.run("cert", "list") == 0
    assert "osaka" in here.stdout
    assert rows[0]["key"] in here.stdout


def test_revoked_by_name_a_client_is_in_the_list_that_the_broker_picks_up(here: Here) -> None:
    key = here.json("cert", "issue", "--client", "alice")["id"]
    with DataFolder.open(here.folder, may_create_authority=True) as folder:
        assert here.json("cert", "revoke", "alice") == [{"role": "client", "name": "alice", "key": key}]
        assert folder.reload().trust
        assert folder.trust.revocation(bytes.fromhex(key)) is not None
    (row,) = [row for row in here.json("cert", "list") if row["name"] == "alice"]
    assert row["state"] == "revoked"
    assert row["revoked_at"]


def test_files_and_key_ids_revoke_as_well(here: Here) -> None:
    alice, bob = (here.json("cert", "issue", "--client", name)["id"] for name in ("alice", "bob"))
    found = here.json("cert", "revoke", "alice.pem", bob, "cd" * 16)
    assert [one["key"] for one in found] == [alice, bob, "cd" * 16]
    assert here.json("cert", "list")[-1]["key"] == "cd" * 16
    assert here.run("cert", "revoke", "alice") == 0
    assert f"revoked client alice ({alice})" in here.stdout


def test_the_own_node_is_revoked_only_with_force(here: Here) -> None:
    for which in ("tokyo", str(here.folder / "node.pem")):
        assert "--force" in here.refusal("cert", "revoke", which)
    assert not (here.folder / "trust.bin").exists()
    assert here.run("cert", "revoke", "node/tokyo", "--force") == 0


def test_nobody_is_revoked_where_one_of_several_names_is_unknown(here: Here) -> None:
    here.json("cert", "issue", "--client", "alice")
    assert "quicbus cert list" in here.refusal("cert", "revoke", "alice", "nobody")
    assert not (here.folder / "trust.bin").exists()


def test_a_token_that_would_let_the_revoked_back_in_is_named(here: Here) -> None:
    authority, store = load_authority(here.folder), TokenStore(here.folder)
    now = dt.datetime.now(dt.UTC)
    token = store.create(
        mesh=authority.mesh,
        seeds=["a:1"],
        authorities=(),
        role=Role.CLIENT,
        name="robot",
        uses=2,
    )
    key = generate_key()
    csr = make_request(key)
    store.redeem(token.id, csr, token.sign(csr), now, mesh=authority.mesh)
    (used,) = store.list()[0].used_by
    assert here.run("cert", "revoke", used) == 0
    assert f"quicbus token revoke {token.id.hex()}" in here.stderr


def test_rotation_is_begun_once_and_told(here: Here) -> None:
    assert here.json("cert", "rotate", "--status")["under_way"] is False
    begun = here.json("cert", "rotate", "--overlap", "10")
    assert (begun["under_way"], begun["has_switched"]) == (True, False)
    assert begun["old"] == load_authority(here.folder).key_id.hex()
    assert here.json("cert", "rotate", "--status") == begun
    assert "wait until it is done" in here.refusal("cert", "rotate")
    assert here.run("cert", "rotate", "--status") == 0
    assert f"authority {begun['next']} is trusted now and issues from" in here.stdout
    assert len(here.json("cert", "show", str(here.folder))) == 4


def test_rotated_without_an_overlap_the_new_authority_issues(here: Here) -> None:
    begun = here.json("cert", "rotate", "--overlap", "0")
    assert "60 days lock out nobody" in here.stderr
    assert begun["has_switched"]
    assert load_authority(here.folder).key_id.hex() == begun["next"]
    here.json("cert", "issue", "--client", "alice")
    assert here.json("cert", "list")[-1]["authority"] == begun["next"]


def test_a_folder_without_the_authoritys_key_names_the_remedy(here: Here, tmp_path: Path) -> None:
    for command in (["list"], ["revoke", "alice"], ["rotate"], ["rotate", "--status"]):
        assert "no authority in it" in here.refusal("cert", *command, "--data-dir", str(tmp_path / "missing"))
