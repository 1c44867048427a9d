"""From datagrams to connections."""

from __future__ import annotations

from quicbus.transport.demultiplexer import ConnectionTable, connection_id, runs

ONE, TWO = b"11111111", b"22222222"


def short(identifier: bytes, size: int = 20) -> bytes:
    return (b"\x41" + identifier).ljust(size, b"\0")


def long(identifier: bytes, size: int = 20) -> bytes:
    return (b"\xc0\0\0\0\1" + bytes((len(identifier),)) + identifier + b"\0").ljust(size, b"\0")


def test_ids_are_read_from_both_kinds_of_header() -> None:
    assert connection_id(short(ONE)) == ONE
    assert connection_id(long(ONE)) == ONE
    assert connection_id(long(b"")) == b""


def test_what_is_no_quic_datagram_has_no_id() -> None:
    for datagram in (b"", b"\x40", b"\x40" + ONE[:7], b"\x01" + bytes(30), b"\xc0\0\0\0\1", long(bytes(20))[:12]):
        assert connection_id(datagram) is None


def test_a_buffer_of_one_id_is_one_run() -> None:
    buffer = short(ONE) * 5 + short(ONE, 10)
    assert list(runs(buffer, 20)) == [(0, 110, ONE)]


def test_a_buffer_of_mixed_ids_is_cut_where_they_change() -> None:
    buffer = long(ONE) + short(ONE) + short(TWO) + short(TWO) + bytes(20) + short(ONE, 12)
    assert list(runs(buffer, 20)) == [(0, 40, ONE), (40, 80, TWO), (80, 100, None), (100, 112, ONE)]


def test_a_last_segment_too_short_for_an_id_is_a_run_of_its_own() -> None:
    assert list(runs(short(ONE) + b"\x40abc", 20)) == [(0, 20, ONE), (20, 24, None)]


def test_a_connection_is_found_by_each_of_its_ids_until_it_is_removed() -> None:
    table: ConnectionTable[str] = ConnectionTable()
    table.add("a", ONE)
    table.add("a", TWO)
    assert (table.find(ONE), table.find(TWO), len(table), list(table)) == ("a", "a", 1, ["a"])
    table.retire("a", ONE)
    table.retire("a", b"unknown")
    assert (table.find(ONE), table.find(TWO)) == (None, "a")
    table.remove("a")
    table.remove("a")
    assert (table.find(TWO), len(table), "a" in table) == (None, 0, False)


def test_nobody_takes_the_id_of_another_connection() -> None:
    table: ConnectionTable[str] = ConnectionTable()
    table.add("a", ONE)
    table.add("b", ONE, TWO)
    assert table.find(ONE) == "a"
    table.retire("b", ONE)
    table.remove("b")
    assert table.find(ONE) == "a"
    assert table.find(TWO) is None
