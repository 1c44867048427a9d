"""Frames and bundles through their encoding and back, and what they weigh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from quicbus import limits
from quicbus.wire.bundles import decode_bundle, encode_bundle, encode_record_front, encode_signature
from quicbus.wire.frames import encode_frame
from quicbus.wire.node_frames import NODE_FRAME_TYPES

if TYPE_CHECKING:
    from collections import Counter

    from quicbus.wire.bundles import Bundle
    from quicbus.wire.frames import Frame
    from quicbus_broker.simulation.network import Host

__all__ = ["PACKET_OVERHEAD", "ByteMeter", "bundle_over_the_wire", "bundle_size", "frame_over_the_wire"]

PACKET_OVERHEAD = 28 + 1 + 8 + 2 + 16 + 4
"""Bytes around the frames of one packet: IPv4 and UDP, flags, connection id, packet number, AEAD tag, STREAM header."""
_RECORD_HEAD = 10
"""Size, kind, hop limit and age in front of a bundle."""


def frame_over_the_wire(frame: Frame) -> Frame:
    """Return what the peer reads; fails for a frame that no peer would take."""
    kind = type(frame)
    assert NODE_FRAME_TYPES[frame.TYPE] is kind
    raw = msgspec.msgpack.encode(frame)
    assert len(raw) <= limits.MAX_CONTROL_FRAME_SIZE, f"{kind.__name__} of {len(raw)} bytes"
    return msgspec.msgpack.decode(raw, type=kind)


def bundle_over_the_wire(bundle: Bundle) -> Bundle:
    signed = bundle.signed or encode_bundle(bundle)
    record = encode_record_front(bundle, len(signed)) + signed + encode_signature(bundle.signature)
    return decode_bundle(bundle.kind, record[5:])


def bundle_size(bundle: Bundle) -> int:
    return _RECORD_HEAD + len(bundle.signed or encode_bundle(bundle)) + 2 + len(bundle.signature)


class ByteMeter:
    """Counts what is sent, by the type of frame; each frame and bundle in a packet of its own."""

    def __init__(self, frames: Counter[str], sizes: Counter[str]) -> None:
        self.frames = frames
        self.sizes = sizes

    def frame(self, host: Host, frame: Frame) -> None:
        name = type(frame).__name__
        self.frames[name] += 1
        self.sizes[name] += len(encode_frame(frame)) + PACKET_OVERHEAD

    def bundle(self, host: Host, bundle: Bundle) -> None:
        self.frames["bundle"] += 1
        self.sizes["bundle"] += bundle_size(bundle) + PACKET_OVERHEAD
