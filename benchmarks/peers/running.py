"""A whole run, unattended: rounds of all cases, each of all peers in turn. What fails is noted, and the run goes on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.peers.results import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.peers.cases import Case
    from benchmarks.peers.results import Results
    from benchmarks.peers.seam import Peer
    from benchmarks.peers.shapes import Effort

__all__ = ["Run", "reason"]

_TRIES = 2
"""A peer that failed so many rounds of a case is not tried again: its time-outs take minutes."""
_REASON_SIZE = 240


@dataclass
class Run:
    """Measures `cases` of `peers` into `results`."""

    cases: Sequence[Case]
    peers: Sequence[Peer]
    effort: Effort
    results: Results
    done: int = 0
    """Rounds."""
    case: Case | None = None
    """What is measured just now."""

    @property
    def rounds(self) -> int:
        return self.results.rounds * sum(len(self._peers(case)) for case in self.cases)

    def steps(self) -> Iterator[tuple[Case, Peer | None]]:
        """Measure; yields the case and the peer before each round, and the case alone when all peers had theirs.

        All cases have their first round before any has its second: a run that is cut off has measured each.
        """
        self._began = time.monotonic()
        for _ in range(self.results.rounds):
            for case in self.cases:
                self.case = case
                for peer in self._peers(case):
                    yield case, peer
                    self._round(case, peer)
                    self.done += 1
                yield case, None

    def time_text(self) -> str:
        """Return how long it took, and how long the rest will if its rounds take as long."""
        took_s = time.monotonic() - self._began
        left_s = took_s / max(1, self.done) * (self.rounds - self.done)
        return f"round {self.done} of {self.rounds}, {took_s / 60:.1f} min, about {left_s / 60:.0f} min left"

    def _peers(self, case: Case) -> list[Peer]:
        return [peer for peer in self.peers if case.takes(peer)]

    def _round(self, case: Case, peer: Peer) -> None:
        if len(self.results.failures_of(case.name, peer.name)) >= _TRIES:
            return
        begin = time.monotonic()
        try:
            sample = case.run(peer, self.effort)
        except Exception as error:  # whatever a server, a library or a worker does must not end the run
            self.results.failures.append(Failure(case.name, peer.name, reason(error)))
        else:
            self.results.add(case, peer, {**sample, "round_s": time.monotonic() - begin})


def reason(error: Exception) -> str:
    """Return one line of what went wrong: the last one, which is what a process said last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if len(text) <= _REASON_SIZE else f"… {text[-_REASON_SIZE:]}"
