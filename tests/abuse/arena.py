"""The arena: a broker process, the good pair beside it, an attacker process, and what each attack did to them."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
import psutil

from quicbus.testing.launcher import BrokerProcess, Launched
from tests.abuse.attackers import ATTACKS
from tests.abuse.good_pair import PairPlan, Phase
from tests.abuse.world import Orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Arena", "Outcome"]

ROOT = Path(__file__).parents[2]
DEADLINE_S = 240.0
COUNTED_S = 20.0
SETTLED_SIZE = 16 * 1024 * 1024
TRIMMED_S = 20.0
"""A broker gives freed memory back some seconds after the end of a flood."""
LOOK_S = 0.1
"""Between two looks at what nobody tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One attack. Sizes in bytes; `counted` is how far each counter of the broker rose, those that did."""

    attack: str
    engine: str
    seconds: float
    made: dict[str, int]
    counted: dict[str, int]
    quiet: Phase
    attacked: Phase
    resident: tuple[int, int, int]
    """Before, the most that was seen, and after."""
    descriptors: tuple[int, int]
    busy: tuple[float, float]
    """Share of a processor that the broker used, quiet and under attack."""
    left_over: dict[str, int]
    """What there is more of than when the arena was opened, by name."""

    @property
    def lost(self) -> int:
        return self.quiet.lost + self.attacked.lost

    def rise(self, counter: str) -> int:
        """Return how far a counter of the broker rose; `a + b` is the sum of two."""
        return rise(self.counted, counter)

    @property
    def ratio(self) -> float:
        return self.attacked.p99_ms / self.quiet.p99_ms if self.quiet.p99_ms else 0.0


class Speaker:
    """A process that answers lines on its stdin with lines of JSON."""

    def __init__(self, process: Launched) -> None:
        self.process = process
        self._seen = 0

    def say(self, line: str) -> None:
        self.process.write(line.encode() + b"\n")

    def hear(self, *events: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Return the next line that tells one of these events; those before it are skipped."""
        return self.process.wait_lines(lambda lines: self._find(lines, events), deadline_s=deadline_s)

    def has_told(self, *events: str) -> dict[str, Any] | None:
        """Return what `hear` would, or `None` where it would wait."""
        assert self.process.is_running, self.process.stderr_lines
        return self._find(self.process.stdout_lines, events)

    def _find(self, lines: list[str], events: tuple[str, ...]) -> dict[str, Any] | None:
        while self._seen < len(lines):
            line, self._seen = lines[self._seen], self._seen + 1
            told: dict[str, Any] = json.loads(line)
            if told["event"] in events:
                return told
        return None


