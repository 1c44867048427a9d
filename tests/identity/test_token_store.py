"""The stored tokens: made, listed, revoked, and redeemed as often as they allow and no more."""

from __future__ import annotations

import datetime as dt
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from quicbus import limits
from quicbus.exceptions import DataFolderError, InvalidSetting
from quicbus.identity import Authority, JoinToken, ProofRefused, Role, TokenStore, make_request
from quicbus.identity.keys import generate_key
from quicbus.identity.token_store import KEEP_DAYS, StoredToken
from quicbus.wire.close_codes import CloseCode
from tests.identity.certificates import DAY, NOW

AUTHORITY = Authority.create(now=NOW)
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path)


def create(
    store: TokenStore, role: Role = Role.NODE, name: str = "osaka", *, uses: int = 1, now: dt.datetime = NOW
) -> JoinToken:
    return store.create(
        mesh=AUTHORITY.mesh,
        seeds=["a.example:4433"],
        authorities=AUTHORITY.authorities_der,
        role=role,
        name=name,
        uses=uses,
        now=now,
    )


def redeem(
    store: TokenStore, token: JoinToken, csr: bytes | None = None, now: dt.datetime = NOW
) -> tuple[StoredToken, str]:
    csr = csr or make_request(generate_key())
    return store.redeem(token.id, csr, token.sign(csr), now, mesh=AUTHORITY.mesh)


def refusal(store: TokenStore, token: JoinToken, csr: bytes | None = None, now: dt.datetime = NOW) -> str:
    with pytest.raises(ProofRefused) as caught:
        redeem(store, token, csr, now)
    assert caught.value.code is CloseCode.TOKEN_REFUSED
    assert "quicbus token create" in caught.value.why
    return caught.value.why


def test_name_and_role_are_those_that_the_token_was_made_for(store: TokenStore) -> None:
    stored, name = redeem(store, create(store, Role.CLIENT, "alice"))
    assert (stored.role, name) == (Role.CLIENT, "alice")


def test_a_token_without_a_name_makes_one_from_the_key(store: TokenStore) -> None:
    token = create(store, Role.CLIENT, "", uses=2)
    names = {redeem(store, token)[1] for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("client-") and len(name) == 15 for name in names)


def test_several_uses_count_the_names(store: TokenStore) -> None:
    token = create(store, name="robot", uses=3)
    assert [redeem(store, token)[1] for _ in range(3)] == ["robot-1", "robot-2", "robot-3"]
    assert "good for joining 3 times and is used up" in refusal(store, token)


def test_one_use_is_one_key(store: TokenStore) -> None:
    token = create(store)
    redeem(store, token)
    assert "good for joining once and is used up" in refusal(store, token)


def test_the_same_key_is_answered_the_same_again_without_using_it_up(store: TokenStore) -> None:
    token, csr = create(store, name="robot", uses=2), make_request(generate_key())
    assert redeem(store, token, csr)[1] == redeem(store, token, csr)[1] == "robot-1"
    assert redeem(store, token)[1] == "robot-2"
    assert redeem(store, token, csr)[1] == "robot-1"


def test_after_its_time_a_token_is_good_for_nobody(store: TokenStore) -> None:
    token, csr = create(store, uses=2), make_request(generate_key())
    redeem(store, token, csr)
    assert "expired on 2026-03-01 13:00 UTC" in refusal(store, token, now=NOW + 61 * MINUTE)
    assert "expired on" in refusal(store, token, csr, NOW + 61 * MINUTE)


def test_a_revoked_token_is_good_for_nobody(store: TokenStore) -> None:
    token, csr = create(store, uses=2), make_request(generate_key())
    redeem(store, token, csr)
    assert [one.id for one in store.revoke(token.id.hex(), NOW)] == [token.id.hex()]
    assert "revoked on 2026-03-01 12:00 UTC" in refusal(store, token)
    assert "revoked on" in refusal(store, token, csr)
    assert store.revoke(token.id.hex(), NOW) == ()


def test_tokens_are_revoked_by_name_or_the_beginning_of_the_id(store: TokenStore) -> None:
    tokens = [create(store, name=name) for name in ("osaka", "osaka", "oslo")]
    assert store.revoke("", NOW) == store.revoke("zzzz", NOW) == ()
    assert {one.id for one in store.revoke("osaka", NOW)} == {one.id.hex() for one in tokens[:2]}
    assert [one.name for one in store.revoke(tokens[2].id.hex()[:6], NOW)] == ["oslo"]


def test_a_token_that_was_never_made_here_is_unknown(store: TokenStore, tmp_path: Path) -> None:
    create(store)
    stranger = create(TokenStore(tmp_path))
    (tmp_path / "tokens.json").write_bytes(b'{"tokens":[]}')
    assert "knows no such join token" in refusal(store, stranger)


