"""Brokers in this process whose files are replaced, and whose mesh brings a later trust list."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from typing import TYPE_CHECKING

import pytest

import quicbus
from quicbus.identity.data_folder import DataFolder, load_authority, prepare_node_folder
from quicbus.identity.folder_trust import add_revocations
from quicbus.identity.rotation import start_rotation
from quicbus.identity.trust import Revocation
from quicbus.transport.connection import shown_address
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import Trust
from quicbus_broker import Broker, BrokerSettings, live_trust
from quicbus_broker.events import MemberRevoked, TrustChanged
from quicbus_broker.node import NodeIdentity
from tests.system.hostile_node import hostile_to
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from quicbus.identity import Authority, Credential

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_trust, "LOOK_S", 0.05)


def make_folder(path: Path) -> Authority:
    """A folder with an authority and its first node."""
    DataFolder.open(path, may_create_authority=True, node_name="first").close()
    return load_authority(path)


def revoke(folder: Path, credential: Credential) -> None:
    stamp = int(NOW.timestamp())
    of = Revocation(credential.node_id, str(credential.role), credential.name, stamp, stamp + 90 * 86_400)
    add_revocations(folder, [of], dt.datetime.now(dt.UTC))


@contextlib.asynccontextmanager
async def broker(folder: Path, *seeds: Broker, **settings: object) -> AsyncIterator[Broker]:
    async with Broker(
        BrokerSettings(
            data_dir=folder,
            listen="127.0.0.1:0",
            seed=tuple(shown_address(each.address) for each in seeds),
            drain_timeout_s=0.2,
            **settings,  # type: ignore[arg-type]  # of a test
        )
    ) as made:
        yield made


async def test_a_revoked_client_is_cut_off_at_every_broker_and_raises(tmp_path: Path) -> None:
    authority = make_folder(tmp_path / "first")
    prepare_node_folder(authority, "second", tmp_path / "second")
    alice, bob = authority.issue_client("alice"), authority.issue_client("bob")
    async with (
        asyncio.timeout(20),
        broker(tmp_path / "first") as first,
        broker(tmp_path / "second", first) as second,
        quicbus.connect(first.url, credentials=alice) as at_first,
        quicbus.connect(second.url, credentials=alice) as at_second,
        quicbus.connect(second.url, credentials=bob) as other,
        at_second.subscribe("a") as messages,
    ):
        events = second.events()
        await eventually(lambda: second.statistics().mesh.links)
        revoke(tmp_path / "first", alice)
        with pytest.raises(quicbus.CredentialRefused, match="key of client alice was revoked") as caught:
            await messages.next(20)
        assert caught.value.code == CloseCode.CREDENTIAL_REVOKED
        await eventually(lambda: at_first.status == "refused")
        event = await anext(event async for event in events if isinstance(event, TrustChanged))
        assert (event.name, event.revoked) == ("second", 1)
        with pytest.raises(quicbus.CredentialRefused, match="revoked"):
            await quicbus.connect(second.url, credentials=alice)
        assert await other.ping(5) >= 0


async def test_a_revoked_node_leaves_and_its_clients_go_elsewhere(tmp_path: Path) -> None:
    authority = make_folder(tmp_path / "first")
    rogue = prepare_node_folder(authority, "rogue", tmp_path / "rogue")
    bob = authority.issue_client("bob")
    async with asyncio.timeout(20), broker(tmp_path / "first") as first:
        opened: asyncio.Future[Broker] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            async with broker(tmp_path / "rogue", first) as second:
                opened.set_result(second)
                await second.wait_closed()

        task = asyncio.create_task(run())
        second = await opened
        await eventually(lambda: first.statistics().mesh.links)
        async with quicbus.connect(second.url, credentials=bob) as bus:
            await eventually(lambda: bus._supervisor._plan.urls[1:])
            events = first.events()
            revoke(tmp_path / "first", rogue)
            event = await anext(event async for event in events if isinstance(event, MemberRevoked))
            assert event.name == "rogue"
            with pytest.raises(quicbus.CredentialRefused, match="the key of this node, rogue"):
                await task
            assert [peer.name for peer in await bus.peers() if peer.is_self] == ["first"]
        assert [member.name for member in await first.bus.peers()] == ["first"]
        again = Broker(BrokerSettings(data_dir=tmp_path / "rogue", listen="127.0.0.1:0"))
        with pytest.raises(quicbus.CredentialError, match="the key of this node, rogue"):
            await again.__aenter__()


async def test_a_revoked_node_that_does_not_stop_is_read_no_more_and_then_refused(tmp_path: Path) -> None:
    authority = make_folder(tmp_path / "first")
    rogue = authority.issue_node("rogue")
    async with asyncio.timeout(20), broker(tmp_path / "first") as first:
        async with hostile_to(first, authority, credential=rogue) as hostile:
            hostile.introduce(first.node_id)
            await eventually(lambda: first.statistics().mesh.members == {"alive": 2})
            revoke(tmp_path / "first", rogue)
            await hostile.wait_frame(Trust)
            hostile.introduce(first.node_id)
            ended = await hostile.wait_closed()
            assert ended.code == CloseCode.CREDENTIAL_REVOKED
        refusal = first._opened_mesh.driver.refusal(rogue.node_id, 1)
        assert refusal is not None
        assert refusal.code == CloseCode.CREDENTIAL_REVOKED
        assert first.statistics().mesh.members == {"alive": 1}
        assert not first.statistics().mesh.dropped


async def test_a_node_that_was_revoked_before_it_came_is_told_so_once(tmp_path: Path) -> None:
    authority = make_folder(tmp_path / "first")
    rogue = authority.issue_node("rogue")
    revoke(tmp_path / "first", rogue)
    async with asyncio.timeout(20), broker(tmp_path / "first") as first:
        async with hostile_to(first, authority, credential=rogue) as hostile:
            hostile.introduce(first.node_id)
            ended = await hostile.wait_closed()
            assert [type(frame) for frame in hostile.frames] == [Trust]
            assert ended.code == CloseCode.CREDENTIAL_REVOKED
        assert first.statistics().mesh.members == {"alive": 1}


async def test_another_certificate_on_disk_is_shown_to_whoever_dials_and_no_session_ends(tmp_path: Path) -> None:
    authority = make_folder(tmp_path / "first")
    credential = authority.issue_client("alice")
    async with (
        asyncio.timeout(20),
        broker(tmp_path / "first") as first,
        quicbus.connect(first.url, credentials=credential) as bus,
    ):
        node = first._opened_identity.credential
        renewed = authority.issue_node(node.name, key=node.private_key, days=7)
        (tmp_path / "first" / "node.pem").write_bytes(renewed.chain_pem)
        await eventually(lambda: first._opened_identity.credential.chain_pem == renewed.chain_pem)
        assert first._listener is not None
        assert first._listener.configuration.certificate_chain == renewed.chain_pem
        assert await bus.ping(5) >= 0
        assert bus.statistics().reconnects == 0
        async with quicbus.connect(first.url, credentials=credential) as another:
            assert await another.ping(5) >= 0


async def test_the_certificate_of_another_node_is_not_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = make_folder(tmp_path / "first")
    other = authority.issue_node("other")
    async with asyncio.timeout(20), broker(tmp_path / "first") as first:
        before = first._opened_identity.credential
        (tmp_path / "first" / "node-key.pem").write_bytes(other.private_key_pem)
        (tmp_path / "first" / "node.pem").write_bytes(other.chain_pem)
        await eventually(lambda: "is now of another node" in caplog.text)
        assert first._opened_identity.credential == before


async def test_a_file_that_is_half_written_changes_nothing_until_it_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = make_folder(tmp_path / "first")
    async with asyncio.timeout(20), broker(tmp_path / "first") as first:
        identity = first._opened_identity
        before = identity.credential
        renewed = authority.issue_node(before.name, key=before.private_key, days=7)
        (tmp_path / "first" / "node.pem").write_bytes(renewed.chain_pem[:300])
        await eventually(lambda: "not taken over" in caplog.text)
        assert identity.credential == before
        (tmp_path / "first" / "node.pem").write_bytes(renewed.chain_pem)
        await eventually(lambda: identity.credential.chain_pem == renewed.chain_pem)


def write_files(folder: Path, node: Credential) -> dict[str, Path]:
    """Write what settings may name in place of a data folder; returns the settings."""
    names = {
        "certificate": (folder / "c.pem", node.chain_pem),
        "private_key": (folder / "k.pem", node.private_key_pem),
        "authority": (folder / "a.pem", node.authority_pem),
    }
    for path, content in names.values():
        path.write_bytes(content)
    return {name: path for name, (path, _) in names.items()}


def test_a_damaged_trust_list_beside_named_files_is_named(tmp_path: Path) -> None:
    node = make_folder(tmp_path / "first").issue_node("named")
    settings = BrokerSettings(data_dir=tmp_path, **write_files(tmp_path, node))  # type: ignore[arg-type]
    (tmp_path / f"trust-{node.node_id.hex()[:8]}.bin").write_bytes(b"damaged")
    with pytest.raises(quicbus.CredentialError, match="remove the file"):
        NodeIdentity(settings)


async def test_files_that_the_settings_name_are_watched_too(tmp_path: Path) -> None:
    authority = make_folder(tmp_path / "first")
    node = authority.issue_node("named")
    settings = write_files(tmp_path, node)
    async with (
        asyncio.timeout(20),
        broker(tmp_path / "first") as first,
        broker(tmp_path / "folder", first, **settings) as named,
    ):
        await eventually(lambda: named.statistics().mesh.links)
        renewed = authority.issue_node("named", key=node.private_key, days=7)
        (tmp_path / "c.pem").write_bytes(renewed.chain_pem)
        identity = named._opened_identity
        await eventually(lambda: identity.credential.chain_pem == renewed.chain_pem)
        revoke(tmp_path / "first", authority.issue_client("alice"))
        await eventually(lambda: identity.trust.version)
        await eventually(lambda: (tmp_path / "folder" / f"trust-{node.node_id.hex()[:8]}.bin").exists())


async def test_an_authority_follows_another_while_clients_stay_connected(tmp_path: Path) -> None:
    authority = make_folder(tmp_path / "first")
    prepare_node_folder(authority, "second", tmp_path / "second")
    alice = authority.issue_client("alice")
    async with (
        asyncio.timeout(30),
        broker(tmp_path / "first") as first,
        broker(tmp_path / "second", first) as second,
        quicbus.connect(second.url, credentials=alice) as bus,
    ):
        await eventually(lambda: second.statistics().mesh.links)
        start_rotation(tmp_path / "first", dt.datetime.now(dt.UTC), overlap_days=0)
        await eventually(lambda: len(second._opened_identity.trust.authorities) == 2)
        following = load_authority(tmp_path / "first")
        assert following.key_id != authority.key_id
        carol = following.issue_client("carol")
        async with quicbus.connect(second.url, credentials=carol) as newer:
            assert await newer.ping(5) >= 0
        prepare_node_folder(following, "third", tmp_path / "third", issued_by=tmp_path / "first")
        async with broker(tmp_path / "third", second) as third:
            await eventually(lambda: third.statistics().mesh.links == 2)
            async with quicbus.connect(second.url, credentials=alice) as older:
                assert await older.ping(5) >= 0
        assert bus.statistics().reconnects == 0
