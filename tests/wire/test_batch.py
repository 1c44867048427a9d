from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicbus import limits
from quicbus.exceptions import ProtocolViolation
from quicbus.wire.batch import (
    FLAG_HEADERS,
    FLAG_REQUEST,
    FLAG_WIDE,
    decode_headers,
    encode_body,
    encode_headers,
    message_with_headers,
    parse_body,
    peek_body,
    read_messages,
    slice_body,
    split_headers,
)
from tests.wire import reference
from tests.wire.strategies import MESSAGES, TEXT, U64, bodies


def body_bytes(
    sizes: list[int],
    messages: bytes,
    *,
    flags: int = 0,
    count: int | None = None,
    number: int = 1,
    topic: bytes = b"t",
    topic_size: int | None = None,
) -> bytes:
    """Write a body by hand, so that it may lie."""
    head = struct.pack(
        "<BHHIQQ",
        flags,
        len(topic) if topic_size is None else topic_size,
        0,
        len(sizes) if count is None else count,
        number,
        0,
    )
    return head + topic + struct.pack(f"<{len(sizes)}{'I' if flags & FLAG_WIDE else 'H'}", *sizes) + messages


MALFORMED = [
    (b"", "a batch of 0 bytes is shorter than its fixed part"),
    (body_bytes([1], b"x")[:24], "a batch of 24 bytes is shorter than its fixed part"),
    (body_bytes([1], b"x", flags=0x88), "unknown batch flags 0x88"),
    (body_bytes([], b""), "a batch without messages"),
    (body_bytes([1], b"x", number=0), "batches are numbered from 1"),
    (body_bytes([1], b"x", count=2**32 - 1), "cannot hold a table of 4294967295 sizes"),
    (body_bytes([1], b"x", topic_size=0xFFFF), "cannot hold a table of 1 sizes"),
    (body_bytes([2], b"x"), "the sizes of a batch add up to 2 bytes, but 1 bytes follow its table"),
    (body_bytes([1], b"xx"), "the sizes of a batch add up to 1 bytes, but 2 bytes follow its table"),
    (body_bytes([1, 2], b"xx"), "the sizes of a batch add up to 3 bytes, but 2 bytes follow its table"),
    (body_bytes([3, 3], b"xxxxx"), "the sizes of a batch add up to 6 bytes, but 5 bytes follow its table"),
    (body_bytes([2**32 - 1, 2], b"x", flags=FLAG_WIDE), "add up to 4294967297 bytes"),
]


@given(
    st.binary(max_size=300),
    MESSAGES,
    st.integers(1, 2**64 - 1),
    st.sampled_from([0, FLAG_HEADERS, FLAG_REQUEST, FLAG_HEADERS | FLAG_REQUEST]),
    st.binary(max_size=300),
    U64,
)
def test_body_round_trips(
    topic: bytes, messages: list[bytes], number: int, flags: int, reply_to: bytes, expires_in_ms: int
) -> None:
    raw = encode_body(topic, messages, number=number, flags=flags, reply_to=reply_to, expires_in_ms=expires_in_ms)
    body = parse_body(raw)
    assert read_messages(body) == messages
    assert (body.raw, body.topic, body.reply_to) == (raw, topic, reply_to)
    assert (body.flags, body.number, body.expires_in_ms) == (flags, number, expires_in_ms)
    sizes = list(map(len, messages))
    assert (body.count, list(body.sizes), body.total, body.largest) == (len(sizes), sizes, sum(sizes), max(sizes))
    assert raw[body.messages_start :] == b"".join(messages)
    assert peek_body(raw[:32]) == (len(messages), number)


@pytest.mark.parametrize(("size", "flags"), [(0xFFFF, 0), (0x1_0000, FLAG_WIDE)])
@pytest.mark.parametrize("others", [[], [b""], [b"abc", b"de"]])
def test_table_is_wide_only_where_a_message_needs_it(size: int, flags: int, others: list[bytes]) -> None:
    messages = [*others, bytes(size)]
    body = parse_body(encode_body(b"t", messages, number=1, flags=FLAG_WIDE))
    assert body.flags == flags
    assert read_messages(body) == messages


