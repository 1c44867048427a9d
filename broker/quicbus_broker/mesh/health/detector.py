"""Failure detection among neighbours: SWIM's probes with Lifeguard's doubt of oneself.

One neighbour per interval is pinged, whatever the size of the mesh. Who does not answer is pinged again, directly and
through others; what comes out is `ProbeFailed`, which makes it a suspect.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from quicbus.wire.frames import Ping
from quicbus.wire.node_frames import PingRequest
from quicbus_broker.mesh.health.awareness import Awareness
from quicbus_broker.mesh.health.helping import Helping
from quicbus_broker.mesh.health.survey import Survey
from quicbus_broker.mesh.outputs import LinkSilent, ProbeAnswered, ProbeFailed, SendFrame

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from quicbus.wire.frames import Pong
    from quicbus.wire.node_frames import PingResult
    from quicbus_broker.mesh.config import MeshConfig
    from quicbus_broker.mesh.outputs import NodeId, Output

__all__ = ["Detector"]

_RTT_FACTOR = 4
"""A Pong may take so many round trips before it counts as late."""

_RTT_GAIN = 0.125
"""RFC 6298: weight of a new sample in the smoothed round trip."""

_RTT_FALL = 0.5
"""Weight of a sample that is a fraction of it."""

_MAX_LATE_PINGS = 32
"""Pings of ended probes whose Pong still tells a round trip and a sign of life."""


class _Probe(msgspec.Struct):
    node: NodeId
    asks_others_at: float
    ends_at: float
    has_asked: bool = False
    request: int = 0
    helpers: int = 0
    expected_nacks: dict[NodeId, None] = msgspec.field(default_factory=dict)


class Detector:
    """Watches the neighbours in shuffled turns. Every frame goes to `heard`, Pongs and the like also to `on_…`."""

    def __init__(
        self, me: NodeId, config: MeshConfig, rng: Random, is_connected: Callable[[NodeId], bool] | None = None
    ) -> None:
        self._me = me
        self._config = config
        self._rng = rng
        self._neighbors: dict[NodeId, None] = {}
        self._turn: list[NodeId] = []
        self._probe: _Probe | None = None
        self._next_probe = math.inf
        self._pings: dict[int, tuple[NodeId, float]] = {}
        self._rtts: dict[NodeId, float] = {}
        self._measured_at: dict[NodeId, float] = {}
        self._failed: dict[NodeId, None] = {}
        self._awareness = Awareness(config.awareness_max if config.self_doubt else 0)
        self._survey = Survey(config)
        self._last_id = 0
        self._helping = Helping(config, is_connected or self._neighbors.__contains__, self._take_id)

    @property
    def awareness(self) -> int:
        """Lifeguard's score: 0 while this node is on time, up to `awareness_max` when it is itself late."""
        return self._awareness.score

    def rtt_s(self, node: NodeId) -> float | None:
        """Return the smoothed round trip to a neighbour; `None` while it is not measured."""
        return self._rtts.get(node)

    def neighbor_up(self, node: NodeId, now: float) -> None:
        if node in self._neighbors:
            return
        self._neighbors[node] = None
        # SWIM: a new member takes a random place in the running round.
        self._turn.insert(self._rng.randint(0, len(self._turn)), node)
        if len(self._neighbors) == 1:
            # A jitter, so that the nodes of a mesh do not all ping at the same moment.
            self._next_probe = now + self._rng.uniform(0.0, self._config.probe_interval_s)

    def neighbor_down(self, node: NodeId) -> None:
        if self._neighbors.pop(node, 0) is not None:
            return
        self._rtts.pop(node, None)
        self._measured_at.pop(node, None)
        self._failed.pop(node, None)
        self._survey.forget(node)
        if node in self._turn:
            self._turn.remove(node)
        if self._probe is not None:
            self._probe.expected_nacks.pop(node, None)
            if self._probe.node == node:
                self._probe = None
        if not self._neighbors:
            self._next_probe = math.inf

    def refuted(self) -> None:
        """Others took this node for failed and it had to refute: it has been late."""
        self._awareness.change(1)

    def heard(self, node: NodeId, now: float, outputs: list[Output] | None = None) -> None:
        """Any traffic of the probed node is a sign of life."""
        if self._survey.heard(node) and outputs is not None:
            outputs.append(LinkSilent(node, is_silent=False))
        if self._probe is not None and self._probe.node == node:
            self._succeed(outputs)
        elif outputs is not None and node in self._failed:
            self._clear(node, outputs)

    def on_pong(self, node: NodeId, frame: Pong, now: float, outputs: list[Output]) -> None:
        rtt = self._helping.on_pong(node, frame.id, now, outputs)
        if rtt is None:
            target, sent_at = self._pings.get(frame.id, (b"", 0.0))
            if target != node:
                return
            del self._pings[frame.id]
            rtt = now - sent_at
        # One sample a round trip: who stood still answers all that it was asked meanwhile at once.
        if node in self._neighbors and now - rtt >= self._measured_at.get(node, -math.inf):
            self._rtts[node] = _smoothed(self._rtts.get(node), rtt, self._config.probe_timeout_s)
            self._measured_at[node] = now
        self.heard(node, now, outputs)

    def on_ping_request(self, node: NodeId, frame: PingRequest, now: float, outputs: list[Output]) -> None:
        self._helping.on_ping_request(node, frame, now, outputs)

    def on_ping_result(self, node: NodeId, frame: PingResult, now: float, outputs: list[Output]) -> None:
        probe = self._probe
        if probe is None or frame.id != probe.request or node not in probe.expected_nacks:
            return
        if frame.answered:
            self._succeed(outputs)
        else:
            # The helper is there: the silence is not this node's own.
            del probe.expected_nacks[node]

    def next_timer(self) -> float:
        probe = self._probe
        if probe is None:
            return min(self._next_probe, self._helping.next_timer(), self._survey.next_timer())
        due = probe.ends_at if probe.has_asked else probe.asks_others_at
        return min(due, self._helping.next_timer(), self._survey.next_timer())

    def tick(self, now: float, outputs: list[Output]) -> None:
        self._helping.tick(now, outputs)
        if now >= self._survey.next_timer():
            silent, again = self._survey.end(now)
            outputs.extend([LinkSilent(node, is_silent=True) for node in silent])
            self._ping_all(again, outputs)
        probe = self._probe
        due = self._next_probe if probe is None else probe.ends_at if probe.has_asked else probe.asks_others_at
        if now < due:
            return
        if self._config.self_doubt and now - due > self._config.probe_interval_s:
            self._awake(now, outputs)
        elif probe is None:
            self._begin(self._take_turn(), now, outputs)
        elif not probe.has_asked:
            self._ask_others(probe, now, outputs)
        else:
            self._fail(probe, now, outputs)

    # --- a probe ------------------------------------------------------------------------------------------------------

    def _begin(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        timeout = max(self._config.probe_timeout_s, _RTT_FACTOR * self._rtts.get(node, 0.0)) * self._awareness.factor
        length = max(self._config.probe_interval_s * self._awareness.factor, 2 * timeout)
        self._probe = _Probe(node, now + timeout, now + length)
        self._next_probe = now + length
        self._ping(node, now, outputs)

    def _ask_others(self, probe: _Probe, now: float, outputs: list[Output]) -> None:
        probe.has_asked = True
        helpers = self._helpers(probe.node)
        if helpers:
            probe.request = self._take_id()
            probe.helpers = len(helpers)
            probe.expected_nacks = dict.fromkeys(helpers)
            request = PingRequest(id=probe.request, target=probe.node)
            outputs.extend(SendFrame(helper, request) for helper in helpers)
        # memberlist tries once more by TCP; here a second Ping costs a frame and tells of a single lost moment.
        self._ping(probe.node, now, outputs)

    def _fail(self, probe: _Probe, now: float, outputs: list[Output]) -> None:
        self._probe = None
        self._next_probe = now
        # Lifeguard: a helper that does not even say no means that this node does not hear.
        self._awareness.change(len(probe.expected_nacks) if probe.request else 1)
        self._failed[probe.node] = None
        outputs.append(ProbeFailed(probe.node))
        self._survey.silent[probe.node] = None
        outputs.append(LinkSilent(probe.node, is_silent=True))
        if not probe.request or len(probe.expected_nacks) == probe.helpers:
            self._ping_all(self._survey.begin(self._neighbors, now), outputs)

    def _succeed(self, outputs: list[Output] | None) -> None:
        probe = self._probe
        assert probe is not None
        self._probe = None
        self._awareness.change(-1)
        if outputs is not None and probe.node in self._failed:
            self._clear(probe.node, outputs)

    def _clear(self, node: NodeId, outputs: list[Output]) -> None:
        del self._failed[node]
        outputs.append(ProbeAnswered(node))

    def _awake(self, now: float, outputs: list[Output]) -> None:
        """This process stood still: what was not answered meanwhile proves nothing, so the probe begins anew."""
        self._awareness.change(1)
        node = self._probe.node if self._probe is not None else self._take_turn()
        self._begin(node, now, outputs)

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _take_turn(self) -> NodeId:
        if not self._turn:
            self._turn = list(self._neighbors)
            self._rng.shuffle(self._turn)
        return self._turn.pop()

    def _helpers(self, target: NodeId) -> list[NodeId]:
        others = [node for node in self._neighbors if node != target and node not in self._failed]
        return self._rng.sample(others, min(self._config.indirect_probes, len(others)))

    def _ping(self, node: NodeId, now: float, outputs: list[Output]) -> None:
        id = self._take_id()
        self._pings[id] = (node, now)
        if len(self._pings) > _MAX_LATE_PINGS:
            del self._pings[next(iter(self._pings))]
        outputs.append(SendFrame(node, Ping(id=id)))

    def _ping_all(self, nodes: list[NodeId], outputs: list[Output]) -> None:
        """Ping for a sign of life only; the times of these Pongs are not kept."""
        outputs.extend([SendFrame(node, Ping(id=self._take_id())) for node in nodes])

    def _take_id(self) -> int:
        self._last_id += 1
        return self._last_id


def _smoothed(before: float | None, sample: float, timeout: float) -> float:
    """Return the round trip after another sample.

    What a peer answers that stood still is no round trip. Were it taken for one, its death would go unnoticed for as
    long: a sample far above counts for little, and the quick ones that follow for much.
    """
    if before is None:
        return sample
    gain = _RTT_FALL if sample < before / 4 else _RTT_GAIN
    return before + gain * (min(sample, 4 * before + 2 * timeout) - before)
