"""docs/protocol.md says what the code does: its examples, frames, fields, codes and limits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from quicbus import limits
from quicbus.identity.binding import ChannelBindingSink
from quicbus.identity.proof import _signed_bytes
from quicbus.wire import batch, frames, node_frames, records
from quicbus.wire.close_codes import CREDENTIAL_CODES, CloseCode

if TYPE_CHECKING:
    import msgspec

NODE_FRAMES = [cls for cls in node_frames.NODE_FRAME_TYPES.values() if cls.TYPE not in frames.FRAME_TYPES]
NODE_VALUES = [
    node_frames.Signed,
    node_frames.MemberRecord,
    node_frames.Claim,
    node_frames.Summary,
    node_frames.Head,
    node_frames.InterestPiece,
    node_frames.InterestEntry,
]
DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def example(name: str) -> bytes:
    """Return the bytes of an example: what stands left of `|` in the block of this name."""
    block = re.search(rf"^```hex {name}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert block is not None, f"docs/protocol.md has no example {name!r}"
    return bytes.fromhex(" ".join(line.split("|")[0] for line in block[1].splitlines()))


def channel_binding() -> bytes:
    sink = ChannelBindingSink()
    for label, byte in (("CLIENT", "11"), ("SERVER", "22")):
        sink.write(f"{label}_TRAFFIC_SECRET_0 {'00' * 32} {byte * 32}\n")
    assert sink.binding is not None
    return sink.binding


def test_worked_example_of_a_frame_is_what_the_code_reads_and_writes() -> None:
    assert frames.FrameParser().feed(example("ping")) == [frames.Ping(id=7)]
    assert frames.encode_frame(frames.Ping(id=7)) == example("ping")


def test_worked_example_of_the_peers_is_what_the_code_reads_and_writes() -> None:
    peer = frames.PeerEntry(node="0a" * 16, name="tokyo", state="alive", mode="hybrid", boot=1, is_self=True)
    assert frames.FrameParser().feed(example("peers")) == [frames.Peers(id=1, peers=(peer,))]
    assert frames.encode_frame(frames.Peers(id=1, peers=(peer,))) == example("peers")


def test_worked_example_of_a_batch_is_what_the_code_reads_and_writes() -> None:
    body = batch.encode_body(b"a/b", [b"hi", b"21.5"], number=1)
    assert records.encode_publish(body) == example("publish")
    (record,) = records.RecordParser(1000).feed(example("publish"))
    assert isinstance(record, records.Record)
    assert batch.read_messages(batch.parse_body(record.payload)) == [b"hi", b"21.5"]


def test_worked_example_of_a_request_is_what_the_code_writes() -> None:
    message = batch.message_with_headers(batch.encode_headers({"unit": "C"}), b"21.5")
    flags = batch.FLAG_HEADERS | batch.FLAG_REQUEST
    body = batch.encode_body(b"a/b", [message], number=2, flags=flags, reply_to=b"r/1", expires_in_ms=1500)
    assert records.encode_publish(body) == example("request")


def test_worked_example_of_a_delivery_is_what_the_code_reads_and_writes() -> None:
    envelope = records.Envelope(bytes(range(16)), boot=1, sequence=5, publisher="alice", first=0, age_ms=3)
    body = example("publish")[records.RECORD_OVERHEAD :]
    assert records.encode_delivery(envelope, [(7, 2)], body) == example("message")
    (record,) = records.RecordParser(1000).feed(example("message"))
    assert isinstance(record, records.Record)
    delivery = records.decode_delivery(record.payload)
    assert (delivery.envelope, delivery.subscriptions, delivery.body) == (envelope, ((7, 2),), body)


def test_worked_example_of_the_proof_is_what_the_code_signs() -> None:
    assert channel_binding() == example("binding")
    assert _signed_bytes("0f" * 16, channel_binding(), bytes(range(16)), "client") == example("signed")


@pytest.mark.parametrize("cls", [*frames.FRAME_TYPES.values(), *NODE_FRAMES], ids=lambda cls: cls.__name__)
def test_every_frame_and_each_of_its_fields_is_described(cls: type[frames.Frame]) -> None:
    start = re.search(rf"\*\*{cls.__name__}\*\*\s\(0x{cls.TYPE:02X}[,)]", DOCUMENT)
    assert start is not None, f"{cls.__name__} (0x{cls.TYPE:02X}) is not described"
    section = re.split(r"\n\n\*\*|\n## ", DOCUMENT[start.start() :])[0]
    missing = [name for name in cls.__struct_fields__ if f"`{name}`" not in section]
    if cls is frames.Peers:
        missing += [name for name in frames.PeerEntry.__struct_fields__ if f"`{name}`" not in section]
    if cls is frames.Welcome:
        missing += [name for name in frames.Limits.__struct_fields__ if f"`limits.{name}`" not in section]
    assert not missing, f"{cls.__name__}: {missing} not described"


@pytest.mark.parametrize("cls", NODE_VALUES, ids=lambda cls: cls.__name__)
def test_every_value_of_node_frames_and_each_of_its_fields_is_described(cls: type[msgspec.Struct]) -> None:
    start = re.search(rf"\*\*{cls.__name__}\*\*[, ]", DOCUMENT)
    assert start is not None, f"{cls.__name__} is not described"
    section = re.split(r"\n\n\*\*|\n## ", DOCUMENT[start.start() :])[0]
    missing = [name for name in cls.__struct_fields__ if f"`{name}`" not in section]
    assert not missing, f"{cls.__name__}: {missing} not described"
    if cls.__struct_config__.array_like:
        places = [section.index(f"`{name}`") for name in cls.__struct_fields__]
        assert places == sorted(places), "elements of an array are described in their order"


@pytest.mark.parametrize("code", CloseCode, ids=lambda code: code.name)
def test_every_close_code_says_what_a_client_does(code: CloseCode) -> None:
    number = f"0x{code.value:0{3 if code in CREDENTIAL_CODES else 2}x}"
    assert re.search(rf"^\| {number} \| {code.name} \|([^|]+\|){{3}}$", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("`quicbus/1`", frames.ALPN == "quicbus/1"),
        ("1 MiB unless set", limits.MAX_MESSAGE_SIZE == 1 << 20),
        ("`max_headers_size`, 16 KiB", limits.MAX_HEADERS_SIZE == 16 << 10),
        ("`max_message_size` + 64 KiB", limits.BATCH_OVERHEAD == 64 << 10),
        ("65,535 bytes", limits.MAX_TOPIC_SIZE == 65_535),
        ("`max_subscriptions`, 10,000", limits.MAX_SUBSCRIPTIONS == 10_000),
        ("`max_filters_size`, 1 MiB", limits.MAX_FILTERS_SIZE == 1 << 20),
        ("16,384 messages, 8 MiB", limits.SUBSCRIPTION_WINDOW_MESSAGES == 16_384),
        ("16,384 messages, 8 MiB", limits.SUBSCRIPTION_WINDOW_SIZE == 8 << 20),
        ("at least 4 MiB", limits.PUBLISH_WINDOW == 4 << 20),
        ("256 KiB; 8 KiB before the proof", limits.MAX_CONTROL_FRAME_SIZE == 256 << 10),
        ("256 KiB; 8 KiB before the proof", limits.MAX_CONTROL_FRAME_SIZE_BEFORE_PROOF == 8 << 10),
        ("8 each way", limits.LANES == 8),
        ("at most 500 bytes", limits.MAX_CLOSE_REASON_SIZE == 500),
        ("64 KiB before the proof, granted credit + 1 MiB", limits.UNDELIVERED_BEFORE_PROOF == 64 << 10),
        ("64 KiB before the proof, granted credit + 1 MiB", limits.UNDELIVERED_SLACK == 1 << 20),
        ("for 30 s the subscription ends", limits.BLOCK_TIMEOUT_S == 30),
        ("| 10 s | HANDSHAKE_TIMEOUT", limits.HANDSHAKE_TIMEOUT_S == 10),
        ("the 9th time", limits.MAX_REFUSED_OVERSIZE == 8),
    ],
)
def test_limits_are_those_of_the_code(text: str, value: bool) -> None:
    assert text in DOCUMENT
    assert value, f"docs/protocol.md says {text!r}"


def test_links_within_the_document_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", DOCUMENT, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\(#([^)]+)\)", DOCUMENT)) <= anchors