@given(st.data(), bodies())
def test_slice_of_a_body_is_the_body_of_a_slice(data: st.DataObject, raw: bytes) -> None:
    body = parse_body(raw)
    start = data.draw(st.integers(0, body.count - 1))
    stop = data.draw(st.integers(start + 1, body.count))
    part = slice_body(body, start, stop)
    assert read_messages(part) == read_messages(body)[start:stop]
    assert parse_body(part.raw) == part
    assert (part.topic, part.reply_to, part.number, part.flags, part.expires_in_ms) == (
        body.topic,
        body.reply_to,
        body.number,
        body.flags,
        body.expires_in_ms,
    )


@pytest.mark.parametrize(("raw", "why"), MALFORMED)
def test_body_that_lies_is_a_violation(raw: bytes, why: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        parse_body(raw)
    assert why in caught.value.detail


@given(bodies(), st.data())
def test_body_that_is_cut_short_is_a_violation(raw: bytes, data: st.DataObject) -> None:
    whole = parse_body(raw)
    end = data.draw(st.integers(0, len(raw) - 1))
    if whole.total or end < whole.messages_start:
        with pytest.raises(ProtocolViolation):
            parse_body(raw[:end])


def test_wide_table_of_small_sizes_is_taken() -> None:
    assert read_messages(parse_body(body_bytes([1, 2], b"abb", flags=FLAG_WIDE))) == [b"a", b"bb"]


def test_head_that_is_too_short_to_peek_into_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="shorter than its fixed part"):
        peek_body(bytes(24))


@given(st.dictionaries(TEXT, TEXT, max_size=5), st.binary(max_size=50))
def test_headers_round_trip_in_front_of_their_payload(headers: dict[str, str], payload: bytes) -> None:
    message = message_with_headers(encode_headers(headers), payload)
    encoded, rest = split_headers(message)
    assert (decode_headers(encoded), rest) == (headers, payload)


@given(st.dictionaries(TEXT, TEXT, max_size=5))
def test_headers_are_plain_msgpack(headers: dict[str, str]) -> None:
    assert reference.unpack(encode_headers(headers)[2:]) == headers
    assert decode_headers(reference.pack(headers)) == headers


def test_message_without_headers_in_a_batch_with_headers_has_an_empty_field() -> None:
    assert message_with_headers(b"", b"payload") == b"\0\0payload"
    assert split_headers(b"\0\0payload") == (b"", b"payload")
    assert decode_headers(b"") == {}


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "shorter than the size of its headers"),
        (b"\1", "shorter than the size of its headers"),
        (b"\2\0x", "longer than their message"),
        (struct.pack("<H", limits.MAX_HEADERS_SIZE + 1) + bytes(20_000), "longer than"),
    ],
)
def test_headers_beyond_their_message_are_a_violation(message: bytes, why: str) -> None:
    with pytest.raises(ProtocolViolation, match=why):
        split_headers(message)


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x01",
        b"\x81\xa1a",
        b"\x81\xa1a\x01",
        b"\x81\x01\xa1a",
        b"\x81\xa1a\xc0",
        b"\x81\xa1\xff\xa1a",
        b"\x80\x00",
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 5000,
    ],
)
def test_headers_that_are_no_map_of_strings_are_a_violation(encoded: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="headers: "):
        decode_headers(encoded)


@pytest.mark.parametrize("headers", [{"a": 1}, {1: "a"}, {"a": None}, {"a": b"b"}])
def test_headers_of_other_types_are_refused_at_the_caller(headers: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="headers map str to str"):
        encode_headers(headers)


def test_headers_over_the_limit_or_with_a_lone_surrogate_are_refused_at_the_caller() -> None:
    fits = "x" * (limits.MAX_HEADERS_SIZE - 6)
    assert len(encode_headers({"a": fits})) == limits.MAX_HEADERS_SIZE + 2
    with pytest.raises(ValueError, match="headers have 16385 bytes, at most 16384 may be"):
        encode_headers({"a": fits + "x"})
    with pytest.raises(ValueError, match="surrogates"):
        encode_headers({"a": "\ud800"})
