"""Which credential a client dials with: that of the file as it is now."""

from __future__ import annotations

import datetime as dt
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.client.dialing import EndpointDialer
from quicbus.client.renewal import load_credential
from quicbus.identity import Authority, Credential
from tests.transport.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

NOBODY = ("127.0.0.1", 9)


async def proof_of(dialer: EndpointDialer) -> list[bytes]:
    """Dial, and return the chain that the proof would show."""
    await dialer.dial(NOBODY, Recorder)
    assert dialer.prove is not None
    return dialer.prove(bytes(32))[0]


@asynccontextmanager
async def dialer_with(load: Callable[[], Credential]) -> AsyncIterator[EndpointDialer]:
    dialer = EndpointDialer("aioquic", load, stall_timeout_s=10.0)
    try:
        yield dialer
    finally:
        await dialer.close()


async def test_a_credential_that_was_renewed_on_disk_is_taken_for_the_next_connection(tmp_path: Path) -> None:
    authority, path = Authority.create(), tmp_path / "alice.pem"
    old, new = authority.issue_client("alice"), authority.issue_client("alice")
    old.save(path)
    async with dialer_with(lambda: load_credential(path)) as dialer:
        assert await proof_of(dialer) == old.chain_der
        new.save(path)
        assert await proof_of(dialer) == new.chain_der


async def test_a_file_that_is_gone_leaves_the_credential_that_was_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "alice.pem"
    credential = Authority.create().issue_client("alice")
    credential.save(path)
    async with dialer_with(lambda: load_credential(path)) as dialer:
        path.unlink()
        with caplog.at_level(logging.WARNING, "quicbus.client"):
            assert await proof_of(dialer) == credential.chain_der
        assert "no such file" in caplog.text


async def test_a_credential_that_has_ended_is_not_dialed_with() -> None:
    ended = Authority.create().issue_client("alice", days=1, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=2))
    async with dialer_with(lambda: ended) as dialer:
        with pytest.raises(quicbus.CredentialError, match=r"expired on .*quicbus cert issue --client"):
            await dialer.dial(NOBODY, Recorder)
