"""All samples of a run, and what is made of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.peers.arithmetic import Spread, spread_of
from benchmarks.peers.shapes import Sample  # noqa: TC001 (msgspec reads the annotations)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.peers.cases import Case
    from benchmarks.peers.seam import Peer

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
    planned: int = 0
    """Cases; a run that was cut off has measured fewer."""
    again: list[str] = field(default_factory=list)
    """Cases that were measured after the others, in a run of their own."""

    @classmethod
    def read(cls, path: Path) -> Results:
        """Return what `as_dict` made, from a JSON file; raises `OSError` and `msgspec.DecodeError`."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def begin_again(self, cases: Sequence[Case]) -> None:
        """Forget what there is of these cases: they are measured once more."""
        names = [case.name for case in cases]
        self.samples = {name: of_peers for name, of_peers in self.samples.items() if name not in names}
        self.failures = [failure for failure in self.failures if failure.case not in names]
        self.again = [*(name for name in self.again if name not in names), *names]

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

    def failures_of(self, case: str, peer: str) -> list[Failure]:
        return [failure for failure in self.failures if (failure.case, failure.peer) == (case, peer)]

    def cases(self) -> list[str]:
        """Return the names of the cases of which a round was tried."""
        return list(dict.fromkeys([*self.samples, *(failure.case for failure in self.failures)]))

    def peers(self, case: str) -> list[str]:
        """Return who was tried in a case, those that gave nothing last."""
        failed = [failure.peer for failure in self.failures if failure.case == case]
        return list(dict.fromkeys([*self.samples.get(case, {}), *failed]))

    def rounds_of(self, case: str) -> int:
        """Return how many rounds were tried, by whoever had most."""
        tried = (
            len(self.samples.get(case, {}).get(peer, [])) + len(self.failures_of(case, peer))
            for peer in self.peers(case)
        )
        return max(tried, default=0)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
