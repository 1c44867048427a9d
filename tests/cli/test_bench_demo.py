"""`quicbus bench` and `quicbus demo`, small."""

from __future__ import annotations

import json

from quicbus.testing.launcher import BrokerProcess, Launched, quicbus_command, run_quicbus
from tests.cli.commands import quicbus


def test_bench_with_its_own_broker_loses_nothing(engine: str) -> None:
    small = ("--messages", "3000", "--latency-messages", "20")
    ended = run_quicbus("bench", *small, "--engine", engine, "--json")
    assert ended.code == 0, ended.stderr
    facts = json.loads(ended.stdout)
    assert (facts["published"], facts["delivered"], facts["lost"]) == (3000, 3000, 0)
    assert facts["latency_messages"] == 20
    assert facts["broker_peak_bytes"] > 0


def test_bench_of_a_running_broker_prints_a_table(shared_broker: BrokerProcess) -> None:
    more = ("--messages", "500", "--topics", "7", "--subscribers", "2", "--latency-messages", "5")
    ended = quicbus(shared_broker, "bench", shared_broker.url, *more)
    assert ended.code == 0, ended.stderr
    assert "messages/s" in ended.stdout
    assert "1,000" in ended.stdout


def test_demo_shows_counters_and_drops_nothing(engine: str) -> None:
    ended = run_quicbus("demo", "--seconds", "1", "--engine", engine)
    assert ended.code == 0, ended.stderr
    assert "machine/cpu " in ended.stdout
    assert "osaka is killed" in ended.stdout
    assert "summary" in ended.stdout
    assert "0 for the subscribers" in ended.stdout


def test_demo_ends_with_its_summary_at_ctrl_c() -> None:
    with Launched([*quicbus_command(), "demo", "--seconds", "600"]) as process:
        process.wait_line("machine/memory")
        process.interrupt()
        ended = process.wait()
    assert ended.code == 0
    assert "summary" in ended.stdout


def test_demo_summary_as_json() -> None:
    ended = run_quicbus("demo", "--seconds", "0.5", "--json")
    summary = json.loads(ended.stdout)
    assert ended.code == 0
    assert summary["messages"] == summary["published"] > 0
    assert summary["dropped"] == 0


def test_demo_goes_on_when_a_broker_is_killed_and_its_books_balance() -> None:
    ended = run_quicbus("demo", "--seconds", "4", "--json")
    summary = json.loads(ended.stdout)
    steady, moving = summary["subscribers"]
    assert (summary["killed"], moving["broker"], steady["ended_at"]) == ("osaka", "osaka", "kyoto")
    assert moving["ended_at"] in ("tokyo", "kyoto")
    assert (steady["gaps"], steady["missed"]) == (0, 0)
    assert moving["gaps"] > 0
    for seen in (steady, moving):
        assert seen["received"] + seen["dropped"] + seen["missed"] == summary["published"]
        assert (seen["repeated"], seen["disordered"]) == (0, 0)
    brokers = {broker["name"]: broker for broker in summary["brokers"]}
    assert brokers["osaka"]["state"] == "killed"
    assert brokers["tokyo"]["books"]["accepted"] == summary["published"]
    assert sum(broker["delivered"] for broker in brokers.values()) == summary["deliveries"]
    assert any("osaka is killed" in event["what"] for event in summary["story"])
