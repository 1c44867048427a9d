"""Growing, jittered pauses between dials."""

from __future__ import annotations

import math
import random

from quicbus_broker.mesh.config import MeshConfig
from quicbus_broker.mesh.overlay.redial import Redial, redial_pause_s

CONFIG = MeshConfig()


def schedule(size_max: int = 100) -> Redial[str]:
    return Redial(CONFIG, random.Random(1), size_max)


def test_pauses_grow_from_the_minimum_to_the_maximum() -> None:
    rng = random.Random(2)
    means = []
    for failures in (1, 3, 5, 20, 10_000):
        pauses = [redial_pause_s(CONFIG, failures, rng) for _ in range(500)]
        assert all(CONFIG.redial_min_s <= pause <= CONFIG.redial_max_s for pause in pauses)
        assert max(pauses) - min(pauses) > 0.4, "jitter"
        means.append(sum(pauses) / len(pauses))

    assert means[0] < means[1] < means[2] < means[3]
    assert means[0] < 1.0
    assert 14.0 < means[4] < 17.0


def test_what_is_new_is_due_at_once() -> None:
    redial = schedule()

    redial.soon("a", 5.0)

    assert redial.next_timer() == 5.0
    assert redial.pop_due(4.9) is None
    assert redial.pop_due(5.0) == "a"
    assert redial.next_timer() == math.inf
    assert "a" in redial
    assert not redial.is_waiting("a")


def test_it_is_tried_for_ever() -> None:
    redial = schedule()
    redial.soon("a", 0.0)
    now = 0.0

    for _ in range(1000):
        assert redial.pop_due(now) == "a"
        redial.failed("a", now)
        pause = redial.next_timer() - now
        assert CONFIG.redial_min_s <= pause <= CONFIG.redial_max_s
        now = redial.next_timer()

    assert now > 10_000.0


def test_final_refusal_is_tried_again_at_the_longest_pause() -> None:
    redial = schedule()

    redial.failed("a", 1.0, is_final=True)

    assert redial.next_timer() == 1.0 + CONFIG.redial_max_s


def test_success_ends_it_and_later_failure_begins_anew() -> None:
    redial = schedule()
    for _ in range(20):
        redial.failed("a", 0.0)
    redial.forget("a")

    assert redial.next_timer() == math.inf
    assert redial.pop_due(math.inf) is None

    redial.failed("a", 0.0)
    assert redial.next_timer() <= 2 * CONFIG.redial_min_s


def test_a_time_given_later_replaces_the_earlier_one() -> None:
    redial = schedule()
    redial.failed("a", 0.0, is_final=True)

    redial.soon("a", 1.0)

    assert redial.pop_due(1.0) == "a"
    assert redial.pop_due(1000.0) is None


def test_equal_times_come_in_the_order_given() -> None:
    redial = schedule()
    for key in ("b", "a", "c"):
        redial.soon(key, 0.0)

    assert [redial.pop_due(0.0) for _ in range(4)] == ["b", "a", "c", None]


def test_schedule_is_bounded() -> None:
    redial = schedule(size_max=2)

    assert redial.failed("a", 0.0)
    assert redial.soon("b", 0.0)
    assert not redial.failed("c", 0.0)
    assert not redial.soon("d", 0.0)
    assert redial.failed("a", 1.0), "what is in it stays in it"
    assert len(redial) == 2