def test_a_request_that_the_token_has_not_signed_uses_up_nothing(store: TokenStore) -> None:
    token, csr = create(store), make_request(generate_key())
    other = create(store)
    for signature in (other.sign(csr), token.sign(make_request(generate_key())), token.sign(csr, csr), b""):
        with pytest.raises(ProofRefused, match="not signed by its join token"):
            store.redeem(token.id, csr, signature, NOW, mesh=AUTHORITY.mesh)
    assert store.list()[0].uses_left == 1


def test_what_is_stored_can_not_redeem(store: TokenStore, tmp_path: Path) -> None:
    token = create(store)
    content = (tmp_path / "tokens.json").read_bytes()
    for form in (token.secret, token.secret.hex().encode(), token.text.encode()):
        assert form not in content
    (stored,) = store.list()
    assert stored.public_key == token.public_key


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_what_is_stored_is_for_its_owner_only(store: TokenStore, tmp_path: Path) -> None:
    create(store)
    assert stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600


def test_states_are_told(store: TokenStore) -> None:
    valid, used, revoked = create(store), create(store), create(store)
    redeem(store, used)
    store.revoke(revoked.id.hex(), NOW)
    assert [one.state(NOW) for one in store.list()] == ["valid", "used up", "revoked"]
    assert [one.state(NOW + 2 * 60 * MINUTE) for one in store.list()] == ["expired", "expired", "revoked"]
    assert store.list()[0].id == valid.id.hex()


def test_tokens_are_forgotten_a_week_after_they_expired(store: TokenStore) -> None:
    create(store)
    create(store, now=NOW + KEEP_DAYS * DAY)
    assert len(store.list()) == 2
    create(store, now=NOW + KEEP_DAYS * DAY + 61 * MINUTE)
    assert len(store.list()) == 2


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ("uses", {"uses": 0}),
        ("uses", {"uses": limits.MAX_USES_OF_TOKEN + 1}),
        ("ttl", {"ttl_s": 0.0}),
        ("ttl", {"ttl_s": float("nan")}),
        ("ttl", {"ttl_s": 1e9}),
        ("seed", {"seeds": []}),
        ("seed", {"seeds": ["a:1"] * 17}),
        ("name", {"name": "a/b"}),
        ("name", {"name": "a" * 63, "uses": 2}),
        ("days", {"days": 0.0}),
        ("days", {"days": 1e6}),
    ],
)
def test_what_no_token_can_be_made_for_is_refused(setting: str, changes: dict[str, object], store: TokenStore) -> None:
    facts: dict[str, object] = {"mesh": AUTHORITY.mesh, "seeds": ["a:1"], "authorities": (), "role": Role.NODE}
    with pytest.raises(InvalidSetting) as caught:
        store.create(**{**facts, **changes})  # type: ignore[arg-type]
    assert caught.value.name == setting
    assert store.list() == ()


def test_a_full_store_says_when_there_is_room(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_JOIN_TOKENS", 2)
    create(store)
    create(store)
    with pytest.raises(InvalidSetting, match="7 days after they expire"):
        create(store)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"tokens":[{}]}', b'{"tokens":[' * 500, b"\xff"])
def test_a_damaged_file_is_named_with_the_remedy(content: bytes, store: TokenStore, tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_bytes(content)
    with pytest.raises(DataFolderError, match=r"tokens\.json is damaged .* make new tokens"):
        store.list()


def test_of_many_threads_with_a_single_token_one_wins(store: TokenStore) -> None:
    token, begin = create(store), threading.Barrier(8)
    results: list[str] = []

    def contend() -> None:
        csr = make_request(generate_key())
        begin.wait()
        try:
            results.append(redeem(store, token, csr)[1])
        except ProofRefused as error:
            results.append(error.code.name)

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["TOKEN_REFUSED"] * 7 + ["osaka"]


_CONTENDER = """
import datetime as dt, pathlib, sys
from quicbus.identity import JoinToken, ProofRefused, TokenStore, make_request
from quicbus.identity.keys import generate_key
now = dt.datetime.fromisoformat(sys.argv[3])
token = JoinToken.parse(sys.argv[2], now)
csr = make_request(generate_key())
print("ready", flush=True)
sys.stdin.readline()
try:
    print(TokenStore(pathlib.Path(sys.argv[1])).redeem(token.id, csr, token.sign(csr), now, mesh=token.mesh)[1])
except ProofRefused as error:
    print(error.code.name)
"""


def test_of_two_processes_with_a_single_token_one_wins(store: TokenStore, tmp_path: Path) -> None:
    token = create(store)
    command = [sys.executable, "-c", _CONTENDER, str(tmp_path), token.text, NOW.isoformat()]
    contenders = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        for _ in range(2)
    ]
    for one in contenders:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in contenders:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    results = [one.communicate(timeout=120)[0].strip() for one in contenders]
    assert sorted(results) == ["TOKEN_REFUSED", "osaka"]
