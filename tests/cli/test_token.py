"""`quicbus token create`, `list` and `revoke`."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from quicbus.exceptions import InvalidSetting
from quicbus.identity import DataFolder, JoinToken, Role, TokenStore, make_request
from quicbus.identity.keys import generate_key
from quicbus_cli.token import parse_time
from tests.cli.commands import quicbus
from tests.cli.in_process import Here

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.testing.launcher import BrokerProcess

SEED = ("--seed", "a.example:4433")


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    DataFolder.open(tmp_path / "data", may_create_authority=True, node_name="tokyo").close()
    return Here(capsys, tmp_path / "data", monkeypatch)


def redeem(here: Here, token: JoinToken) -> str:
    csr = make_request(generate_key())
    now = dt.datetime.now(dt.UTC)
    return TokenStore(here.folder).redeem(token.id, csr, token.sign(csr), now, mesh=token.mesh)[1]


@pytest.mark.parametrize(
    ("role", "command"), [("node", "quicbus broker --join TOKEN"), ("client", "quicbus cert enroll TOKEN")]
)
def test_the_token_stands_alone_on_stdout_and_its_use_beside_it(role: str, command: str, here: Here) -> None:
    assert here.run("token", "create", "--role", role, *SEED) == 0
    assert here.stdout.count("\n") == 1
    token = JoinToken.parse(here.stdout)
    assert (token.role, token.seeds) == (Role(role), ("a.example:4433",))
    assert command in here.stderr
    assert token.id.hex() in here.stderr


def test_a_token_has_what_was_asked_for(here: Here) -> None:
    made = here.json(
        "token", "create", "--name", "robot", "--uses", "3", "--ttl", "2d", "--days", "7", *SEED, "--seed", "[::1]:4433"
    )
    token = JoinToken.parse(made["token"])
    assert (token.name, token.id.hex()) == ("robot", made["id"])
    assert token.seeds == ("a.example:4433", "[::1]:4433")
    (stored,) = TokenStore(here.folder).list()
    assert (stored.uses, stored.days, stored.expires_at - stored.created_at) == (3, 7.0, 2 * 86_400)
    assert redeem(here, token) == "robot-1"


def test_tokens_are_listed_with_who_used_them_and_revoked(here: Here) -> None:
    made = here.json("token", "create", "--name", "robot", "--uses", "2", *SEED)
    token = JoinToken.parse(made["token"])
    redeem(here, token)
    (row,) = here.json("token", "list")
    assert (row["id"], row["state"], row["uses"], row["uses_left"]) == (made["id"], "valid", 2, 1)
    assert [one["name"] for one in row["used_by"]] == ["robot-1"]
    assert row["expires_at"] == made["expires_at"]
    assert here.run("token", "list") == 0
    assert "1 of 2" in here.stdout
    assert token.secret.hex() not in here.stdout
    (revoked,) = here.json("token", "revoke", made["id"][:6])
    assert revoked["state"] == "revoked"
    assert "no valid token with this id or name" in here.refusal("token", "revoke", made["id"])


def test_tokens_are_revoked_by_name(here: Here) -> None:
    for name in ("robot", "robot", "other"):
        here.json("token", "create", "--name", name, *SEED)
    assert here.run("token", "revoke", "robot") == 0
    assert here.stdout.count("revoked token") == 2
    assert [one["state"] for one in here.json("token", "list")] == ["revoked", "revoked", "valid"]


def test_without_a_broker_and_a_seed_the_remedy_is_named(here: Here) -> None:
    why = here.refusal("token", "create", "--url", "quic://127.0.0.1:9", "--connect-timeout", "0.3")
    assert "--seed HOST:PORT" in why
    assert TokenStore(here.folder).list() == ()


def test_only_where_the_authority_is_tokens_are_made(here: Here, tmp_path: Path) -> None:
    for command in (["create", *SEED], ["list"], ["revoke", "x"]):
        assert "no authority in it" in here.refusal("token", *command, "--data-dir", str(tmp_path / "missing"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seed", "nohost"],
        ["--seed", "a:0"],
        ["--seed", "a:b:1"],
        ["--seed", "a b:1"],
        ["--seed", "a/b:1"],
        [*SEED, "--ttl", "soon"],
        [*SEED, "--ttl", "0s"],
        [*SEED, "--ttl", "400d"],
        [*SEED, "--uses", "0"],
        [*SEED, "--uses", "100000"],
        [*SEED, "--name", "a/b"],
        [*SEED, "--days", "9999"],
        [*SEED, "--role", "king"],
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], here: Here) -> None:
    here.refusal("token", "create", *arguments, code=2)
    assert TokenStore(here.folder).list() == ()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("1h", 3600), (" 7d ", 604_800)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "90", "-1h", "1w", "1 h", "1e3", "nan", "9" * 20])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting):
        parse_time(text)


def test_a_running_broker_tells_where_to_join(shared_broker: BrokerProcess) -> None:
    ended = quicbus(shared_broker, "token", "create", "--name", "osaka")
    assert ended.code == 0, ended.stderr
    token = JoinToken.parse(ended.stdout)
    assert token.seeds[0] == shared_broker.url.removeprefix("quic://")
    assert "on this machine only" in ended.stderr