class Use:
    """How much of a processor a process uses, from one call of `share` to the next."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._at, self._used = time.monotonic(), self._cpu_s()

    def share(self) -> float:
        at, used = time.monotonic(), self._cpu_s()
        share = (used - self._used) / max(1e-9, at - self._at)
        self._at, self._used = at, used
        return share

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


class Arena:
    """Use it in `with`; then `attack` any number of times, one after the other."""

    def __init__(
        self, engine: str, options: Sequence[str] = (), *, data_dir: Path | None = None, rate: float = 200.0
    ) -> None:
        """`rate`: messages of the good pair per second."""
        self.engine = engine
        self._rate = rate
        self._options = options
        self._data_dir = data_dir
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            program = [sys.executable, "-m", "tests.abuse.observed_broker"]
            self.broker = stack.enter_context(
                BrokerProcess(
                    data_dir=self._data_dir,
                    engine=self.engine,
                    options=self._options,
                    program=program,
                    stdin=True,
                    cwd=ROOT,
                )
            )
            attacker = Launched([sys.executable, "-m", "tests.abuse.attacker"], stdin=True, cwd=ROOT)
            self._attacker = Speaker(stack.enter_context(attacker))
            plan = PairPlan(
                url=self.broker.url,
                credentials=str(self.broker.credential_path),
                engine=self.engine,
                rate=self._rate,
            )
            command = [sys.executable, "-m", "tests.abuse.good_pair", msgspec.json.encode(plan).decode()]
            self._pair = Speaker(stack.enter_context(Launched(command, stdin=True, cwd=ROOT)))
            self._telling = Speaker(self.broker)
            self._process = psutil.Process(self.broker.pid)
            self._attacker.hear("started")
            self._pair.hear("ready")
            self.end_phase()
            self._first = self._footprint()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- what is seen -----------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Return all counters of the broker, as `transport.dropped.garbage`."""
        self._telling.say("now")
        return dict(_flattened(self._telling.hear("statistics")["statistics"], ""))

    def resident(self) -> int:
        return int(self._process.memory_info().rss)

    def descriptors(self) -> int:
        return int(self._process.num_fds())

    def end_phase(self) -> Phase:
        """Have the good pair deliver what it sent, and tell how it went since the last call."""
        self._pair.say("end")
        return msgspec.convert(self._pair.hear("phase")["phase"], Phase)

    # --- the attack -------------------------------------------------------------------------------------------------

    def attack(
        self, name: str, *, is_small: bool, seconds: float = 0.0, quiet_s: float = 0.0, rest_s: float = 60.0
    ) -> Outcome:
        """Attack once. After a small attack what it is to be counted for is waited for, after others `settle`."""
        address = self.broker.address.rsplit(":", 1)
        orders = Orders(
            attack=name,
            address=(address[0], int(address[1])),
            data_dir=str(self.broker.data_dir),
            is_small=is_small,
            seconds=seconds,
        )
        self._attacker.say(msgspec.json.encode(orders).decode())
        _succeeded(self._attacker.hear("ready", "failed"))
        before, resident, descriptors = self.statistics(), self.resident(), self.descriptors()
        self.end_phase()
        use = Use(self._process)
        time.sleep(quiet_s)
        quiet = self.end_phase()
        idle = use.share()
        peak = resident
        begin = time.monotonic()
        self._attacker.say("go")
        while (told := self._attacker.has_told("made", "failed")) is None:
            peak = max(peak, self.resident())
            time.sleep(LOOK_S)
        _succeeded(told)
        busy = use.share()
        attacked = self.end_phase()
        peak = max(peak, self.resident())
        if is_small:
            self._wait_counted(before, ATTACKS[name].counted)
        else:
            self.settle(rest_s)
            _wait(lambda: self.resident() - resident < SETTLED_SIZE, TRIMMED_S)
        after = self.statistics()
        for reason, messages in attacked.dropped.items():
            before[f"good.dropped.{reason}"] = quiet.dropped.get(reason, 0)
            after[f"good.dropped.{reason}"] = messages
        return Outcome(
            attack=name,
            engine=self.engine,
            seconds=time.monotonic() - begin,
            made=told["made"],
            counted={name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)},
            quiet=quiet,
            attacked=attacked,
            resident=(resident, peak, self.resident()),
            descriptors=(descriptors, self.descriptors()),
            busy=(idle, busy),
            left_over=self.left_over(),
        )

    def settle(self, rest_s: float = 60.0) -> None:
        """Wait until nothing but the good pair is left; what is not gone after `rest_s`, `left_over` tells."""
        _wait(lambda: not self.left_over(), rest_s)

    def left_over(self) -> dict[str, int]:
        """Return how much more there is of each than before the first attack."""
        now, first = self._footprint(), self._first
        return {name: now[name] - first[name] for name in now if now[name] > first[name]}

    def _footprint(self) -> dict[str, int]:
        now = self.statistics()
        names = ("transport.connections", "transport.half_open", "edge.connections", "edge.subscriptions")
        return {**{name: now[name] for name in names}, "file descriptors": self.descriptors()}

    def _wait_counted(self, before: dict[str, int], wanted: Mapping[str, int]) -> None:
        of_broker = [name for name in wanted if not name.startswith("good.")]

        def is_counted() -> bool:
            now = self.statistics()
            return all(rise(now, name) - rise(before, name) >= wanted[name] for name in of_broker)

        _wait(is_counted, COUNTED_S)


def _wait(condition: Callable[[], bool], deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while not condition() and time.monotonic() < end:
        time.sleep(LOOK_S)


def rise(counters: Mapping[str, int], name: str) -> int:
    return sum(counters.get(each, 0) for each in name.split(" + "))


def _flattened(values: dict[str, Any], above: str) -> Iterator[tuple[str, int]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{above}{name}.")
        elif isinstance(value, int):
            yield f"{above}{name}", value


def _succeeded(told: dict[str, Any]) -> None:
    assert told["event"] != "failed", told["error"]
