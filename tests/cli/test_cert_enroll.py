"""`quicbus cert enroll`; the node that answers is a function here, with a real token store behind it."""

from __future__ import annotations

import datetime as dt
import stat
from typing import TYPE_CHECKING

import pytest

from quicbus.client.enrolment import Answer, CertificateOffice
from quicbus.exceptions import ConnectFailed, CredentialRefused
from quicbus.identity import Credential, DataFolder, Issuer, IssueRequest, JoinToken, ProofRefused, load_authority
from tests.cli.in_process import Here

if TYPE_CHECKING:
    from pathlib import Path

SEED = "tokyo.example:4433"


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    folder = tmp_path / "data"
    DataFolder.open(folder, may_create_authority=True).close()

    async def join(self: CertificateOffice, token: JoinToken, csr: bytes, local_csr: bytes = b"") -> Answer:
        request = IssueRequest(csr=csr, token_id=token.id, signature=token.sign(csr))
        try:
            issued = Issuer(folder, load_authority(folder)).answer(request, dt.datetime.now(dt.UTC))
        except ProofRefused as error:
            raise CredentialRefused(error.code, error.why) from None
        return Answer(issued, (f"quic://{SEED}",))

    monkeypatch.setattr(CertificateOffice, "join", join)
    return Here(capsys, folder, monkeypatch)


def token(here: Here, *options: str) -> str:
    text: str = here.json("token", "create", "--role", "client", "--seed", SEED, *options)["token"]
    return text


def test_a_token_becomes_a_private_file_with_the_name_of_the_token(here: Here, tmp_path: Path) -> None:
    assert here.run("cert", "enroll", token(here, "--name", "alice")) == 0
    assert here.stdout.startswith("alice.pem: client alice, valid until ")
    assert f"quicbus sub 'sensors/#' --url quic://{SEED} --credentials alice.pem" in here.stdout
    assert stat.S_IMODE((tmp_path / "alice.pem").stat().st_mode) == 0o600
    assert Credential.load(tmp_path / "alice.pem").name == "alice"
    assert [path.name for path in tmp_path.glob("*.pem")] == ["alice.pem"]


def test_a_token_may_stand_in_a_file_and_a_name_be_made(here: Here, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token(here) + "\n")
    facts = here.json("cert", "enroll", "token")
    assert (facts["path"], facts["role"], facts["brokers"]) == ("credential.pem", "client", [f"quic://{SEED}"])
    assert facts["name"].startswith("client-")


def test_a_file_that_is_there_is_replaced_only_with_force(here: Here, tmp_path: Path) -> None:
    (tmp_path / "alice.pem").write_text("mine")
    text = token(here, "--name", "alice")
    assert here.refusal("cert", "enroll", text) == "quicbus: alice.pem exists; --force replaces it\n"
    assert here.run("cert", "enroll", text, "--force") == 0, "nothing was used up"


def test_a_token_for_a_node_is_sent_to_the_broker(here: Here) -> None:
    text = here.json("token", "create", "--seed", SEED)["token"]
    assert "use it with `quicbus broker --join TOKEN`" in here.refusal("cert", "enroll", text)


def test_after_a_lost_answer_the_same_command_works(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = token(here, "--name", "alice")
    answering = CertificateOffice.join

    async def lost(self: CertificateOffice, token: JoinToken, csr: bytes, local_csr: bytes = b"") -> Answer:
        await answering(self, token, csr, local_csr)
        raise ConnectFailed([(f"quic://{SEED}", "no answer")])

    with monkeypatch.context() as patched:
        patched.setattr(CertificateOffice, "join", lost)
        assert "no answer" in here.refusal("cert", "enroll", text)
    assert here.run("cert", "enroll", text) == 0, here.stderr
    assert [path.name for path in tmp_path.glob("*.pem")] == ["alice.pem"]


@pytest.mark.parametrize("given", ["", " "])
def test_an_empty_token_is_named_so(here: Here, given: str) -> None:
    assert "the join token is empty; give the one that `quicbus token create`" in here.refusal("cert", "enroll", given)


def test_half_a_token_is_named_so(here: Here) -> None:
    text = token(here)
    assert "cut off or mistyped; copy the whole line" in here.refusal("cert", "enroll", text[: len(text) // 2])


def test_where_nobody_answers_the_remedy_is_that_of_joining(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(self: CertificateOffice, token: JoinToken, csr: bytes, local_csr: bytes = b"") -> Answer:
        raise ConnectFailed([(f"quic://{SEED}", "no answer")], "is it plugged in?")

    monkeypatch.setattr(CertificateOffice, "join", nobody)
    assert here.refusal("cert", "enroll", token(here)) == (
        f"quicbus: could not connect: quic://{SEED}: no answer; is it plugged in?\n"
    )


def test_a_folder_that_is_not_there_is_named_with_the_remedy(here: Here) -> None:
    said = here.refusal("cert", "enroll", token(here), "--out", "missing/alice.pem")
    assert "missing: the credential can't be written there: No such file or directory; make its folder first" in said


def test_a_token_that_is_used_up_is_refused_and_leaves_no_key(here: Here, tmp_path: Path) -> None:
    text = token(here, "--name", "alice")
    assert here.run("cert", "enroll", text) == 0
    assert "is used up; ask for another one" in here.refusal("cert", "enroll", text, "--out", "again.pem")
    assert [path.name for path in tmp_path.glob("*.pem")] == ["alice.pem"]
