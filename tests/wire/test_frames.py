from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire import frames
from quicbus.wire.frames import Frame, FrameParser, Ping, Pong, encode_frame
from quicbus.wire.varint import decode_varint, encode_varint
from tests.wire import reference
from tests.wire.strategies import FRAMES, split

PING = {"id": 7}
SUBSCRIBE = {
    "id": 1,
    "filter": "a/#",
    "max_pending": 10,
    "max_pending_size": 100,
    "window_messages": 5,
    "window_size": 50,
}
LIMITS = {"max_message_size": 1, "max_headers_size": 2, "max_subscriptions": 3, "max_filter_size": 4}
WELCOME = {"version": 1, "node": bytes(16), "boot": 1, "agent": "quicbus/1", "limits": LIMITS}
ACCEPTED = {"session": bytes(16), "name": "alice", "publish_credit": 1}
DROPPED = {"id": 1, "dropped": {"overflow": 1}}
PEER = {"node": "0a" * 16, "name": "tokyo", "state": "alive", "mode": "hybrid", "boot": 1}
GO_AWAY = {"reason": "stop", "deadline_s": 1.0}

# Frame type, a map that is right, what is changed in it (None: taken out), and what the violation says.
WRONG_FIELDS: list[tuple[type[Frame], dict[str, Any], dict[str, Any], str]] = [
    (Ping, PING, {"id": None}, "Ping: Object missing required field `id`"),
    (Ping, PING, {"id": "7"}, "Ping: Expected `int`, got `str` - at `$.id`"),
    (Ping, PING, {"id": 7.0}, "Ping: Expected `int`, got `float`"),
    (Ping, PING, {"id": True}, "Ping: Expected `int`, got `bool`"),
    (Ping, PING, {"id": -1}, "Ping: Expected `int` >= 0 - at `$.id`"),
    (frames.Subscribe, SUBSCRIBE, {"id": 2**32}, "Subscribe: Expected `int` <= 4294967295 - at `$.id`"),
    (frames.Subscribe, SUBSCRIBE, {"filter": b"a"}, "Subscribe: Expected `str`, got `bytes` - at `$.filter`"),
    (frames.Subscribe, SUBSCRIBE, {"group": 1}, "Subscribe: Expected `str | null`, got `int` - at `$.group`"),
    (frames.Subscribe, SUBSCRIBE, {"max_pending": 0}, "Subscribe: Expected `int` >= 1 - at `$.max_pending`"),
    (frames.Subscribe, SUBSCRIBE, {"window_size": -5}, "Subscribe: Expected `int` >= 1 - at `$.window_size`"),
    (frames.Welcome, WELCOME, {"node": bytes(15)}, "Welcome: Expected `bytes` of length >= 16 - at `$.node`"),
    (frames.Welcome, WELCOME, {"node": bytes(17)}, "Welcome: Expected `bytes` of length <= 16 - at `$.node`"),
    (frames.Welcome, WELCOME, {"limits": {}}, "missing required field `max_message_size` - at `$.limits`"),
    (frames.Welcome, WELCOME, {"limits": [1]}, "Welcome: Expected `object`, got `array` - at `$.limits`"),
    (frames.Welcome, WELCOME, {"proof": 1}, "Welcome: Expected `bool`, got `int` - at `$.proof`"),
    (frames.Accepted, ACCEPTED, {"session": b"short"}, "Accepted: Expected `bytes` of length >= 16 - at `$.session`"),
    (frames.Accepted, ACCEPTED, {"brokers": "x"}, "Accepted: Expected `array`, got `str` - at `$.brokers`"),
    (frames.Accepted, ACCEPTED, {"expires_in_s": -1.0}, "Accepted: Expected `float` >= 0.0 - at `$.expires_in_s`"),
    (frames.SubscriptionDropped, DROPPED, {"dropped": {"a": -1}}, "Expected `int` >= 0 - at `$.dropped[...]`"),
    (frames.SubscriptionDropped, DROPPED, {"dropped": {1: 1}}, "Expected `str`, got `int`"),
    (frames.GoAway, GO_AWAY, {"deadline_s": float("nan")}, "GoAway: Expected `float` >= 0.0 - at `$.deadline_s`"),
    (frames.GoAway, GO_AWAY, {"deadline_s": float("inf")}, "GoAway: Expected `float` <= "),
    (frames.Peers, {"id": 1, "peers": [PEER]}, {"peers": [{}]}, "Peers: Object missing required field `node` - at "),
    (
        frames.Peers,
        {"id": 1, "peers": [PEER]},
        {"peers": [{**PEER, "rtt_ms": -1.0}]},
        ">= 0.0 - at `$.peers[0].rtt_ms`",
    ),
    (
        frames.Permissions,
        {"publish": ["x"]},
        {"publish": [1]},
        "Permissions: Expected `str`, got `int` - at `$.publish[0]`",
    ),
    (frames.Brokers, {"brokers": ["x"]}, {"brokers": [1]}, "Brokers: Expected `str`, got `int` - at `$.brokers[0]`"),
    (frames.SpreadWanted, {"id": 1, "subscription": 1}, {"subscription": 2**32}, "Expected `int` <= 4294967295"),
    (frames.NoResponder, {"number": 1}, {"number": 0}, "NoResponder: Expected `int` >= 1 - at `$.number`"),
]

