"""A link between two nodes, both ends of it: how it opens, what it carries, how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.identity import Authority, ProofRefused
from quicbus.wire.close_codes import CloseCode
from quicbus.wire.frames import STREAM_TYPE_CONTROL, STREAM_TYPE_LANE, Ping, Pong, Subscribe, encode_frame
from quicbus.wire.node_frames import LinkTaken, Neighbor, Prune, Reached, Signed, Update
from tests.broker.mesh.linked import Pair, authority, direct, node_credential

if TYPE_CHECKING:
    from quicbus_broker.edge.nodes import NodeArrival
    from quicbus_broker.mesh.session.link import Link


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
def test_a_link_opens_when_both_have_proved_who_they_are(chunk_size: int | None) -> None:
    pair = Pair(chunk_size=chunk_size)

    at_oslo, at_tokyo = pair.open()

    assert (at_oslo.node, at_oslo.boot) == (pair.tokyo.me, 7)
    assert (at_tokyo.node, at_tokyo.boot, at_tokyo.name) == (pair.oslo.me, 3, "oslo")
    assert pair.oslo.observed == "127.0.0.1:50000"
    window = limits.LINK_WINDOW + limits.UNDELIVERED_SLACK
    assert (pair.pipe.dialer.undelivered_allowed, pair.pipe.listener.undelivered_allowed) == (window, window)


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_frames_go_both_ways(chunk_size: int | None) -> None:
    pair = Pair(chunk_size=chunk_size)
    at_oslo, at_tokyo = pair.open()

    at_oslo.send(Neighbor(urgent=True))
    at_oslo.send(Ping(id=1))
    at_tokyo.send(Pong(id=1))
    pair.pipe.pump()

    assert pair.tokyo.frames == [Neighbor(urgent=True), Ping(id=1)]
    assert pair.oslo.frames == [Pong(id=1)]


@pytest.mark.parametrize("chunk_size", [None, 1, 100])
def test_bundles_go_both_ways_and_their_bytes_are_reported_as_taken(chunk_size: int | None) -> None:
    pair = Pair(chunk_size=chunk_size)
    at_oslo, at_tokyo = pair.open()

    for sequence in (1, 2):
        assert at_oslo.send_bundle(direct(sequence, lane=sequence), False) == []
    at_tokyo.send_bundle(direct(9), False)
    pair.pipe.pump()

    assert sorted(bundle.number for bundle in pair.tokyo.bundles) == [1, 2]
    assert [bundle.batches for bundle in pair.oslo.bundles] == [direct(9).batches]
    assert at_oslo.outbox.is_empty
    assert at_oslo.outbox.under_way == at_tokyo.outbox.under_way == 0


def test_more_than_a_window_gets_through_as_the_neighbour_takes_it() -> None:
    pair = Pair()
    at_oslo, _ = pair.open()
    for sequence in range(1, 41):
        at_oslo.send_bundle(direct(sequence, bytes(1 << 20)), True)

    pair.pipe.pump()

    assert [bundle.number for bundle in pair.tokyo.bundles] == list(range(1, 41))
    assert at_oslo.outbox.under_way == 0
    assert pair.oslo.congestion == [True, False]


def test_the_oldest_goes_where_a_neighbour_takes_nothing() -> None:
    pair = Pair()
    at_oslo, _ = pair.open()
    dropped = [
        bundle.number
        for sequence in range(1, 71)
        for bundle in at_oslo.send_bundle(direct(sequence, bytes(1 << 20)), False)
    ]

    assert dropped == list(range(1, 8))
    assert pair.oslo.congestion == []


def test_the_owner_may_still_write_when_a_turn_ends() -> None:
    pair = Pair()
    at_oslo, _ = pair.open()
    before = pair.oslo.turns

    at_oslo.send(Prune())
    pair.pipe.pump()

    assert pair.oslo.turns > before


def test_a_bundle_that_overtakes_the_acceptance_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    take = pair.tokyo.take

    def take_and_send(arrival: NodeArrival) -> Link:
        link = take(arrival)
        link.send_bundle(direct(5), False)
        link._write_lanes()  # Accepted leaves at the end of the turn
        return link

    monkeypatch.setattr(pair.tokyo, "take", take_and_send)
    pair.open()

    assert [bundle.number for bundle in pair.oslo.bundles] == [5]


# --- who does not get in ----------------------------------------------------------------------------------------------


def refusal(pair: Pair) -> tuple[str, bool]:
    pair.start()
    assert pair.oslo.link is None
    (failure,) = pair.oslo.failures
    return failure


def test_a_client_certificate_is_refused_with_a_sentence() -> None:
    why, is_final = refusal(Pair(authority().issue_client("alice")))

    assert is_final
    assert why == (
        "a client certificate (alice) can't open a node session; use a node credential, as `quicbus cert issue --node "
        "NAME --out DIR` writes it"
    )


def test_a_node_of_another_mesh_is_refused_with_a_sentence() -> None:
    stranger = Authority.create().issue_node("oslo")
    pair = Pair(stranger)

    why, is_final = refusal(pair)

    assert is_final
    assert f"is of mesh {stranger.mesh}, this broker of mesh {authority().mesh}" in why
    assert pair.edge.statistics().refused == {"credential_other_mesh": 1}


def test_an_expired_node_is_refused() -> None:
    pair = Pair()
    pair.wall_clock = node_credential("oslo").not_after.replace(year=2099)

    why, is_final = refusal(pair)

    assert is_final
    assert "expired" in why


def test_a_broker_that_takes_no_nodes_says_so() -> None:
    why, is_final = refusal(Pair(takes_nodes=False))

    assert is_final
    assert "sessions of kind client, not node" in why


def test_another_node_than_the_expected_one_is_no_link() -> None:
    other = node_credential("lima").node_id

    why, is_final = refusal(Pair(expected=other))

    assert not is_final
    assert why == f"node {node_credential('tokyo').node_id.hex()} answers where node {other.hex()} was expected"


def test_the_expected_node_is_a_link() -> None:
    Pair(expected=node_credential("tokyo").node_id).open()


def test_a_node_that_dials_itself_gives_up_for_good() -> None:
    pair = Pair(node_credential("tokyo"), node_credential("tokyo"), listener_boot=3)

    assert refusal(pair) == ("this is the node itself", True)
    assert pair.oslo.met == []


def test_another_process_with_the_same_key_is_reported() -> None:
    pair = Pair(node_credential("tokyo"), node_credential("tokyo"), listener_boot=8)

    why, is_final = refusal(pair)

    assert (why, is_final) == ("another process has this node's key, boot 8", True)
    assert pair.oslo.met == [8]


def test_a_welcome_of_another_node_than_the_certificate_is_a_violation() -> None:
    pair = Pair()
    pair.pipe.dialer.listener_node = node_credential("lima").node_id

    why, is_final = refusal(pair)

    assert not is_final
    assert "Welcome says node" in why


def test_a_second_way_to_the_same_node_is_given_up() -> None:
    pair = Pair()
    pair.oslo.wanted = False

    assert refusal(pair) == ("there is a connection to this node already", False)


def test_a_listener_that_is_revoked_gets_no_proof() -> None:
    pair = Pair()
    pair.oslo.revoked = pair.tokyo.me

    why, is_final = refusal(pair)

    assert is_final
    assert "the key of this node was revoked" in why
    assert pair.tokyo.address == ""


def test_the_mesh_may_refuse_a_node() -> None:
    pair = Pair()
    pair.tokyo.refuses = ProofRefused(CloseCode.GOING_AWAY, "try again later")

    assert refusal(pair) == ("try again later", False)


def test_clients_that_fill_the_broker_do_not_keep_nodes_out() -> None:
    pair = Pair()
    pair.admission.open = pair.admission.limits.max_connections

    pair.open()


def test_nodes_have_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_NODE_CONNECTIONS", 0)

    why, is_final = refusal(Pair())

    assert not is_final
    assert why == "0 nodes of 0 are connected; try another one, or again in 10 s"


def test_a_broken_connection_is_a_failure_to_be_tried_again() -> None:
    pair = Pair()
    pair.pipe.start(pair.dialer, pair.edge.make_session(pair.pipe.listener, pair.admission))
    pair.pipe.break_off("idle")
    pair.pipe.pump()

    assert pair.oslo.failures == [("idle", False)]


def test_giving_up_is_told_once() -> None:
    pair = Pair()
    pair.pipe.start(pair.dialer, pair.edge.make_session(pair.pipe.listener, pair.admission))
    pair.dialer.give_up("no answer within 5 s")
    pair.dialer.give_up("again")
    pair.pipe.pump()

    assert pair.oslo.failures == [("no answer within 5 s", False)]


# --- how it ends ------------------------------------------------------------------------------------------------------


def test_a_close_reaches_both_owners_with_its_reason() -> None:
    pair = Pair()
    at_oslo, _ = pair.open()

    at_oslo.close(CloseCode.REPLACED, "there is another one")
    pair.pipe.pump()

    (here,), (there,) = pair.oslo.terminations, pair.tokyo.terminations
    assert (here.is_local, here.code) == (True, CloseCode.REPLACED)
    assert (there.is_local, there.reason) == (False, "there is another one")
    assert pair.admission.open_nodes == 0


def test_nodes_are_no_clients_in_the_statistics_and_at_the_end() -> None:
    pair = Pair()
    pair.open()

    assert pair.edge.statistics().connections == pair.edge.statistics().accepted == 0
    pair.edge.go_away("stopping", 1.0)
    assert pair.edge.close_drained()
    pair.edge.close()
    pair.pipe.pump()
    assert pair.tokyo.terminations == []


@pytest.mark.parametrize(
    ("stream_id", "data", "why"),
    [
        (2, b"\x01\x01\x00", "Welcome"),
        (2, encode_frame(LinkTaken(size=1)), "LinkTaken of 1 bytes"),
        (6, bytes((STREAM_TYPE_CONTROL,)), "a second control stream"),
        (6, bytes((STREAM_TYPE_LANE,)) + b"\x00\x00\x00\x00\x03", "a record without a kind"),
        (6, bytes((STREAM_TYPE_LANE,)) + b"\x06\x00\x00\x00\x03" + bytes(5), "bundle: "),
        (6, bytes((STREAM_TYPE_LANE,)) + b"\xff\xff\xff\xff\x03" + bytes(32), "a bundle of 4294967295 bytes"),
    ],
)
def test_what_no_honest_node_sends_closes_the_link(stream_id: int, data: bytes, why: str) -> None:
    pair = Pair()
    _, at_tokyo = pair.open()

    at_tokyo.stream_data(stream_id, data, False)
    pair.pipe.pump()

    ((code, reason),) = pair.tokyo.violations
    assert code is CloseCode.PROTOCOL_VIOLATION
    assert why in reason
    (termination,) = pair.oslo.terminations
    assert termination.code == CloseCode.PROTOCOL_VIOLATION


def test_more_lanes_than_there_are_close_the_link() -> None:
    pair = Pair()
    _, at_tokyo = pair.open()

    for lane in range(limits.LANES + 1):
        at_tokyo.stream_data(6 + 4 * lane, bytes((STREAM_TYPE_LANE,)), False)

    assert pair.tokyo.violations == [(CloseCode.PROTOCOL_VIOLATION, f"more than {limits.LANES} lanes")]


def test_incomplete_records_on_all_lanes_close_the_link() -> None:
    pair = Pair()
    _, at_tokyo = pair.open()
    head = bytes((STREAM_TYPE_LANE,)) + limits.MAX_BUNDLE_SIZE.to_bytes(4, "little") + b"\x03"
    part = bytes(limits.LINK_WINDOW + 1)

    lanes = range(limits.LANES)
    for lane in lanes:
        at_tokyo.stream_data(6 + 4 * lane, head, False)
    for lane in lanes:
        at_tokyo.stream_data(6 + 4 * lane, part, False)
    assert pair.tokyo.violations == [], "one long record, and a window of others"
    at_tokyo.stream_data(6, part, False)
    at_tokyo.stream_data(10, part, False)

    ((_, reason),) = pair.tokyo.violations
    assert "of incomplete records" in reason


def test_any_number_of_frames_gets_to_a_neighbour_that_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNREAD_FRAMES", 4 << 20)
    pair = Pair()
    at_oslo, _ = pair.open()
    large = Update(interest=(Signed(bytes(200_000), b""),))

    for _ in range(5):
        for _ in range(10):
            at_oslo.send(large)
        pair.pipe.pump()

    assert pair.oslo.violations == []
    assert set(pair.tokyo.frames) == {large}, "nor does the mesh hear of the Pings in between"


def test_a_neighbour_that_reads_no_frames_is_closed_before_they_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_UNREAD_FRAMES", 4 << 20)
    pair = Pair()
    at_oslo, _ = pair.open()
    large = Update(interest=(Signed(bytes(200_000), b""),))

    while not at_oslo.is_closed and at_oslo._control.sent_size < 2 * limits.MAX_UNREAD_FRAMES:
        at_oslo.send(large)
        at_oslo.before_transmit()

    ((code, reason),) = pair.oslo.violations
    assert code is CloseCode.STALLED
    assert "read the control stream" in reason
    assert at_oslo._control.sent_size < limits.MAX_UNREAD_FRAMES + 300_000


def test_records_and_streams_of_later_versions_are_skipped() -> None:
    pair = Pair()
    _, at_tokyo = pair.open()

    at_tokyo.stream_data(6, bytes((STREAM_TYPE_LANE,)) + b"\x03\x00\x00\x00\x77ab", False)
    at_tokyo.stream_data(10, b"\x55whatever", False)
    at_tokyo.stream_data(10, b"more", True)

    assert pair.tokyo.violations == []
    assert pair.pipe.listener.stopped == [(10, CloseCode.GOODBYE)]


def test_frames_of_clients_are_skipped_on_a_link() -> None:
    pair = Pair()
    _, at_tokyo = pair.open()
    frame = Subscribe(id=1, filter="a", max_pending=1, max_pending_size=1, window_messages=1, window_size=1)

    at_tokyo.stream_data(2, encode_frame(frame) + encode_frame(Prune()), False)

    assert pair.tokyo.frames == [Prune()]


@pytest.mark.parametrize("stream_id", [2, 6])
def test_streams_of_a_link_do_not_end(stream_id: int) -> None:
    pair = Pair()
    _, at_tokyo = pair.open()
    at_tokyo.stream_data(6, bytes((STREAM_TYPE_LANE,)), False)

    at_tokyo.stream_data(stream_id, b"", True)

    assert pair.tokyo.violations == [(CloseCode.PROTOCOL_VIOLATION, f"stream {stream_id} ended")]


# --- certificates that end --------------------------------------------------------------------------------------------


def test_a_node_is_asked_for_its_proof_again_before_its_certificate_ends() -> None:
    pair = Pair()
    pair.oslo.credential = authority().issue_node("oslo", days=1, key=node_credential("oslo").private_key)
    pair.open()
    pair.oslo.credential = node_credential("oslo")

    pair.now += 86_400 - 30
    pair.edge.tick()
    pair.pipe.pump()
    pair.now += 10_000
    pair.edge.tick()
    pair.pipe.pump()

    assert pair.tokyo.terminations == []


def test_a_node_whose_certificate_ends_is_closed_with_the_remedy() -> None:
    pair = Pair()
    pair.oslo.credential = authority().issue_node("oslo", days=1, key=node_credential("oslo").private_key)
    pair.open()

    pair.now += 86_400 + 1
    pair.edge.tick()
    pair.pipe.pump()

    (termination,) = pair.oslo.terminations
    assert termination.code == CloseCode.CREDENTIAL_EXPIRED
    assert "quicbus cert issue --node oslo --out DIR" in termination.reason


def test_where_the_dialer_was_reached_is_said_once_and_by_the_listener() -> None:
    pair = Pair()
    _, accepted = pair.open()
    accepted.send(Reached(address="192.0.2.7:1"))
    pair.pipe.pump()
    assert pair.oslo.frames[-1] == Reached(address="192.0.2.7:1")
    accepted.send(Reached(address="192.0.2.8:1"))
    pair.pipe.pump()
    assert pair.oslo.violations == [(CloseCode.PROTOCOL_VIOLATION, "Reached, which a listener says once")]


def test_a_dialer_says_nobody_where_it_was_reached() -> None:
    pair = Pair()
    dialed, _ = pair.open()
    dialed.send(Reached(address="192.0.2.7:1"))
    pair.pipe.pump()
    assert pair.tokyo.violations == [(CloseCode.PROTOCOL_VIOLATION, "Reached, which a listener says once")]
