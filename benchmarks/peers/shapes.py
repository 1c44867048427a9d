"""What is measured: loads, round trips, requests, connections, memory. Each on servers that run already."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.peers.driving import RunFailed, WorkerProcess, peak_memory, resident_memory, workers
from benchmarks.peers.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.seam import Server, Where

__all__ = [
    "Effort",
    "Sample",
    "measure_client_memory",
    "measure_connects",
    "measure_load",
    "measure_requests",
    "measure_round_trip",
    "measure_subscription_memory",
]

Sample = dict[str, float]
"""What one round gave, by name of metric; `lost` says how many messages did not arrive."""

MEBIBYTE = 1024 * 1024
_PROCESSES = 2
_CLIENTS_OF_PROCESS = 250
"""Many publishers or subscribers share two processes, or as many as keep to this: paho waits by select(), which knows
1,024 files, and takes three for a client."""
_TRIAL_DELIVERIES = 200_000
_TRIAL_DELIVERIES_OF_MANY = 20_000
"""A publisher without back-pressure is soon seconds ahead of many subscribers."""
_TRIAL_SIZE = 64 * MEBIBYTE
_TRIAL_SHARE = 0.2
"""Of the time of the load that it is for."""
_LOADS = 3
"""At most, each by the rate of the one before, until one takes half the time it should: batches make long loads faster
than trials."""
_LEAST = 20
"""Messages of a load: a trial that met a pause must not leave a single message to measure."""
_WARM_DELIVERIES_PER_S = 500
"""Few, also to a thousand subscribers: what warms must not be a backlog before what is measured."""
_SETTLE_S = 0.5
_WARM_REQUESTS_S = 0.5
"""Until pools have their connections: redis-py takes 40 ms for each."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long each round may take."""

    seconds: float = 1.5
    """Of a load as fast as it goes."""
    max_size: int = 600 * MEBIBYTE
    """Delivered in that time at most: some peers keep it all in queues."""
    share: float = 1.0
    """Of what is counted rather than timed."""

    def count(self, number: int) -> int:
        return max(1, int(number * self.share))


