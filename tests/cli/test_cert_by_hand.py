"""`quicbus cert authority`, `request`, `sign` and `install`: the way of a certificate whose authority is offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus.identity import Credential, DataFolder
from tests.cli.in_process import Here

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    here = Here(capsys, tmp_path / "office", monkeypatch)
    assert here.run("cert", "authority", "--out", "office") == 0
    assert "quicbus cert sign" in here.stdout
    return here


def commands(here: Here) -> list[list[str]]:
    """Return the commands that the last one has told to run next."""
    lines = [line.partition("quicbus ")[2] for line in here.stdout.splitlines() if "quicbus " in line]
    return [line.split() for line in lines]


def test_a_node_is_made_by_following_what_the_commands_say(here: Here, tmp_path: Path) -> None:
    assert here.run("cert", "request", "--node", "osaka") == 0
    sign, install = commands(here)
    sign[2] = "osaka/node-request.pem"
    assert here.run(*["osaka" if word == "NAME" else word for word in sign]) == 0, here.stderr
    assert here.run(*install) == 0, here.stderr
    with DataFolder.open(tmp_path / "osaka", may_create_authority=False) as folder:
        assert folder.node.name == "osaka"


def test_a_client_is_made_by_following_what_the_commands_say(here: Here, tmp_path: Path) -> None:
    assert here.run("cert", "request", "--client", "alice.pem") == 0
    sign, install = commands(here)
    assert here.run(*["alice" if word == "NAME" else word for word in sign]) == 0, here.stderr
    assert here.run(*install) == 0, here.stderr
    assert Credential.load(tmp_path / "alice.pem").name == "alice"
    assert not (tmp_path / "alice.key.pem").exists()


def test_programs_get_the_facts(here: Here) -> None:
    assert here.json("cert", "request", "--client", "alice.pem") == {"path": "alice.request.pem", "role": "client"}
    signed = here.json("cert", "sign", "alice.request.pem", "--client", "alice", "--out", "a.pem", "--days", "3")
    assert (signed["role"], signed["name"], signed["path"]) == ("client", "alice", "a.pem")
    installed = here.json("cert", "install", "a.pem", "--client", "alice.pem")
    assert (installed["name"], installed["not_after"]) == ("alice", signed["not_after"])
    assert here.json("cert", "authority", "--out", "second")["mesh"] != signed["mesh"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["request"],
        ["request", "--node", "a", "--client", "b"],
        ["sign", "r.pem", "--out", "o.pem"],
        ["sign", "r.pem", "--node", "a", "--client", "b", "--out", "o.pem"],
        ["sign", "r.pem", "--node", "a"],
        ["install", "s.pem"],
        ["install", "s.pem", "--node", "a", "--client", "b"],
        ["authority"],
        ["authority", "--out", "x", "--days", "0"],
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], here: Here) -> None:
    here.refusal("cert", *arguments, code=2)


def test_a_private_key_is_not_overwritten(here: Here, tmp_path: Path) -> None:
    here.run("cert", "request", "--client", "alice.pem")
    key = (tmp_path / "alice.key.pem").read_bytes()
    why = here.refusal("cert", "sign", "alice.request.pem", "--client", "alice", "--out", "alice.key.pem")
    assert "holds a private key" in why
    assert (tmp_path / "alice.key.pem").read_bytes() == key


def test_what_an_offline_authority_revokes_gets_to_the_mesh_by_one_file(here: Here, tmp_path: Path) -> None:
    here.json("cert", "request", "--node", "osaka")
    here.json("cert", "sign", "osaka/node-request.pem", "--node", "osaka", "--out", "signed.pem")
    here.json("cert", "install", "signed.pem", "--node", "osaka")
    with DataFolder.open(tmp_path / "osaka", may_create_authority=False) as folder:
        assert here.run("cert", "revoke", "ab" * 16) == 0
        assert f"copy {here.folder / 'trust.bin'} into the data folder of any broker" in here.stdout
        (tmp_path / "osaka" / "trust.bin").write_bytes((here.folder / "trust.bin").read_bytes())
        assert folder.reload().trust
        assert folder.trust.revocation(b"\xab" * 16) is not None


def test_missing_and_wrong_files_are_named(here: Here, tmp_path: Path) -> None:
    assert "missing.pem: can't be read" in here.refusal("cert", "sign", "missing.pem", "--node", "a", "--out", "o.pem")
    (tmp_path / "text.pem").write_text("hello")
    assert "quicbus cert request" in here.refusal("cert", "sign", "text.pem", "--node", "a", "--out", "o.pem")
    here.run("cert", "request", "--client", "alice.pem")
    assert "without its authority" in here.refusal("cert", "install", "text.pem", "--client", "alice.pem")
    assert not (tmp_path / "o.pem").exists()
