"""Offences and allowances: what is counted, when it costs the link, and what comes back with time."""

from __future__ import annotations

from quicbus_broker.mesh.conduct import MAX_OFFENCES, OFFENCE_MEMORY_S, Ask, Bucket, Conduct

NODE, OTHER = b"n" * 16, b"o" * 16


def test_the_eighth_offence_ends_the_connections_and_counting_begins_anew() -> None:
    conduct = Conduct(lambda: 0)
    told = [conduct.offended(NODE, "forged", 0.0) for _ in range(MAX_OFFENCES)]
    assert told[:-1] == [""] * (MAX_OFFENCES - 1)
    assert "forged" in told[-1]
    assert conduct.offended(NODE, "forged", 0.0) == ""
    assert conduct.refused == {"misbehaved": MAX_OFFENCES + 1}


def test_offences_of_others_do_not_count_and_old_ones_are_forgotten() -> None:
    conduct = Conduct(lambda: 0)
    for step in range(3 * MAX_OFFENCES):
        assert conduct.offended(OTHER if step % 2 else NODE, "rare", step * OFFENCE_MEMORY_S) == ""
    for _ in range(MAX_OFFENCES - 1):
        assert conduct.offended(NODE, "often", 1e6) == ""
    assert conduct.offended(NODE, "often", 1e6 + OFFENCE_MEMORY_S)


def test_what_is_dear_is_had_so_often_and_again_with_time() -> None:
    conduct = Conduct(lambda: 0)
    assert [conduct.allows(NODE, Ask.NEIGHBOR, 0.0) for _ in range(17)] == [True] * 16 + [False]
    assert conduct.allows(OTHER, Ask.NEIGHBOR, 0.0)
    assert [conduct.allows(NODE, Ask.NEIGHBOR, 2.5) for _ in range(3)] == [True, True, False]
    conduct.forget(NODE)
    assert conduct.allows(NODE, Ask.NEIGHBOR, 2.5)


def test_the_larger_the_mesh_the_more_may_be_asked() -> None:
    conduct = Conduct(lambda: 10_000)
    assert [conduct.allows(NODE, Ask.MEMBERS, 0.0, 10_000) for _ in range(7)] == [True] * 6 + [False]
    assert conduct.allows(NODE, Ask.MEMBERS, 5.0, 10_000)


def test_what_costs_more_than_there_ever_is_is_had_once_all_is_there() -> None:
    bucket = Bucket(10.0, 0.0)
    assert bucket.take(25.0, 10.0, 1.0, 0.0)
    assert not bucket.take(1.0, 10.0, 1.0, 15.0)
    assert bucket.take(1.0, 10.0, 1.0, 16.0)
