from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicbus.wire.varint import decode_varint, encode_varint


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        # RFC 9000, appendix A.1
        ("c2197c5eff14e88c", 151_288_809_941_952_652),
        ("9d7f3e7d", 494_878_333),
        ("7bbd", 15_293),
        ("25", 37),
        ("4025", 37),
    ],
)
def test_examples_of_rfc_9000_decode(encoded: str, value: int) -> None:
    data = bytes.fromhex(encoded)
    assert decode_varint(data) == (value, len(data))


@given(st.integers(0, 2**62 - 1), st.binary(max_size=4), st.binary(max_size=4))
def test_varint_round_trips_anywhere_in_the_data(value: int, before: bytes, after: bytes) -> None:
    encoded = encode_varint(value)
    data = before + encoded + after
    assert decode_varint(data, len(before)) == (value, len(before) + len(encoded))


@pytest.mark.parametrize("value", [0, 63, 64, 16_383, 16_384, 2**30 - 1, 2**30, 2**62 - 1])
def test_varint_takes_the_shortest_form(value: int) -> None:
    encoded = encode_varint(value)
    assert len(encoded) == next(size for size in (1, 2, 4, 8) if value < 1 << (8 * size - 2))
    assert decode_varint(encoded) == (value, len(encoded))


@given(st.integers(0, 2**62 - 1))
def test_varint_that_is_cut_short_waits_for_the_rest(value: int) -> None:
    encoded = encode_varint(value)
    assert all(decode_varint(encoded[:size]) is None for size in range(len(encoded)))


@pytest.mark.parametrize("value", [-1, 2**62])
def test_value_that_does_not_fit_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_varint(value)
