"""The channel binding, from both engines in all four pairings, and from hand-written key log lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus.identity import CHANNEL_BINDING_SIZE, Authority, ChannelBindingSink
from tests.identity.handshakes import PAIRINGS, handshake

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = "11" * 32
CLIENT = f"CLIENT_TRAFFIC_SECRET_0 {RANDOM} {'aa' * 48}\n"
SERVER = f"SERVER_TRAFFIC_SECRET_0 {RANDOM} {'bb' * 48}\n"


def binding_of(*lines: str) -> bytes | None:
    sink = ChannelBindingSink()
    for line in lines:
        sink.write(line)
    return sink.binding


@pytest.mark.parametrize(("dialer", "listener"), PAIRINGS)
def test_both_ends_of_a_session_have_the_same_binding_and_two_sessions_differ(
    dialer: str, listener: str, tmp_path: Path
) -> None:
    node = Authority.create().issue_node("tokyo")
    first = handshake(dialer, listener, node, tmp_path)
    second = handshake(dialer, listener, node, tmp_path)
    assert first.is_complete, first.refusal
    assert first.dialer_binding is not None
    assert len(first.dialer_binding) == CHANNEL_BINDING_SIZE
    assert first.dialer_binding == first.listener_binding
    assert second.dialer_binding == second.listener_binding
    assert first.dialer_binding != second.dialer_binding


def test_there_is_no_binding_before_both_secrets_have_come() -> None:
    assert binding_of() is None
    assert binding_of(CLIENT) is None
    assert binding_of(SERVER) is None


def test_the_order_of_the_secrets_does_not_matter() -> None:
    assert binding_of(CLIENT, SERVER) == binding_of(SERVER, CLIENT) == binding_of(CLIENT + SERVER)


def test_each_secret_counts() -> None:
    other_client, other_server = CLIENT.replace("aa", "ac"), SERVER.replace("bb", "bc")
    bindings = {binding_of(CLIENT, SERVER), binding_of(other_client, SERVER), binding_of(CLIENT, other_server)}
    assert len(bindings) == 3
    assert None not in bindings


def test_swapped_secrets_give_another_binding() -> None:
    swapped = binding_of(CLIENT.replace("aa", "bb"), SERVER.replace("bb", "aa"))
    assert swapped != binding_of(CLIENT, SERVER)


def test_other_secrets_and_key_updates_pass_through_unread() -> None:
    handshake_secret = CLIENT.replace("CLIENT_TRAFFIC_SECRET_0", "CLIENT_HANDSHAKE_TRAFFIC_SECRET")
    update = CLIENT.replace("SECRET_0", "SECRET_1").replace("aa", "dd")
    assert binding_of(handshake_secret, CLIENT, "\n", "garbage\n", SERVER, update) == binding_of(CLIENT, SERVER)


def test_the_binding_stays_when_the_secrets_come_again() -> None:
    assert binding_of(CLIENT, SERVER, CLIENT.replace("aa", "dd"), SERVER) == binding_of(CLIENT, SERVER)


def test_the_sink_forgets_the_secrets_and_shows_none() -> None:
    sink = ChannelBindingSink()
    sink.write(CLIENT)
    assert "aa" * 4 not in repr(sink)
    sink.write(SERVER)
    assert sink._secrets == {}
    assert sink.binding is not None
    assert sink.binding.hex() not in repr(sink)