def measure_load(
    servers: Sequence[Server],
    effort: Effort,
    *,
    size: int = 128,
    topics: int = 1,
    publishers: int = 1,
    subscribers: int = 1,
) -> Sample:
    """Publish at the first server as fast as it goes, subscribe at the last.

    A trial tells how many messages `effort.seconds` take, which keeps the queues of peers without back-pressure short
    and warms all of them; a load that was over too soon is a trial of the next. Counted are deliveries over the time
    from the first publish to the last receipt.
    """
    near, far = servers[0].where, servers[-1].where
    reading = [
        Plan(role="subscribe", where=far, size=size, topics=topics, connections=count) for count in _shares(subscribers)
    ]
    writing = [
        Plan(role="publish", where=near, size=size, topics=topics, connections=count, seed=1 + number)
        for number, count in enumerate(_shares(publishers))
    ]
    with workers(servers, *reading, *writing) as started:
        readers, writers = started[: len(reading)], started[len(reading) :]
        _warm(writers, readers, publishers * subscribers)
        deliveries = _TRIAL_DELIVERIES if subscribers == 1 else _TRIAL_DELIVERIES_OF_MANY
        trial = max(publishers, min(deliveries, _TRIAL_SIZE // size) // subscribers)
        tried = _load(writers, readers, subscribers, trial, _TRIAL_SHARE * effort.seconds)
        most = max(publishers, effort.max_size // (size * subscribers))
        lost, sample = tried["lost"], tried
        for _ in range(_LOADS):
            wanted = int(sample["messages_per_s"] / subscribers * effort.seconds)
            sample = _load(writers, readers, subscribers, min(most, max(_LEAST, wanted)), 4 * effort.seconds)
            lost += sample["lost"]
            if wanted >= most or sample["seconds"] > effort.seconds / 2 or sample["lost"] > 0:
                break
    # What a load before gave up may have come later: only the sum of all is exact.
    sample["lost"] = lost
    return {**sample, "server_peak_bytes": max(peak_memory(server.pid) or 0 for server in servers)}


def _warm(writers: Sequence[WorkerProcess], readers: Sequence[WorkerProcess], ways: int = 1) -> None:
    for writer in writers:
        writer.tell("warm", every_s=ways / _WARM_DELIVERIES_PER_S)
    for reader in readers:
        reader.result("warm")


def _load(
    writers: Sequence[WorkerProcess],
    readers: Sequence[WorkerProcess],
    subscribers: int,
    messages: int,
    seconds: float,
) -> Sample:
    for reader in readers:
        reader.ask("count", "counting")
    for writer in writers:
        writer.tell("load", seconds=seconds, messages=messages // len(writers))
    published = [writer.result("published") for writer in writers]
    count = sum(each["messages"] for each in published)
    received = _received(readers, count)
    delivered = sum(each["messages"] for each in received)
    if not delivered:
        said = next(filter(None, (reader.said_last for reader in readers)), "nothing")
        raise RunFailed(f"none of {count:,} messages arrived; the subscriber said last: {said}")
    begin = min(each["begin"] for each in published)
    took_s = max(1e-9, (max(each["last"] for each in received) - begin) / 1e9)
    return {
        "messages_per_s": delivered / took_s,
        "megabytes_per_s": sum(each["size"] for each in received) / took_s / 1e6,
        "published": count,
        "delivered": delivered,
        "lost": count * subscribers - delivered,
        "seconds": took_s,
    }


def _received(readers: Sequence[WorkerProcess], count: int) -> list[dict[str, Any]]:
    for reader in readers:
        reader.tell("expect", messages=count)
    return [reader.result("received") for reader in readers]


def measure_round_trip(
    servers: Sequence[Server], effort: Effort, *, load: float | None = None, share: float = 0.0, rate: float = 500.0
) -> Sample:
    """Send single messages to a client that sends them back, idle or beside other messages.

    Beside `load` messages a second, or beside `share` of what the peer takes at full speed.
    """
    where = servers[0].where
    with workers(servers, Plan(role="echo", where=where), Plan(role="ping", where=where)) as (_, pinger):
        pinger.ask("warm", "warm")
        messages = effort.count(3000)
        if not load and not share:
            return _latency(pinger.ask("ping", "latency", messages=messages, rate=rate))
        with workers(servers, Plan(role="subscribe", where=where), Plan(role="publish", where=where)) as (
            reader,
            writer,
        ):
            _warm([writer], [reader])
            _load([writer], [reader], 1, _TRIAL_DELIVERIES, _TRIAL_SHARE * effort.seconds)
            if not load:
                load = share * _load([writer], [reader], 1, _TRIAL_DELIVERIES, effort.seconds)["messages_per_s"]
            reader.ask("count", "counting")
            writer.tell("pace", rate=load)
            sample = _latency(pinger.ask("ping", "latency", messages=messages, rate=rate))
            paced = writer.ask("stop", "stopped")
            (received,) = _received([reader], paced["messages"])
        lost = sample["lost"] + paced["messages"] - received["messages"]
        return {
            **sample,
            "lost": lost,
            "wanted_messages_per_s": load,
            "load_messages_per_s": paced["messages"] / paced["seconds"],
        }


def _latency(told: dict[str, Any]) -> Sample:
    return {
        **{name: told[name] for name in ("p50_ms", "p99_ms", "p999_ms")},
        "sent": told["sent"],
        "lost": told["sent"] - told["back"],
    }


def measure_requests(servers: Sequence[Server], effort: Effort, *, in_flight: int) -> Sample:
    """Ask a client that answers, `in_flight` requests at a time, for `effort.seconds`."""
    where = servers[0].where
    with workers(servers, Plan(role="answer", where=where), Plan(role="ask", where=where)) as (_, asker):
        asker.ask("warm", "warm")
        asker.ask("ask", "asked", seconds=_WARM_REQUESTS_S, in_flight=in_flight)
        told = asker.ask("ask", "asked", seconds=effort.seconds, in_flight=in_flight)
    return {"requests_per_s": told["answers"] / told["seconds"], "lost": told["lost"]}


def measure_connects(servers: Sequence[Server], effort: Effort) -> Sample:
    """Connect clients of one process, ten at a time, until each may publish."""
    count = effort.count(200)
    with workers(servers, _opener(servers[0].where)) as (opener,):
        opener.ask("connect", "connected", count=10, at_a_time=10)
        told = opener.ask("connect", "connected", count=count, at_a_time=10)
    return {"connections_per_s": count / told["seconds"], "lost": 0}


def measure_client_memory(servers: Sequence[Server], effort: Effort) -> Sample:
    """Return what each further client that does nothing takes of the server."""
    count = effort.count(400)
    with workers(servers, _opener(servers[0].where)) as (opener,):
        opener.ask("connect", "connected", count=50, at_a_time=10)
        before = _settled_memory(servers[0].pid)
        opener.ask("connect", "connected", count=count, at_a_time=10)
        after = _settled_memory(servers[0].pid)
    return {"kilobytes": (after - before) / count / 1000, "lost": 0}


def measure_subscription_memory(servers: Sequence[Server], effort: Effort) -> Sample:
    """Return what each further thousand subscriptions of one client take of the server."""
    thousands = max(1, effort.count(5))
    with workers(servers, _opener(servers[0].where)) as (opener,):
        opener.ask("connect", "connected", count=1, at_a_time=1)
        opener.ask("subscribe", "subscribed", count=100, first=0)
        before = _settled_memory(servers[0].pid)
        opener.ask("subscribe", "subscribed", count=1000 * thousands, first=100)
        after = _settled_memory(servers[0].pid)
    return {"kilobytes": (after - before) / thousands / 1000, "lost": 0}


def _opener(where: Where) -> Plan:
    return Plan(role="open", where=where)


def _settled_memory(pid: int) -> int:
    time.sleep(_SETTLE_S)
    return resident_memory(pid)


def _shares(count: int) -> list[int]:
    """Divide `count` over few processes."""
    processes = min(count, max(_PROCESSES, math.ceil(count / _CLIENTS_OF_PROCESS)))
    return [count // processes + (number < count % processes) for number in range(processes)]
