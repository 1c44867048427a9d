"""When this node had better doubt itself than accuse others."""

from __future__ import annotations

from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.health.awareness import Awareness
from quicbus_broker.mesh.outputs import ProbeFailed
from tests.broker.mesh.health.watch import CONFIG, A, B, C, D, Watch, pinged, requests


def test_score_stays_between_zero_and_its_maximum() -> None:
    awareness = Awareness(3)

    awareness.change(-1)
    assert awareness.factor == 1
    awareness.change(10)
    assert awareness.score == 3
    awareness.change(-1)
    assert awareness.factor == 3


def test_process_that_stood_still_accuses_nobody() -> None:
    """SIGSTOP for a minute: the ticks come late, the answers were never read."""
    watch = Watch(A, B, C)
    node, _ = watch.probe()

    outputs = watch.tick_at(watch.now + 60.0)

    assert pinged(outputs) == [node], "the probe begins anew"
    assert ProbeFailed(node) not in outputs
    assert watch.detector.awareness == 1
    assert watch.run(watch.now + 60.0, lambda _: True) == []
    assert watch.detector.awareness == 0


def test_process_that_always_stands_still_accuses_nobody() -> None:
    watch = Watch(A, B, C)

    for _ in range(100):
        outputs = watch.tick_at(max(watch.now, watch.detector.next_timer()) + 5.0)
        assert not any(isinstance(output, ProbeFailed) for output in outputs)

    assert watch.detector.awareness == CONFIG.awareness_max


def test_late_node_gives_others_more_time() -> None:
    watch = Watch(A)
    for _ in range(3):
        watch.detector.refuted()
    watch.probe()
    began = watch.now

    watch.tick()
    assert watch.now == began + 4 * CONFIG.probe_timeout_s
    assert watch.tick() == [ProbeFailed(A)]
    assert watch.now == began + 4 * CONFIG.probe_interval_s


def test_helpers_that_do_not_even_say_no_are_a_reason_for_doubt() -> None:
    watch = Watch(A, B, C, D)
    watch.probe()
    asked = requests(watch.tick())
    helper, request = next(iter(asked.items()))

    watch.result(helper, request.id, answered=False)
    watch.tick()

    assert watch.detector.awareness == len(asked) - 1


def test_helpers_that_say_no_leave_trust_in_oneself() -> None:
    watch = Watch(A, B, C, D)

    found = watch.run(10.0, lambda node: node != A)

    assert ProbeFailed(A) in found
    assert set(map(type, found)) == {ProbeFailed}
    assert watch.detector.awareness == 0


def test_answers_bring_trust_back() -> None:
    watch = Watch(A)
    watch.detector.refuted()
    watch.detector.refuted()

    watch.run(10.0, lambda _: True)

    assert watch.detector.awareness == 0


def test_without_self_doubt_a_late_tick_fails_the_probe() -> None:
    """What SWIM does; the simulator measures the difference."""
    watch = Watch(A, config=MeshConfig(self_doubt=False))
    watch.probe()
    watch.tick()

    assert watch.tick_at(watch.now + 60.0) == [ProbeFailed(A)]
    watch.detector.refuted()
    assert watch.detector.awareness == 0
