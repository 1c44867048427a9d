"""How a node looks for its mesh and is found: what goes to the driver of the mesh, which is a fake here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from quicbus.identity import Authority
from quicbus.identity.data_folder import prepare_node_folder
from quicbus.transport.engines import engine_named
from quicbus_broker import joining
from quicbus_broker.joining import Joining
from quicbus_broker.mesh.outputs import Dial, DialFailed, State
from quicbus_broker.mesh.views import MemberView
from quicbus_broker.node import NodeIdentity
from quicbus_broker.settings import BrokerSettings

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.identity import Credential

PEER = b"\x02" * 16
AUTHORITY = Authority.create()


def member(state: State = State.ALIVE, mode: str = "hybrid") -> MemberView:
    return MemberView(
        node=PEER,
        name="peer",
        addresses=("peer.example:1", "[::1]:2"),
        state=state,
        mode=mode,
        boot=1,
        rtt_s=None,
        is_linked=False,
        is_me=False,
    )


class FakeDriver:
    """Keeps what it is asked to do; it is its own mesh."""

    def __init__(self) -> None:
        self.mesh = self
        self.on_arrival: Any = None
        self.on_reached: Any = None
        self.on_dial_failed: Any = None
        self.links: list[object] = []
        self.view: list[MemberView] = []
        self.started: dict[str, Any] = {}
        self.performed: list[object] = []
        self.addresses: list[tuple[str, ...]] = []

    def members(self) -> list[MemberView]:
        return self.view

    def set_addresses(self, addresses: tuple[str, ...], now: float) -> list[object]:
        self.addresses.append(addresses)
        return []

    def perform(self, outputs: list[object]) -> None:
        self.performed += outputs

    def start(self, endpoint: object, **arguments: Any) -> None:
        self.started = arguments


class Node:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.identity = NodeIdentity(BrokerSettings(data_dir=folder, **settings))
        self.driver = FakeDriver()
        endpoint = SimpleNamespace(address=("127.0.0.1", 5000), engine=engine_named("auto"))
        made: Any = Joining(
            BrokerSettings(data_dir=folder, **settings),
            self.identity,
            self.driver,  # type: ignore[arg-type]  # a fake
            endpoint,  # type: ignore[arg-type]  # likewise
            clock=lambda: 0.0,
        )
        self.joining = made
        self.joining.start()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare_node_folder(AUTHORITY, "me", tmp_path / "me")
    return tmp_path / "me"


def named_files(folder: Path, credential: Credential) -> dict[str, Path]:
    contents = {
        "certificate": credential.chain_pem,
        "private_key": credential.private_key_pem,
        "authority": AUTHORITY.certificate_pem,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


async def test_seeds_members_of_the_last_run_and_own_addresses_go_to_the_mesh(folder: Path) -> None:
    first = Node(folder)
    assert first.driver.started == {"addresses": ("127.0.0.1:5000",), "seeds": (), "remembered": ()}
    first.driver.view = [member()]
    await first.joining.close()
    first.identity.close()

    second = Node(folder, seed=("a", "b:1"))
    assert second.driver.started["seeds"] == ("a:4433", "b:1")
    assert second.driver.started["remembered"] == ((PEER, "peer.example:1"), (PEER, "[::1]:2"))
    second.identity.close()


async def test_nodes_that_share_a_folder_remember_apart(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    credential = AUTHORITY.issue_node("me")
    node = Node(tmp_path / "shared", **named_files(tmp_path / "files", credential))
    node.driver.view = [member()]
    await node.joining.close()

    (written,) = (tmp_path / "shared").iterdir()
    assert written.name == f"members-{credential.node_id.hex()[:8]}.json"


async def test_where_it_was_reached_becomes_an_address_of_its_record(folder: Path) -> None:
    node = Node(folder)
    node.driver.on_reached("9.9.9.9:9")

    assert node.driver.addresses == [("127.0.0.1:5000", "9.9.9.9:9")]
    assert node.joining.addresses == ("127.0.0.1:5000", "9.9.9.9:9")
    node.identity.close()


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        ([DialFailed("a:1", None, "no answer")], ["a:1 (no answer); b:2"]),
        ([DialFailed("a:1", None, "connection refused (a:1)")], ["a:1 (connection refused); b:2"]),
        ([DialFailed("a:1", None, "another mesh", is_final=True)], ["a:1; b:2"]),
        ([DialFailed("a:1", None, "itself", is_self=True)], ["b:2"]),
        ([DialFailed(seed, None, "itself", is_self=True) for seed in ("a:1", "b:2")], []),
    ],
)
async def test_seeds_that_do_not_answer_are_told_once_with_the_reason(
    failed: list[DialFailed],
    told: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(joining, "PATIENCE_S", 0.0)
    node = Node(folder, seed=("a:1", "b:2"))
    for failure in failed:
        node.driver.on_dial_failed(failure)
    await node.joining._tell_while_apart()

    assert [record.getMessage().partition("still trying: ")[2] for record in caplog.records] == told
    node.identity.close()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, ["others dial it; --seed HOST:PORT"]),
        ({"mode": "client"}, ["name a node with --seed HOST:PORT"]),
        ({"mode": "server"}, []),
        ({"seed": ("a:1",)}, []),
        ({"discover": True}, []),
    ],
)
async def test_a_node_of_a_mesh_that_knows_nobody_says_that_it_waits(
    settings: dict[str, Any], told: list[str], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(folder, **settings)
    messages = [record.getMessage() for record in caplog.records]
    assert [hint in message for hint, message in zip(told, messages, strict=True)] == [True] * len(told)
    node.identity.close()


async def test_who_makes_a_mesh_or_remembers_members_is_not_told_to_name_a_seed(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Node(tmp_path / "new").identity.close()
    first = Node(folder, seed=("a:1",))
    first.driver.view = [member()]
    await first.joining.close()
    first.identity.close()
    Node(folder).identity.close()
    assert caplog.records == []


async def test_an_unknown_node_of_the_local_network_is_dialed_one_address_at_a_time(folder: Path) -> None:
    node = Node(folder, discover=True)
    for _ in range(3):
        node.joining._found(PEER, ("192.168.1.2:1", "192.168.1.3:1"))

    assert node.driver.performed == [
        Dial("192.168.1.2:1", None),
        Dial("192.168.1.3:1", None),
        Dial("192.168.1.2:1", None),
    ]
    node.identity.close()


@pytest.mark.parametrize(("state", "dials"), [(State.ALIVE, 0), (State.SUSPECT, 0), (State.FAILED, 1), (State.LEFT, 1)])
async def test_the_mesh_itself_sees_to_members_that_it_knows(state: State, dials: int, folder: Path) -> None:
    node = Node(folder, discover=True)
    node.driver.view = [member(state)]
    node.joining._found(PEER, ("192.168.1.2:1",))

    assert len(node.driver.performed) == dials
    node.identity.close()


async def test_a_node_that_only_accepts_dials_nobody_of_the_local_network(folder: Path) -> None:
    node = Node(folder, discover=True, mode="server")
    node.joining._found(PEER, ("192.168.1.2:1",))

    assert node.driver.performed == []
    node.identity.close()
