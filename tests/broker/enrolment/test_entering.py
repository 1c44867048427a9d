"""What `--join` and `--authority none` do before the data folder is opened as that of a node."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from quicbus.exceptions import ConnectFailed, CredentialError, DataFolderError
from quicbus.identity import Authority, JoinToken, Role, prepare_node_folder
from quicbus.transport.engines import engine_named
from quicbus_broker.enrolment import enter_mesh
from quicbus_broker.settings import BrokerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

AUTHORITY = Authority.create()
ENGINE = engine_named("aioquic")
NOBODY = "127.0.0.1:9"


def token(role: Role = Role.NODE, authority: Authority = AUTHORITY, valid_s: float = 3600.0) -> str:
    expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=valid_s)
    made = JoinToken.make(authority.mesh, [NOBODY], authority.authorities_der, role, "tokyo", expires_at)
    return made.text


async def test_without_a_token_nothing_is_changed(tmp_path: Path) -> None:
    settings = BrokerSettings(data_dir=tmp_path / "data", seed=("tokyo:1",))
    assert await enter_mesh(settings, ENGINE) == (settings, "")


@pytest.mark.parametrize("valid_s", [3600.0, -3600.0], ids=["valid", "expired"])
async def test_a_node_of_the_mesh_just_starts_with_the_seeds_of_the_token(tmp_path: Path, valid_s: float) -> None:
    prepare_node_folder(AUTHORITY, "tokyo", tmp_path / "data")
    settings = BrokerSettings(data_dir=tmp_path / "data", seed=("lima:1",), join=token(valid_s=valid_s))
    entered, done = await enter_mesh(settings, ENGINE)
    assert entered.seed == ("lima:1", NOBODY)
    assert entered.join == ""
    assert done == "the data folder is that of node tokyo of this mesh already: no token is needed"


async def test_a_node_of_another_mesh_is_refused(tmp_path: Path) -> None:
    prepare_node_folder(Authority.create(), "lima", tmp_path / "data")
    with pytest.raises(DataFolderError, match="name another folder with --data-dir, or start without --join"):
        await enter_mesh(BrokerSettings(data_dir=tmp_path / "data", join=token()), ENGINE)


def in_file(folder: Path) -> str:
    path = folder / "token"
    path.write_text(token(Role.CLIENT))
    return str(path)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (lambda folder: token(Role.CLIENT), "this token is for a client, not for a node: use it with `quicbus cert"),
        (in_file, "this token is for a client"),
        (lambda folder: token(valid_s=-1), "the token expired on"),
        (lambda folder: token()[:-9], "cut off or mistyped"),
        (lambda folder: "qbt7-abc", "no join token: one begins with qbt1-"),
        (lambda folder: str(folder / "missing"), "neither a join token .* nor a file that can be read"),
        (lambda folder: str(folder), "neither a join token"),
    ],
    ids=["for a client", "in a file", "expired", "cut off", "later", "no file", "a folder"],
)
async def test_a_token_that_is_of_no_use_is_refused_and_leaves_nothing(
    tmp_path: Path, given: Callable[[Path], str], why: str
) -> None:
    with pytest.raises(CredentialError, match=why):
        await enter_mesh(BrokerSettings(data_dir=tmp_path / "data", join=given(tmp_path)), ENGINE)
    assert "data" not in {path.name for path in tmp_path.iterdir()}  # noqa: ASYNC240


async def test_where_no_seed_answers_the_key_waits_for_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quicbus.client.enrolment.HANDSHAKE_TIMEOUT_S", 0.2)
    settings = BrokerSettings(data_dir=tmp_path / "data", join=token())
    with pytest.raises(ConnectFailed, match=NOBODY):
        await enter_mesh(settings, ENGINE)
    key = (tmp_path / "data" / "node-key.pem").read_bytes()
    with pytest.raises(ConnectFailed):
        await enter_mesh(settings, ENGINE)
    assert (tmp_path / "data" / "node-key.pem").read_bytes() == key


async def test_authority_none_writes_a_request_and_says_what_to_do_with_it(tmp_path: Path) -> None:
    settings = BrokerSettings(data_dir=tmp_path / "data", authority=Path("none"))
    with pytest.raises(DataFolderError, match=r"node-request.pem is its signing request; .*quicbus cert sign"):
        await enter_mesh(settings, ENGINE)
    assert (tmp_path / "data" / "node-request.pem").exists()
    assert not (tmp_path / "data" / "authority.pem").exists()


async def test_authority_none_leaves_a_node_that_has_its_certificate_alone(tmp_path: Path) -> None:
    prepare_node_folder(AUTHORITY, "tokyo", tmp_path / "data")
    settings = BrokerSettings(data_dir=tmp_path / "data", authority=Path("none"))
    assert await enter_mesh(settings, ENGINE) == (settings, "")
