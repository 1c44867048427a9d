"""`quicbus request`, `quicbus reply` and `quicbus ping` against real brokers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cli.commands import quicbus, start

if TYPE_CHECKING:
    from quicbus.testing.launcher import BrokerProcess, Launched


def responder(broker: BrokerProcess, *arguments: str) -> Launched:
    process = start(broker, "reply", *arguments)
    try:
        process.wait_line("answering", stream="stderr")
    except BaseException:
        process.close()
        raise
    return process


def test_fixed_reply_comes_back(shared_broker: BrokerProcess) -> None:
    with responder(shared_broker, "greeting", "hello", "--count", "1") as reply:
        asked = quicbus(shared_broker, "request", "greeting")
        assert (asked.code, asked.stdout, asked.stderr) == (0, "hello\n", "")
        assert reply.wait().code == 0


def test_echo_returns_the_payload(shared_broker: BrokerProcess) -> None:
    with responder(shared_broker, "echo/+", "--echo"):
        asked = quicbus(shared_broker, "request", "echo/it", "-", "--json", stdin="some text")
        assert json.loads(asked.stdout)["payload"] == "some text"


def test_command_answers_with_what_it_prints(shared_broker: BrokerProcess) -> None:
    with responder(shared_broker, "upper", "--command", "tr a-z A-Z; printf ' %s' $REQUEST_TOPIC"):
        assert quicbus(shared_broker, "request", "upper", "quiet").stdout == "QUIET upper\n"
        assert quicbus(shared_broker, "request", "upper", "quiet", "--raw").stdout == "QUIET upper"


def test_command_that_fails_says_so_in_a_header(shared_broker: BrokerProcess) -> None:
    with responder(shared_broker, "fails", "--command", "exit 3"):
        asked = quicbus(shared_broker, "request", "fails", "--json")
        assert json.loads(asked.stdout)["headers"] == {"error": "the command ended with code 3"}


def test_responder_outlives_commands_that_do_not_read_the_request(shared_broker: BrokerProcess) -> None:
    with responder(shared_broker, "unread", "--command", "exit 1"):
        for _ in range(5):
            assert quicbus(shared_broker, "request", "unread", "-", stdin="x" * 200_000).code == 0


def test_nobody_to_answer_fails_at_once(shared_broker: BrokerProcess) -> None:
    asked = quicbus(shared_broker, "request", "nobody", "--timeout", "60")
    assert (asked.code, asked.stderr) == (1, "quicbus: nobody subscribes to 'nobody'\n")


def test_silent_subscriber_is_a_time_out(shared_broker: BrokerProcess) -> None:
    with responder(shared_broker, "slow", "--command", "sleep 600; true") as reply:
        asked = quicbus(shared_broker, "request", "slow", "--timeout", "0.3")
        assert (asked.code, asked.stderr) == (1, "quicbus: no reply from 'slow' within 0.3 s\n")
        # What the command started ends with it: otherwise it would hold the pipes open.
        reply.interrupt()
        assert reply.wait().code == 0


def test_responder_ends_with_0_at_ctrl_c(shared_broker: BrokerProcess) -> None:
    with responder(shared_broker, "interrupted", "--echo") as reply:
        reply.interrupt()
        assert reply.wait().code == 0


def test_ping_prints_round_trips_and_their_summary(shared_broker: BrokerProcess) -> None:
    ended = quicbus(shared_broker, "ping", shared_broker.url, "--count", "3", "--interval", "0")
    lines = ended.stdout.splitlines()
    assert ended.code == 0
    assert lines[0].startswith(f"PING {shared_broker.url}: connected in ")
    assert [line.split(" ")[0] for line in lines[1:4]] == ["seq=1", "seq=2", "seq=3"]
    assert lines[4] == "3 sent, 3 answered, 0 lost"
    assert lines[5].startswith("min/avg/max/p99 = ")


def test_ping_as_json(shared_broker: BrokerProcess) -> None:
    facts = json.loads(quicbus(shared_broker, "ping", "--count", "2", "--interval", "0", "--json").stdout)
    assert (facts["url"], facts["sent"], facts["received"]) == (shared_broker.url, 2, 2)
    assert 0 < facts["min_ms"] <= facts["avg_ms"] <= facts["max_ms"]


def test_responder_says_when_its_broker_is_gone(broker: BrokerProcess) -> None:
    with responder(broker, "echo", "--echo") as reply:
        broker.stop()
        assert "connecting again" in reply.wait_line("connection lost", stream="stderr")