MALFORMED = [
    (b"", "Ping: Input data was truncated"),
    (b"\xc0", "Ping: Expected `object`, got `None`"),
    (b"\x91\x07", "Ping: Expected `object`, got `array`"),
    (b"\x81\xa2id", "Ping: Input data was truncated"),
    (b"\x81\xa2id\x07\x00", "Ping: MessagePack data is malformed: trailing characters"),
    (b"\x81\xa2id\xc1", "Ping: "),
    (b"\x81\x01\x07", "Ping: Expected `str`, got `int`"),
    (b"\x82\xa2id\x07\xa1y\xc1", "Ping: MessagePack data is malformed"),
    (b"\x82\xa2id\x07\xa1y" + b"\x91" * 5000 + b"\x00", "Ping: maximum recursion depth exceeded"),
    (b"\xdf\xff\xff\xff\xff", "Ping: Input data was truncated"),
]


def raw_frame(number: int, body: bytes) -> bytes:
    return encode_varint(number) + encode_varint(len(body)) + body


def parse(data: bytes, max_size: int = limits.MAX_CONTROL_FRAME_SIZE) -> list[Frame]:
    return FrameParser(max_size).feed(data)


@given(st.data(), st.lists(FRAMES, max_size=4))
def test_frames_of_every_type_round_trip_however_the_stream_is_split(data: st.DataObject, sent: list[Frame]) -> None:
    parser = FrameParser(limits.MAX_CONTROL_FRAME_SIZE)
    chunks = data.draw(split(b"".join(map(encode_frame, sent))))
    assert [frame for chunk in chunks for frame in parser.feed(chunk)] == sent


@given(FRAMES)
def test_frames_are_plain_msgpack_maps(frame: Frame) -> None:
    encoded = encode_frame(frame)
    number = decode_varint(encoded)
    assert number is not None
    size = decode_varint(encoded, number[1])
    assert size is not None
    assert (number[0], size[0]) == (frame.TYPE, len(encoded) - size[1])
    fields = reference.unpack(encoded[size[1] :])
    # Only defaults are left out.
    whole = msgspec.to_builtins(msgspec.convert(fields, type(frame)), builtin_types=(bytes,))
    assert whole == msgspec.to_builtins(frame, builtin_types=(bytes,))
    assert parse(raw_frame(frame.TYPE, reference.pack(whole))) == [frame]


def test_every_frame_class_is_in_the_table_of_types_once() -> None:
    own = [cls for cls in Frame.__subclasses__() if cls.__module__ == frames.__name__]
    assert sorted(frames.FRAME_TYPES) == sorted(cls.TYPE for cls in own)
    assert not set(frames.FRAME_TYPES) & {0x20, 0x21}, "Discover and DiscoveryResponse are the mesh's"


@pytest.mark.parametrize(("cls", "right", "change", "why"), WRONG_FIELDS)
def test_missing_or_wrong_field_is_a_violation_that_names_it(
    cls: type[Frame], right: dict[str, Any], change: dict[str, Any], why: str
) -> None:
    assert parse(raw_frame(cls.TYPE, reference.pack(right)))
    wrong = {name: value for name, value in {**right, **change}.items() if value is not None}
    with pytest.raises(ProtocolViolation) as caught:
        parse(raw_frame(cls.TYPE, reference.pack(wrong)))
    assert why in caught.value.detail


@pytest.mark.parametrize(("body", "why"), MALFORMED)
def test_malformed_msgpack_is_a_violation(body: bytes, why: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        parse(raw_frame(Ping.TYPE, body))
    assert caught.value.detail.startswith(why)


def test_text_that_is_not_utf_8_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match=r"GoAway: .*utf-8"):
        parse(raw_frame(frames.GoAway.TYPE, b"\x82\xa6reason\xa2\xff\xff\xaadeadline_s\x01"))


def test_unknown_fields_are_ignored() -> None:
    body = reference.pack({"later": [1, {"a": b"b"}], **PING, "more": None})
    assert parse(raw_frame(Ping.TYPE, body)) == [Ping(id=7)]


@given(st.data(), st.integers(0, 600), st.sampled_from([0x00, 0x1F, 0x20, 0x21, 0x3F, 0x4000, 2**61]))
def test_unknown_frame_types_are_skipped_by_their_length(data: st.DataObject, size: int, number: int) -> None:
    parser = FrameParser(max_size=16)
    stream = encode_frame(Ping(id=1)) + raw_frame(number, b"\xff" * size) + encode_frame(Pong(id=2))
    received = [frame for chunk in data.draw(split(stream)) for frame in parser.feed(chunk)]
    assert received == [Ping(id=1), Pong(id=2)]


def test_frame_over_the_limit_is_refused_before_its_bytes_arrive() -> None:
    parser = FrameParser(max_size=100)
    assert parser.feed(encode_varint(frames.Hello.TYPE)) == []
    with pytest.raises(ProtocolViolation, match="control frame 0x2 has 101 bytes, at most 100 may be"):
        parser.feed(encode_varint(101))


def test_limit_can_be_raised_between_two_frames() -> None:
    parser = FrameParser(max_size=10)
    large = encode_frame(frames.Refused(number=1, messages=1, reason="rate", detail="x" * 50))
    assert parser.feed(encode_frame(Ping(id=1))) == [Ping(id=1)]
    parser.max_size = 100
    assert len(parser.feed(large)) == 1


def test_parser_holds_no_more_than_one_frame_and_nothing_of_what_it_skips() -> None:
    parser = FrameParser(max_size=1000)
    parser.feed(encode_varint(0x3F) + encode_varint(2**61))
    for _ in range(100):
        assert parser.feed(bytes(10_000)) == []
        assert len(parser._buffer) == 0
    parser = FrameParser(max_size=1000)
    body = reference.pack({**GO_AWAY, "reason": "x" * 900})
    stream = raw_frame(frames.GoAway.TYPE, body)
    for at in range(len(stream) - 1):
        assert parser.feed(stream[at : at + 1]) == []
        assert len(parser._buffer) == at + 1
    assert len(parser.feed(stream[-1:])) == 1
    assert len(parser._buffer) == 0
