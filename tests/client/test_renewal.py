"""How a client keeps its credential alive: when it asks, what it writes, and what it says where it can't."""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING, cast

import pytest

from quicbus.client.events import CredentialExpiring, CredentialRenewed, Event
from quicbus.client.renewal import CredentialRenewal, CredentialSource
from quicbus.client.urls import BrokerUrl
from quicbus.exceptions import AuthorityUnavailable, ConnectionFailed, CredentialError, CredentialRefused
from quicbus.identity import Authority, Credential

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from quicbus.client.enrolment import CertificateOffice

DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)
AUTHORITY = Authority.create(now=NOW - 100 * DAY)
URLS = [BrokerUrl("tokyo", 4433)]


def alice(age_days: float) -> Credential:
    """A credential that was issued for 30 days so long ago."""
    return AUTHORITY.issue_client("alice", days=30, now=NOW - age_days * DAY)


class Office:
    """Renews what it is asked to, unless `failure` is set."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.asked: list[list[BrokerUrl]] = []

    async def renew(self, credential: Credential, urls: Sequence[BrokerUrl]) -> Credential:
        self.asked.append(list(urls))
        if self.failure is not None:
            raise self.failure
        return AUTHORITY.issue_client(credential.name, days=30, key=credential.private_key, now=NOW)


class Kept:
    """A client's credential, the office, and what was reported."""

    def __init__(self, given: Path | Credential) -> None:
        self.now = NOW
        self.office = Office()
        self.source = CredentialSource(given)
        self.renewal = CredentialRenewal(
            self.source,
            lambda: cast("CertificateOffice", self.office),
            rng=random.Random(1),
            wall_clock=lambda: self.now,
        )
        self.events: list[Event] = []
        self.renewal.report = self.events.append

    async def keep(self) -> float:
        return await self.renewal.keep(lambda: URLS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alice.pem"


async def test_nothing_is_asked_for_before_the_last_third(path: Path) -> None:
    alice(10).save(path)
    kept = Kept(path)
    assert 10 * 86_400 <= await kept.keep() <= 11 * 86_400
    assert (kept.office.asked, kept.events) == ([], [])
    assert kept.renewal.expires_in_s == pytest.approx(20 * 86_400, abs=600)


async def test_a_file_is_rewritten_for_the_same_key(path: Path) -> None:
    old = alice(25)
    old.save(path)
    kept = Kept(path)
    await kept.keep()
    new = Credential.load(path)
    assert (new.node_id, new.private_key_pem) == (old.node_id, old.private_key_pem)
    assert new.not_after > old.not_after
    assert kept.office.asked == [URLS]
    (told,) = kept.events
    assert isinstance(told, CredentialRenewed)
    assert (told.path, told.why) == (str(path), "")
    assert kept.renewal.expires_in_s == pytest.approx(30 * 86_400, abs=600)
    await kept.keep()
    assert len(kept.office.asked) == 1


def test_where_the_file_is_a_link_what_it_stands_for_is_rewritten(path: Path, tmp_path: Path) -> None:
    old = alice(25)
    old.save(tmp_path / "real.pem")
    path.symlink_to(tmp_path / "real.pem")
    CredentialSource(path).keep(old, AUTHORITY.issue_client("alice", key=old.private_key))
    assert path.is_symlink()
    assert Credential.load(tmp_path / "real.pem").not_after > NOW + 29 * DAY


def test_a_file_that_was_replaced_meanwhile_is_left_alone(path: Path) -> None:
    old, other = alice(25), AUTHORITY.issue_client("alice")
    other.save(path)
    CredentialSource(path).keep(old, AUTHORITY.issue_client("alice", key=old.private_key))
    assert Credential.load(path).node_id == other.node_id


async def test_what_cannot_be_written_is_used_and_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alice(25).save(path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("quicbus.identity.credential.write_file", refuse)
    kept = Kept(path)
    await kept.keep()
    (told,) = kept.events
    assert isinstance(told, CredentialRenewed)
    assert told.path is None
    assert "make the file and its folder writable" in told.why
    assert kept.source.load().not_after > NOW + 29 * DAY
    await kept.keep()
    assert len(kept.office.asked) == 1


async def test_a_credential_without_a_file_is_renewed_in_memory() -> None:
    given = alice(25)
    kept = Kept(given)
    await kept.keep()
    assert kept.source.load().not_after > given.not_after
    (told,) = kept.events
    assert isinstance(told, CredentialRenewed)
    assert (told.path, told.why) == (None, "")


async def test_a_failure_is_tried_again_and_warned_of_near_the_end(path: Path) -> None:
    alice(29.5).save(path)
    kept = Kept(path)
    kept.office.failure = AuthorityUnavailable("nobody has the key; try again")
    assert 0 < await kept.keep() <= 1.5
    (told,) = kept.events
    assert isinstance(told, CredentialExpiring)
    assert told.expires_in_s == pytest.approx(43_200, abs=600)
    assert told.why == "nobody has the key; try again"
    await kept.keep()
    assert len(kept.office.asked) == 1, "not before the pause is over"
    kept.now += dt.timedelta(seconds=2)
    kept.office.failure = None
    await kept.keep()
    assert isinstance(kept.events[-1], CredentialRenewed)


async def test_what_another_process_has_renewed_is_not_asked_for_again(path: Path) -> None:
    old = alice(25)
    old.save(path)
    kept = Kept(path)
    kept.office.failure = AuthorityUnavailable("not now")
    await kept.keep()
    AUTHORITY.issue_client("alice", days=30, key=old.private_key).save(path)
    kept.now += DAY
    await kept.keep()
    assert len(kept.office.asked) == 1


async def test_an_expired_credential_is_renewed_where_it_is_about_to_be_dialed_with(path: Path) -> None:
    alice(40).save(path)
    kept = Kept(path)
    await kept.renewal.revive(("192.0.2.1", 4433))
    await kept.renewal.revive(("192.0.2.2", 4433))
    assert kept.office.asked == [[BrokerUrl("192.0.2.1", 4433)]]
    assert Credential.load(path).name == "alice"


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (AuthorityUnavailable("nobody has the key"), ConnectionFailed),
        (CredentialRefused(0x106, "the key was revoked"), CredentialRefused),
    ],
    ids=["later", "never"],
)
async def test_why_an_expired_credential_was_not_renewed_is_told(
    path: Path, failure: Exception, raised: type[Exception]
) -> None:
    alice(40).save(path)
    kept = Kept(path)
    kept.office.failure = failure
    with pytest.raises(raised, match=str(failure)):
        await kept.renewal.revive(("192.0.2.1", 4433))


async def test_a_file_that_is_gone_is_looked_for_later(path: Path) -> None:
    kept = Kept(path)
    assert await kept.keep() > 0
    with pytest.raises(CredentialError, match="no such file"):
        kept.renewal.look()
