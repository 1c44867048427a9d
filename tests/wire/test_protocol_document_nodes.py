"""docs/protocol.md says what nodes do: its examples, signatures and limits."""

from __future__ import annotations

import re
from pathlib import Path
from zlib import crc32

import msgspec
import pytest

from quicbus import limits
from quicbus.identity.signatures import SignatureContext, _signed_bytes
from quicbus.wire import batch, frames, records
from quicbus.wire.bundles import (
    EVERYONE,
    KIND_BROADCAST,
    KIND_DIRECT,
    KIND_RELAY,
    KIND_RETURNED,
    Bundle,
    BundleBatch,
    decode_bundle,
    encode_bundle,
    encode_record_front,
    encode_signature,
)
from quicbus.wire.node_frames import (
    NODE_FRAME_TYPES,
    Claim,
    IHave,
    InterestEntry,
    InterestPiece,
    MemberRecord,
    Neighbor,
    Signed,
    Update,
)
from quicbus_broker.mesh import conduct, state
from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.health import helping, survey
from quicbus_broker.mesh.interest import interest_table, own_interest
from quicbus_broker.mesh.members import gossip, membership, own_record, turnover
from quicbus_broker.mesh.members.discovery import DIGEST_SIZE, WANT_MAX
from quicbus_broker.mesh.members.table import Entry, MemberTable
from quicbus_broker.mesh.messages import broadcast, heads, missing, pauses, traffic, waiting
from quicbus_broker.mesh.outputs import State
from quicbus_broker.mesh.session import link, node_signing
from tests.wire.test_protocol_document import DOCUMENT, example

OSLO, LIMA = bytes(range(16)), bytes(range(16, 32))
SIGNATURE = bytes.fromhex("aabbccdd")
RECORD = MemberRecord(
    node=OSLO, name="oslo", boot=1, incarnation=3, mode="hybrid", addresses=("192.0.2.1:4433",), chain=(b"\x30\x82",)
)
PIECE = InterestPiece(
    node=OSLO,
    boot=1,
    base=0,
    version=1,
    reset=True,
    added=(InterestEntry("a/+"), InterestEntry("jobs", "workers", True)),
)
BODY = batch.encode_body(b"a/b", [b"hi", b"21.5"], number=1)
LANE = crc32(b"a/b") % limits.LANES
BUNDLES = {
    "broadcast": Bundle(
        KIND_BROADCAST,
        OSLO,
        1,
        9,
        EVERYONE,
        0,
        (BundleBatch(5, LANE, 4, 0, "alice", BODY, after=((LIMA, 2, 7),)),),
        hops=31,
        age_ms=3,
        signature=SIGNATURE,
    ),
    "direct": Bundle(KIND_DIRECT, OSLO, 1, 6, LIMA, 2, (BundleBatch(5, LANE, 7, 0, "alice", BODY),)),
    "relay": Bundle(
        KIND_RELAY,
        OSLO,
        1,
        6,
        LIMA,
        2,
        (BundleBatch(5, LANE, 7, 0, "alice", BODY),),
        hops=2,
        age_ms=3,
        signature=SIGNATURE,
    ),
    "returned": Bundle(
        KIND_RETURNED, LIMA, 2, 8, OSLO, 0, (BundleBatch(5, LANE, 1, 0, "alice", BODY, "workers", "a/+"),)
    ),
}
CONFIG = MeshConfig()
encode = msgspec.msgpack.encode


@pytest.mark.parametrize("name", BUNDLES)
def test_worked_example_of_each_bundle_is_what_the_code_reads_and_writes(name: str) -> None:
    bundle, signed = BUNDLES[name], encode_bundle(BUNDLES[name])
    front = encode_record_front(bundle, len(signed))
    assert front + signed + encode_signature(bundle.signature) == example(name)
    (record,) = records.RecordParser(1000).feed(example(name))
    assert isinstance(record, records.Record)
    assert decode_bundle(record.kind, record.payload) == msgspec.structs.replace(bundle, signed=signed)


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("update", Update(claims=(Claim(OSLO, 3, "suspect", LIMA),))),
        ("neighbor", Neighbor(urgent=True)),
        ("ihave", IHave(bundles=((OSLO, 1, 9),), hops=(31,))),
    ],
)
def test_worked_examples_of_node_frames_are_what_the_code_reads_and_writes(name: str, frame: frames.Frame) -> None:
    assert frames.encode_frame(frame) == example(name)
    assert frames.FrameParser(types=NODE_FRAME_TYPES).feed(example(name)) == [frame]


