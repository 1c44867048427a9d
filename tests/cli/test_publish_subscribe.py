"""`quicbus pub` and `quicbus sub` against real brokers."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from quicbus.testing.launcher import BrokerProcess, quicbus_command
from tests.cli.commands import quicbus, start, subscriber

if TYPE_CHECKING:
    from pathlib import Path


def test_published_message_reaches_the_subscriber(shared_broker: BrokerProcess) -> None:
    with subscriber(shared_broker, "one/#", "--count", "1") as sub:
        published = quicbus(shared_broker, "pub", "one/kitchen", "21.5")
        assert (published.code, published.stdout, published.stderr) == (0, "", "")
        ended = sub.wait()
    assert (ended.code, ended.stdout) == (0, "one/kitchen 21.5\n")


def test_json_line_holds_topic_payload_headers_and_publisher(shared_broker: BrokerProcess) -> None:
    with subscriber(shared_broker, "json/+", "--count", "2", "--json") as sub:
        assert quicbus(shared_broker, "pub", "json/text", "grün\n2", "-H", "unit=C", "-H", "empty=").code == 0
        assert quicbus(shared_broker, "pub", "json/bytes", "-", stdin=b"\xff\x00").code == 0
        first, second = map(json.loads, sub.wait().stdout.splitlines())
    assert first["topic"] == "json/text"
    assert first["payload"] == "grün\n2"
    assert first["headers"] == {"unit": "C", "empty": ""}
    assert first["publisher"]
    assert second["payload_base64"] == base64.b64encode(b"\xff\x00").decode()
    assert "payload" not in second
    assert second["headers"] == {}


def test_lines_of_stdin_are_published_as_they_come(shared_broker: BrokerProcess) -> None:
    with (
        subscriber(shared_broker, "lines", "--raw", "--count", "3") as sub,
        start(shared_broker, "pub", "lines", "--lines", "--json", stdin=True) as pub,
    ):
        pub.write(b"first\n")
        sub.wait_line("first")
        pub.write("zwei, größer\nlast without end".encode())
        pub.close_stdin()
        assert json.loads(pub.wait().stdout) == {"topic": "lines", "published": 3}
        assert sub.wait().stdout == "first\nzwei, größer\nlast without end\n"


def test_many_lines_arrive_whole_and_in_order(shared_broker: BrokerProcess) -> None:
    lines = [f"line {number}" for number in range(20_000)]
    with subscriber(shared_broker, "many", "--raw", "--count", str(len(lines)), "--overflow", "block") as sub:
        assert quicbus(shared_broker, "pub", "many", "--lines", stdin="\n".join(lines)).code == 0
        assert sub.wait().stdout.splitlines() == lines


def test_file_and_all_of_stdin_are_one_message_each(shared_broker: BrokerProcess, tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(b"\x00\x01\n\x02")
    with subscriber(shared_broker, "whole", "--raw", "-N", "--count", "2") as sub:
        assert quicbus(shared_broker, "pub", "whole", "--file", str(tmp_path / "content")).code == 0
        assert quicbus(shared_broker, "pub", "whole", "-", stdin=b"a\nb\n").code == 0
        assert sub.wait().stdout == "\x00\x01\n\x02a\nb\n"


def test_message_is_published_as_often_as_asked(shared_broker: BrokerProcess) -> None:
    with subscriber(shared_broker, "again", "--count", "5", "--raw") as sub:
        assert quicbus(shared_broker, "pub", "again", "x", "--count", "5", "--rate", "1000").code == 0
        assert sub.wait().stdout == "x\n" * 5


def test_url_may_stand_first(shared_broker: BrokerProcess) -> None:
    with subscriber(shared_broker, shared_broker.url, "url", "--count", "1") as sub:
        assert quicbus(shared_broker, "pub", shared_broker.url, "url", "x").code == 0
        assert sub.wait().stdout == "url x\n"


def test_several_filters_are_one_stream(shared_broker: BrokerProcess) -> None:
    with subscriber(shared_broker, "several/a", "several/b/#", "--count", "2") as sub:
        sub.wait_lines(lambda lines: len(lines) == 2 or None, stream="stderr")
        quicbus(shared_broker, "pub", "several/a", "1")
        sub.wait_line("several/a 1")
        quicbus(shared_broker, "pub", "several/b/c", "2")
        assert sub.wait().stdout == "several/a 1\nseveral/b/c 2\n"


def test_group_shares_the_messages(shared_broker: BrokerProcess) -> None:
    with (
        subscriber(shared_broker, "jobs", "--group", "workers", "--raw") as one,
        subscriber(shared_broker, "$share/workers/jobs", "--raw") as other,
    ):
        quicbus(shared_broker, "pub", "jobs", "--lines", stdin="\n".join(map(str, range(50))))
        wanted = {str(number) for number in range(50)}

        def all_there() -> bool:
            return {line.strip() for line in one.stdout_lines + other.stdout_lines} == wanted

        one.wait_lines(lambda lines: lines or None)
        other.wait_lines(lambda lines: True if lines and all_there() else None)
        one.wait_lines(lambda lines: True if all_there() else None)
        assert len(one.stdout_lines) + len(other.stdout_lines) == 50


def test_control_characters_do_not_reach_the_terminal(shared_broker: BrokerProcess) -> None:
    with subscriber(shared_broker, "harm", "--count", "1") as sub:
        quicbus(shared_broker, "pub", "harm", "\x1b[2Jgone")
        assert sub.wait().stdout == "harm \\x1b[2Jgone\n"


@pytest.mark.parametrize("end", ["interrupt", "terminate"])
def test_subscriber_ends_with_0_when_it_is_told_to(shared_broker: BrokerProcess, end: str) -> None:
    with subscriber(shared_broker, "ended") as sub:
        getattr(sub, end)()
        ended = sub.wait()
    assert ended.code == 0
    assert "Traceback" not in ended.stderr


def test_closed_pipe_ends_the_subscriber_quietly(shared_broker: BrokerProcess) -> None:
    with subprocess.Popen(
        [*quicbus_command(), "sub", "pipe", "--url", shared_broker.url, "--data-dir", str(shared_broker.data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as sub:
        assert sub.stdout is not None
        assert sub.stderr is not None
        assert b"subscribed" in sub.stderr.readline()
        quicbus(shared_broker, "pub", "pipe", "first")
        assert sub.stdout.readline() == b"pipe first\n"
        sub.stdout.close()
        quicbus(shared_broker, "pub", "pipe", "second")
        assert sub.wait(30) == 0
        assert sub.stderr.read() == b""


def test_count_that_is_not_reached_in_time_fails(shared_broker: BrokerProcess) -> None:
    ended = quicbus(shared_broker, "sub", "silent", "--count", "1", "--timeout", "0.2", "-q")
    assert (ended.code, ended.stderr) == (1, "quicbus sub: 0 of 1 messages came within 0.2 s\n")


def test_too_large_message_is_refused_by_size(shared_broker: BrokerProcess) -> None:
    ended = quicbus(shared_broker, "pub", "large", "-", stdin=b"x" * (1024 * 1024 + 1))
    assert ended.code == 1
    assert ended.stderr.startswith("quicbus: the payload has 1048577 bytes, the broker takes at most 1048576")
    assert ended.stderr.count("\n") == 1


def test_subscriber_outlives_its_broker_and_tells_of_the_gap(engine: str, tmp_path: Path) -> None:
    with (
        BrokerProcess(data_dir=tmp_path / "data", engine=engine) as first,
        subscriber(first, "gap", "--raw", environment={"QUICBUS_STALL_TIMEOUT_S": "1"}) as sub,
    ):
        first.kill()
        first.wait()
        sub.wait_line("connection lost", stream="stderr")
        with BrokerProcess(data_dir=first.data_dir, engine=engine, listen=first.address) as second:
            sub.wait_line("is missing", stream="stderr")
            assert quicbus(second, "pub", "gap", "after").code == 0
            sub.wait_line("after")
        sub.interrupt()
        assert sub.wait().code == 0
