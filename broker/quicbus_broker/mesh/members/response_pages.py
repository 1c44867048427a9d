"""Cuts answers about many members into frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.wire.node_frames import DiscoveryResponse
from quicbus_broker.mesh.members.gossip import CLAIM_SIZE, FRAME_SIZE, signed_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quicbus.wire.node_frames import Claim, Head, Signed, Summary

__all__ = ["ResponsePages", "summary_pages"]

SUMMARY_SIZE = 64
HEAD_SIZE = 40
"""With 9 bytes more for each lane."""


class ResponsePages:
    """Gathers what is known of members; `finish` returns at least one frame."""

    def __init__(self) -> None:
        self._pages: list[DiscoveryResponse] = []
        self._begin()

    def add_member(self, record: Signed, claims: Sequence[Claim]) -> None:
        """Both in one frame: who learns of a member learns at once that it has failed."""
        self._make_room(signed_size(record) + len(claims) * CLAIM_SIZE)
        self._records.append(record)
        self._claims.extend(claims)

    def add_interest(self, piece: Signed) -> None:
        self._make_room(signed_size(piece))
        self._interest.append(piece)

    def add_head(self, head: Head) -> None:
        self._make_room(HEAD_SIZE + 9 * len(head.lanes))
        self._heads.append(head)

    def finish(self) -> list[DiscoveryResponse]:
        self._close(more=False)
        return self._pages

    def _make_room(self, size: int) -> None:
        if self._size and self._size + size > FRAME_SIZE:
            self._close(more=True)
            self._begin()
        self._size += size

    def _begin(self) -> None:
        self._size = 0
        self._records: list[Signed] = []
        self._claims: list[Claim] = []
        self._interest: list[Signed] = []
        self._heads: list[Head] = []

    def _close(self, *, more: bool) -> None:
        self._pages.append(
            DiscoveryResponse(
                records=tuple(self._records),
                claims=tuple(self._claims),
                interest=tuple(self._interest),
                heads=tuple(self._heads),
                more=more,
            )
        )


def summary_pages(members: Sequence[tuple[int, Sequence[Summary]]]) -> list[DiscoveryResponse]:
    """Return frames that list buckets in full.

    One whose members do not fit a frame, in a mesh of 200,000, is left out: it is never compared.
    """
    pages: list[tuple[list[int], list[Summary]]] = [([], [])]
    for bucket, summaries in members:
        if len(summaries) * SUMMARY_SIZE > FRAME_SIZE:
            continue
        if (len(pages[-1][1]) + len(summaries)) * SUMMARY_SIZE > FRAME_SIZE:
            pages.append(([], []))
        pages[-1][0].append(bucket)
        pages[-1][1].extend(summaries)
    last = len(pages) - 1
    return [
        DiscoveryResponse(buckets=tuple(buckets), summaries=tuple(summaries), more=position < last)
        for position, (buckets, summaries) in enumerate(pages)
    ]