@pytest.mark.parametrize(("name", "value"), [("member-record", RECORD), ("interest-piece", PIECE)])
def test_worked_examples_of_what_is_signed_are_what_the_code_reads_and_writes(
    name: str, value: MemberRecord | InterestPiece
) -> None:
    assert encode(value) == example(name)
    assert msgspec.msgpack.decode(example(name), type=type(value)) == value


def test_worked_example_of_a_signature_is_what_the_code_signs() -> None:
    assert _signed_bytes(SignatureContext.INTEREST, "0f" * 16, example("interest-piece")) == example("node-signed")


@pytest.mark.parametrize("context", SignatureContext, ids=lambda context: context.name)
def test_every_context_of_a_signature_is_named(context: SignatureContext) -> None:
    assert f"`{context.value.decode()}`" in DOCUMENT


def test_worked_example_of_a_digest_is_what_the_code_computes() -> None:
    table = MemberTable()
    table.put(Entry(RECORD, Signed(encode(RECORD), b""), State.ALIVE))
    alone = table.digest()
    table.set_interest_version(OSLO, 1, 1)
    assert alone[:8] + table.digest()[:8] == example("digest")
    assert alone[8:] == bytes(DIGEST_SIZE - 8)


def test_every_reason_for_which_messages_of_a_mesh_are_dropped_is_described() -> None:
    pattern = r"""(?:dropped|refused)\["(\w+)"\]|_drop\((?:[\w.]+, )?"(\w+)"|_refuse\(node, "(\w+)\""""
    sources = [path.read_text(encoding="utf-8") for path in Path(state.__file__).parent.rglob("*.py")]
    reasons = {"".join(found) for source in sources for found in re.findall(pattern, source)}
    assert len(reasons) > 15, "the pattern finds them"
    table = DOCUMENT[DOCUMENT.index("## 26.") : DOCUMENT.index("## 27.")]
    assert not [reason for reason in sorted(reasons) if f"`{reason}`" not in table]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("at most 8 MiB of records may be on their way", limits.LINK_WINDOW == 8 << 20),
        ("Sent when 2 MiB came", link._REPORT_AFTER == 2 << 20),
        ("bundles that wait for one neighbour | 64 MiB", limits.LINK_QUEUE_SIZE == 64 << 20),
        ("64 MiB; 256 MiB of those whose publishers wait", limits.LINK_WAITING_SIZE == 256 << 20),
        ("a Ping of 2^63 - 2 | 64 MiB", limits.MAX_UNREAD_FRAMES == 64 << 20),
        ("a Ping of 2^63 - 2 | 64 MiB", link._READ_PING == 2**63 - 2),
        ("one bundle | 65 MiB", limits.MAX_BUNDLE_SIZE == 65 << 20),
        ("incomplete records of one connection | 73 MiB", link._MAX_INCOMPLETE == 73 << 20),
        ("closed at 512 KiB of bodies", traffic.BUNDLE_SIZE == 512 << 10),
        ("over 1,024 sessions of nodes", limits.MAX_NODE_CONNECTIONS == 1024),
        ("at most 16, each of at most 260 characters", membership.MAX_ADDRESSES == 16),
        ("at most 16, each of at most 260 characters", membership.MAX_ADDRESS_SIZE == 260),
        ("the payload has at most 32 KiB", node_signing.MAX_RECORD_SIZE == 32 << 10),
        ("interest v1`, at most 200,000 bytes", node_signing.MAX_PIECE_SIZE == 200_000),
        ("neighbours of it, at most 16", membership.MAX_VIA == 16),
        ("filters and groups of one member | 100,000", interest_table.MAX_ENTRIES == 100_000),
        ("10,000, and 50,000 groups", CONFIG.max_interest == 10_000),
        ("10,000, and 50,000 groups", own_interest.MAX_GROUPS == 50_000),
        ("more than 2^32 ahead", own_record.INCARNATION_STEP_MAX == 2**32),
        ("at most 1,000 in one frame", WANT_MAX == 1000),
        ("512 bytes", DIGEST_SIZE == 512),
        ("hop limit, 32 unless set", CONFIG.max_hops == 32),
        ("keeps it for 30 s, in at most 64 MiB", CONFIG.retention_s == 30.0),
        ("keeps it for 30 s, in at most 64 MiB", CONFIG.retention_size == 64 << 20),
        ("within 0.4 to 1.2 s", CONFIG.graft_timeout_s == 0.4),
        ("within 0.4 to 1.2 s", broadcast.GRAFT_JITTER == 3.0),
        ("at most six times", broadcast.MAX_GRAFTS == 6),
        ("more than 8 times", broadcast.MAX_COPIES == 8),
        ("announced and not here | 16,384", missing.MAX_MISSING == 16_384),
        ("A gap is waited for 2 s", CONFIG.gap_timeout_s == 2.0),
        ("At most 64 MiB wait", CONFIG.reorder_size == 64 << 20),
        ("hop limit 2 at the origin", traffic._RELAY_HOPS == 2),
        ("8 MiB for each node, 5 s", waiting.MAX_WAITING_SIZE == 8 << 20),
        ("8 MiB for each node, 5 s", CONFIG.dial_timeout_s == 5.0),
        ("up to 8, more in a large mesh", CONFIG.direct_max == 8),
        ("were not used for 60 s", CONFIG.contact_idle_s == 60.0),
        ("dialed by one node | 64", CONFIG.max_contacts == 64),
        ("grow from 0.5 s to 30 s", (CONFIG.redial_min_s, CONFIG.redial_max_s) == (0.5, 30.0)),
        ("forgotten after 24 h, one that left after 1 h", CONFIG.failed_retention_s == 24 * 3600.0),
        ("forgotten after 24 h, one that left after 1 h", CONFIG.left_retention_s == 3600.0),
        ("pings one neighbour a second", CONFIG.probe_interval_s == 1.0),
        ("without an answer after 0.5 s", CONFIG.probe_timeout_s == 0.5),
        ("false after 0.4 s", helping._ANSWER_SHARE * CONFIG.probe_timeout_s == 0.4),
        ("PingRequest under way | 256", helping._MAX_REQUESTS == 256),
        ("a score from 0 to 8", CONFIG.awareness_max == 8),
        ("one node may pause | 10,000", pauses.MAX_PAUSES == 10_000),
        ("with more than 8 neighbours only to the eager ones", gossip.FLOOD_LINKS == 8),
        ("gathered for 0.2 s", CONFIG.gossip_interval_s == 0.2),
        ("at once, at most every 5 s", survey._INTERVALS * CONFIG.probe_interval_s == 5.0),
        ("say nothing within 1 s", 2 * CONFIG.probe_timeout_s == 1.0),
        ("not said again for 60 s is over", pauses.PAUSE_TIMEOUT_S == 60.0),
        ("without Resume in between ends after 900 s", pauses.PAUSE_MAX_S == 900.0),
        ("remembers for 300 s, in at most 32 MiB", limits.SENT_SHARES_RETENTION_S == 300.0),
        ("remembers for 300 s, in at most 32 MiB", limits.SENT_SHARES_SIZE == 32 << 20),
        ("more than 35 s after the node has joined", CONFIG.retention_s + heads.SLACK_S == 35.0),
        ("filters and groups of one member | 100,000, 8 MiB", limits.MAX_INTEREST_SIZE == 8 << 20),
        ("half of them first announced by one node", missing.MAX_ANNOUNCED_SHARE == 2),
        ("2,000 + 6n members", conduct.Ask.MEMBERS.value == conduct.Allowance(2_000, 200, 6, 0.2)),
        ("more than 16 Neighbor at once and one a second", conduct.Ask.NEIGHBOR.value == conduct.Allowance(16, 1)),
        ("20,000 Pause and Resume, and 500 a second", conduct.Ask.PAUSES.value == conduct.Allowance(20_000, 500)),
        ("1,000 + 10n claims", conduct.Ask.CLAIMS.value == conduct.Allowance(1_000, 25, 10, 0.1)),
        ("256 + 2n records", conduct.Ask.EXPIRED.value == conduct.Allowance(256, 4, 2)),
        ("refutes 16 times at once and then once a second", turnover.REFUTATIONS == (16.0, 1.0)),
        ("refuted 8 times, and then once in 5 s", turnover.ACCUSATIONS == (8.0, 0.2)),
        ("of one member 32 records, and one a second", turnover.RECORDS == (32.0, 1.0)),
        ("forgotten when nothing followed for 600 s", conduct.OFFENCE_MEMORY_S == 600.0),
        ("the 8th time the connections", conduct.MAX_OFFENCES == 8),
        ("In mode `client` 3 are enough in a mesh of more than 6", CONFIG.small_mesh == 6),
        ("one link a minute", CONFIG.rotate_interval_s == 60.0),
        ("Every 5 to 15 s with a random neighbour", CONFIG.discover_interval_s == 10.0),
    ],
)
def test_limits_and_times_of_nodes_are_those_of_the_code(text: str, value: bool) -> None:
    assert re.sub(r"\s+", " ", text.lower()) in re.sub(r"\s+", " ", DOCUMENT.lower())
    assert value, f"docs/protocol.md says {text!r}"
