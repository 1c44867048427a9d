"""All samples of a run, and what is made of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.peers.arithmetic import Spread, spread_of

if TYPE_CHECKING:
    from benchmarks.peers.cases import Case
    from benchmarks.peers.seam import Peer
    from benchmarks.peers.shapes import Sample

__all__ = ["Failure", "Results"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A round that gave nothing."""

    case: str
    peer: str
    why: str


@dataclass
class Results:
    """`samples[case][peer]` holds one sample a round."""

    machine: dict[str, str]
    rounds: int
    versions: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def note_peer(self, peer: Peer) -> None:
        if peer.missing:
            self.skipped[peer.name] = peer.missing
        else:
            self.versions.update(peer.versions)

    def add(self, case: Case, peer: Peer, sample: Sample) -> None:
        self.samples.setdefault(case.name, {}).setdefault(peer.name, []).append(sample)

    def spread(self, case: str, peer: str, metric: str) -> Spread | None:
        """Return the median and the spread of a metric over the rounds; `None` where it was not measured."""
        samples = self.samples.get(case, {}).get(peer, [])
        return spread_of(sample[metric] for sample in samples if metric in sample)

    def lost(self, case: str, peer: str) -> int:
        return int(sum(sample.get("lost", 0) for sample in self.samples.get(case, {}).get(peer, [])))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
