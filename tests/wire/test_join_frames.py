"""The frames of `quicbus-join/1`, the answer of the authority, and what docs/protocol.md says about them."""

from __future__ import annotations

import re

import pytest

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire.frames import FRAME_TYPES, Frame, FrameParser, encode_frame
from quicbus.wire.join_frames import (
    AUTHORITY_GROUP,
    AUTHORITY_TOPIC,
    JOIN_ALPN,
    JOIN_FRAME_TYPES,
    AuthorityAnswer,
    Joined,
    JoinRequest,
    decode_answer,
    encode_answer,
)
from quicbus.wire.node_frames import NODE_FRAME_TYPES
from tests.wire import reference
from tests.wire.test_protocol_document import DOCUMENT

SECTION = DOCUMENT[DOCUMENT.index("## 31. Joining and renewing") :]


@pytest.mark.parametrize(
    "frame",
    [
        JoinRequest(version=1, agent="quicbus", request=b"please"),
        Joined(issued=b"here", brokers=("quic://tokyo:4433",)),
        JoinRequest(version=1, request=bytes(limits.MAX_JOIN_REQUEST_SIZE)),
    ],
)
def test_a_frame_of_joining_round_trips(frame: Frame) -> None:
    assert FrameParser(limits.MAX_JOIN_SIZE, JOIN_FRAME_TYPES).feed(encode_frame(frame)) == [frame]


def test_a_request_over_its_size_is_a_violation() -> None:
    frame = encode_frame(JoinRequest(version=1, request=bytes(limits.MAX_JOIN_REQUEST_SIZE + 1)))
    with pytest.raises(ProtocolViolation, match="JoinRequest"):
        FrameParser(limits.MAX_JOIN_SIZE, JOIN_FRAME_TYPES).feed(frame)


def test_the_frame_types_are_those_of_no_other_protocol() -> None:
    assert not set(JOIN_FRAME_TYPES) & (set(FRAME_TYPES) | set(NODE_FRAME_TYPES))


@pytest.mark.parametrize("answer", [AuthorityAnswer(issued=b"here"), AuthorityAnswer(code=0x107, why="used up")])
def test_the_answer_of_the_authority_round_trips(answer: AuthorityAnswer) -> None:
    assert decode_answer(encode_answer(answer)) == answer


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", reference.pack([1]), reference.pack({"code": -1}), reference.pack({"why": b"\xff"})]
)
def test_an_unreadable_answer_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="AuthorityAnswer"):
        decode_answer(data)


@pytest.mark.parametrize("cls", JOIN_FRAME_TYPES.values(), ids=lambda cls: cls.__name__)
def test_every_frame_of_joining_and_each_of_its_fields_is_described(cls: type[Frame]) -> None:
    start = re.search(rf"\*\*{cls.__name__}\*\* \(0x{cls.TYPE:02X},", SECTION)
    assert start is not None
    described = re.split(r"\n\n\*\*|\n## ", SECTION[start.start() :])[0]
    assert not [name for name in cls.__struct_fields__ if f"`{name}`" not in described]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"`{JOIN_ALPN}`", True),
        (f"`{AUTHORITY_TOPIC}`", True),
        (f"group `{AUTHORITY_GROUP}`", True),
        ("8 KiB of stream data", limits.MAX_JOIN_SIZE == 8 << 10),
        ("at most 7 KiB", limits.MAX_JOIN_REQUEST_SIZE == 7 << 10),
        ("at most 320 KiB", limits.MAX_JOINED_SIZE == 320 << 10),
        ("32 connections", limits.MAX_JOINERS == 32),
        ("8 from one address", limits.MAX_JOINERS_PER_ADDRESS == 8),
        ("within 10 s", limits.JOIN_ANSWER_TIMEOUT_S == 10),
    ],
)
def test_the_limits_of_joining_are_those_of_the_code(text: str, value: bool) -> None:
    assert text in " ".join(SECTION.split())
    assert value, f"docs/protocol.md says {text!r}"
