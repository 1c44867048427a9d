"""The log of certificates: found by name and key, and never in the way when a line of it is damaged."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from quicbus.identity import Authority, IssuedLog, issued_log
from tests.identity.certificates import DAY, NOW, certificate_of

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    from quicbus.identity import Credential

AUTHORITY = Authority.create(now=NOW)


@pytest.fixture
def log(tmp_path: Path) -> IssuedLog:
    return IssuedLog(tmp_path)


def issue(log: IssuedLog, name: str, *, is_node: bool = False, now: dt.datetime = NOW, days: float = 30) -> Credential:
    credential = (AUTHORITY.issue_node if is_node else AUTHORITY.issue_client)(name, days=days, now=now)
    log.add(AUTHORITY, credential.chain_der[0], now=now)
    return credential


def test_a_certificate_is_noted_with_all_that_tells_it_apart(log: IssuedLog) -> None:
    alice = issue(log, "alice")
    (entry,) = log.entries()
    assert (entry.role, entry.name, entry.key_id) == ("client", "alice", alice.node_id.hex())
    assert entry.serial == f"{certificate_of(alice.chain_pem).serial_number:x}"
    assert entry.issuer == AUTHORITY.key_id.hex()
    assert (entry.issued_at, entry.not_after) == (int(NOW.timestamp()), int((NOW + 30 * DAY).timestamp()))
    assert entry.renewable_until == int((NOW + 60 * DAY).timestamp())


def test_entries_are_found_by_name_role_and_key(log: IssuedLog) -> None:
    tokyo, local, again = issue(log, "tokyo", is_node=True), issue(log, "tokyo"), issue(log, "tokyo", is_node=True)
    issue(log, "oslo")
    assert [one.key_id for one in log.find("tokyo")] == [each.node_id.hex() for each in (tokyo, local, again)]
    assert [one.key_id for one in log.find("node/tokyo")] == [each.node_id.hex() for each in (tokyo, again)]
    assert [one.key_id for one in log.find("client/tokyo")] == [local.node_id.hex()]
    assert [one.name for one in log.find(local.node_id.hex().upper())] == ["tokyo"]
    assert log.find("nobody") == log.find("") == log.find("/") == []


def test_a_line_that_was_cut_off_costs_only_itself(
    log: IssuedLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    issue(log, "alice")
    with (tmp_path / "issued.jsonl").open("ab") as file:
        file.write(b'{"role":"node","na')
    issue(log, "bob")
    assert [one.name for one in log.entries()] == ["alice", "bob"]
    assert "1 lines of issued.jsonl can't be read" in caplog.text


def test_no_log_is_an_empty_one(log: IssuedLog) -> None:
    assert log.entries() == []


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_the_log_is_for_its_owner_only(log: IssuedLog, tmp_path: Path) -> None:
    issue(log, "alice")
    assert stat.S_IMODE((tmp_path / "issued.jsonl").stat().st_mode) == 0o600


def test_a_long_log_keeps_the_latest_of_each_key_that_still_matters(
    log: IssuedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issued_log, "COMPACT_SIZE", 1000)
    gone, kept = issue(log, "gone", days=1), issue(log, "kept")
    for day in range(3):
        log.add(AUTHORITY, kept.chain_der[0], now=NOW + day * DAY)
    issue(log, "new", now=NOW + 40 * DAY)
    assert [one.name for one in log.entries()] == ["kept", "new"]
    assert log.find(gone.node_id.hex()) == []
    assert log.find("kept")[0].issued_at == int((NOW + 2 * DAY).timestamp())
