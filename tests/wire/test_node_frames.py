from __future__ import annotations

import contextlib
import random
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire import node_frames
from quicbus.wire.frames import FRAME_TYPES, Count, Frame, FrameParser, Hello, Id128, Ping, Positive, encode_frame
from quicbus.wire.node_frames import NODE_FRAME_TYPES, Graft, IHave, InterestSeen, PingRequest, Prune, Skipped
from quicbus.wire.varint import encode_varint
from tests.wire import reference
from tests.wire.strategies import TEXT, U64, split

SEED = 20_240_406
NODE = b"n" * 16
OWN_TYPES = {number: cls for number, cls in NODE_FRAME_TYPES.items() if number >= 0x20}

_BY_HINT: dict[object, st.SearchStrategy[Any]] = {
    Count: U64,
    Positive: st.integers(1, 2**64 - 1),
    Id128: st.binary(min_size=16, max_size=16),
    node_frames.Lane: st.integers(0, 255),
    bool: st.booleans(),
    bytes: st.binary(max_size=40),
    str: TEXT,
    int: st.integers(0, 2**63),
}


def strategy_for(hint: Any) -> st.SearchStrategy[Any]:
    if hint in _BY_HINT:
        return _BY_HINT[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(strategy_for(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(strategy_for, arguments))
    assert isinstance(hint, type), hint
    return instances_of(hint)


def instances_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    hints.pop("TYPE", None)
    return st.builds(cls, **{name: strategy_for(hint) for name, hint in hints.items()})


FRAMES: st.SearchStrategy[Frame] = st.sampled_from(list(OWN_TYPES.values())).flatmap(instances_of)


def raw_frame(number: int, body: bytes) -> bytes:
    return encode_varint(number) + encode_varint(len(body)) + body


def parse(data: bytes) -> list[Frame]:
    return FrameParser(limits.MAX_CONTROL_FRAME_SIZE, NODE_FRAME_TYPES).feed(data)


@given(st.data(), st.lists(FRAMES, max_size=4))
def test_frames_of_every_type_round_trip_however_the_stream_is_split(data: st.DataObject, sent: list[Frame]) -> None:
    parser = FrameParser(limits.MAX_CONTROL_FRAME_SIZE, NODE_FRAME_TYPES)
    chunks = data.draw(split(b"".join(map(encode_frame, sent))))
    assert [frame for chunk in chunks for frame in parser.feed(chunk)] == sent


def test_every_node_frame_has_a_type_of_its_own_beside_those_of_clients() -> None:
    own = [cls for cls in Frame.__subclasses__() if cls.__module__ == node_frames.__name__]
    assert sorted(cls.TYPE for cls in own) == sorted(OWN_TYPES)
    assert not set(OWN_TYPES) & set(FRAME_TYPES)
    assert all(FRAME_TYPES[number] is cls for number, cls in NODE_FRAME_TYPES.items() if number not in OWN_TYPES)


def test_session_of_a_client_skips_node_frames_until_its_types_are_replaced() -> None:
    parser = FrameParser()
    assert parser.feed(encode_frame(Prune()) + encode_frame(Ping(id=1))) == [Ping(id=1)]
    parser.types = NODE_FRAME_TYPES
    assert parser.feed(encode_frame(Prune()) + encode_frame(Ping(id=2))) == [Prune(), Ping(id=2)]


def test_types_replaced_while_a_chunk_is_read_count_for_the_rest_of_it() -> None:
    parser = FrameParser()
    hello = Hello(version=1, kind="node", agent="test")
    received = []
    for frame in parser.read(encode_frame(hello) + encode_frame(Prune())):
        parser.types = NODE_FRAME_TYPES
        received.append(frame)
    assert received == [hello, Prune()]


def test_frames_of_clients_are_skipped_between_nodes() -> None:
    subscribe = raw_frame(0x04, b"\xc1")
    assert parse(subscribe + encode_frame(Prune())) == [Prune()]


@pytest.mark.parametrize(
    ("cls", "fields", "why"),
    [
        (IHave, {}, "IHave: Object missing required field `bundles`"),
        (IHave, {"bundles": [[NODE, 1]]}, "IHave: Expected `array` of length 3, got 2"),
        (IHave, {"bundles": [[NODE[:15], 1, 1]]}, "IHave: Expected `bytes` of length >= 16"),
        (IHave, {"bundles": [[NODE, -1, 1]]}, "IHave: Expected `int` >= 0"),
        (IHave, {"bundles": [], "hops": [-1]}, "IHave: Expected `int` >= 0"),
        (Graft, {"bundles": [[NODE, 1, "2"]]}, "Graft: Expected `int`, got `str`"),
        (PingRequest, {"id": 1}, "PingRequest: Object missing required field `target`"),
        (node_frames.Update, {"records": [[b"payload"]]}, "Update: Expected `array` of at least length 2, got 1"),
        (node_frames.Update, {"claims": [[NODE, 1, 2, NODE]]}, "Update: Expected `str`, got `int`"),
        (node_frames.Discover, {"want": [b"short"]}, "Discover: Expected `bytes` of length >= 16"),
        (
            node_frames.DiscoveryResponse,
            {"heads": [[NODE, 1, 1, [-1]]]},
            "DiscoveryResponse: Expected `int` >= 0",
        ),
        (Skipped, {"boot": 1, "lane": 256, "first": 1, "last": 1, "messages": 1}, "Skipped: Expected `int` <= 255"),
        (Skipped, {"boot": 1, "lane": 0, "first": 0, "last": 1, "messages": 1}, "Skipped: Expected `int` >= 1"),
        (InterestSeen, {"version": None}, "InterestSeen: Expected `int`, got `None`"),
    ],
)
def test_missing_or_wrong_field_is_a_violation_that_names_it(
    cls: type[Frame], fields: dict[str, Any], why: str
) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        parse(raw_frame(cls.TYPE, reference.pack(fields)))
    assert caught.value.detail.startswith(why)


def test_unknown_fields_and_further_elements_are_ignored() -> None:
    body = reference.pack({"later": 1, "records": [[b"payload", b"signature", "later"]]})
    update = node_frames.Update(records=(node_frames.Signed(b"payload", b"signature"),))
    assert parse(raw_frame(node_frames.Update.TYPE, body)) == [update]


def test_announcement_without_hops_is_one_of_a_node_that_does_not_tell() -> None:
    assert parse(raw_frame(IHave.TYPE, reference.pack({"bundles": []}))) == [IHave(bundles=())]


@given(st.sampled_from(sorted(OWN_TYPES)), st.binary(max_size=200))
def test_random_bytes_in_a_frame_are_a_frame_or_a_violation(number: int, body: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        for frame in parse(raw_frame(number, body)):
            encode_frame(frame)


@given(FRAMES, st.integers(0, 2**32))
def test_mutated_frames_are_frames_or_a_violation(sent: Frame, seed: int) -> None:
    rng = random.Random(seed)
    changed = bytearray(encode_frame(sent))
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    with contextlib.suppress(ProtocolViolation):
        for frame in parse(bytes(changed)):
            encode_frame(frame)
