"""Shares that come back: only what was sent to that node, as it was sent, and each message once."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from quicbus.wire.batch import encode_body, parse_body, read_messages, slice_body
from quicbus.wire.bundles import BundleBatch
from quicbus_broker.mesh.messages.shares import SHARE_OVERHEAD, SentShares, ShareAltered, ShareUnknown

NODE, OTHER = b"n" * 16, b"o" * 16
BODY = encode_body(b"a", [b"0", b"1", b"2", b"3"], number=1)
SHARE = BundleBatch(7, 0, 1, 10, "alice", BODY, "workers", "a")


def part(start: int, stop: int) -> BundleBatch:
    return replace(SHARE, first=10 + start, body=slice_body(parse_body(BODY), start, stop).raw)


def shares(**options: float) -> SentShares:
    sent = SentShares(**options)  # type: ignore[arg-type]
    sent.sent(NODE, SHARE, 0.0)
    return sent


def test_what_was_sent_comes_back_once() -> None:
    sent = shares()
    assert sent.take_back(NODE, replace(SHARE, sequence=99)) == SHARE
    with pytest.raises(ShareUnknown):
        sent.take_back(NODE, SHARE)


def test_parts_come_back_in_their_order_and_each_message_once() -> None:
    sent = shares()
    assert read_messages(parse_body(sent.take_back(NODE, part(1, 3)).body)) == [b"1", b"2"]
    for again in (part(0, 1), part(1, 2), part(2, 4), SHARE):
        with pytest.raises(ShareUnknown):
            sent.take_back(NODE, again)
    assert sent.take_back(NODE, part(3, 4)).first == 13


@pytest.mark.parametrize(
    "invented",
    [
        replace(SHARE, id=8),
        replace(SHARE, group="others"),
        replace(SHARE, filter="#"),
        replace(SHARE, first=9),
        replace(SHARE, first=14),
    ],
)
def test_what_was_never_sent_is_not_known(invented: BundleBatch) -> None:
    with pytest.raises(ShareUnknown):
        shares().take_back(NODE, invented)


def test_what_was_sent_to_another_node_is_not_known() -> None:
    with pytest.raises(ShareUnknown):
        shares().take_back(OTHER, SHARE)


@pytest.mark.parametrize(
    "altered",
    [
        replace(SHARE, publisher="mallory"),
        replace(SHARE, body=encode_body(b"a", [b"0", b"1", b"2", b"X"], number=1)),
        replace(SHARE, body=encode_body(b"b", [b"0", b"1", b"2", b"3"], number=1)),
        replace(SHARE, first=11),
        replace(SHARE, body=BODY[:-1]),
    ],
)
def test_other_messages_than_were_sent_are_an_offence(altered: BundleBatch) -> None:
    with pytest.raises(ShareAltered):
        shares().take_back(NODE, altered)


def test_two_parts_of_one_batch_may_go_to_one_node() -> None:
    sent = SentShares()
    sent.sent(NODE, part(0, 2), 0.0)
    sent.sent(NODE, part(2, 4), 0.0)
    assert sent.take_back(NODE, part(2, 4)) == part(2, 4)
    assert sent.take_back(NODE, part(0, 2)) == part(0, 2)


def test_what_is_kept_is_bounded_in_bytes_and_time() -> None:
    room = 2 * (SHARE_OVERHEAD + len(BODY))
    sent = shares(max_size=room, retention_s=5.0)
    for id in (8, 9):
        sent.sent(NODE, replace(SHARE, id=id), 2.0)
    assert sent.size == room
    with pytest.raises(ShareUnknown):
        sent.take_back(NODE, SHARE)
    sent.expire(6.9)
    assert sent.size == room
    sent.expire(7.0)
    assert sent.size == 0


def test_a_member_that_is_forgotten_gives_nothing_back() -> None:
    sent = shares()
    sent.sent(OTHER, SHARE, 0.0)
    sent.forget(NODE)
    assert sent.size == SHARE_OVERHEAD + len(BODY)
    with pytest.raises(ShareUnknown):
        sent.take_back(NODE, SHARE)
