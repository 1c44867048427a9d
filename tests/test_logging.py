"""Log lines: quiet by default, node and peer on each, as text or JSON."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest

from quicbus.logs import LoggingSettings, harmless, logger_for, set_node, set_up_logging

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _undo() -> Iterator[None]:
    yield
    set_node("")
    for name in ("quicbus", "quicbus_broker", "quicbus_cli"):
        logger = logging.getLogger(name)
        for handler in [each for each in logger.handlers if each.get_name() == "quicbus"]:
            logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def logged(settings: LoggingSettings, default_level: str = "warning") -> io.StringIO:
    stream = io.StringIO()
    set_up_logging(settings, default_level=default_level, stream=stream)
    return stream


def test_quiet_by_default() -> None:
    stream = logged(LoggingSettings())
    logging.getLogger("quicbus.client").info("hello")
    assert stream.getvalue() == ""


def test_node_and_peer_stand_on_each_line() -> None:
    stream = logged(LoggingSettings(log_level="info"))
    logger_for("quicbus.edge", node="1f0c", peer="alice").info("connected")
    line = stream.getvalue()
    assert " INFO node=1f0c peer=alice quicbus.edge: connected\n" in line


def test_process_names_its_node_once_for_all_lines() -> None:
    stream = logged(LoggingSettings(log_format="json"))
    set_node("77ab")
    logging.getLogger("quicbus_broker.edge").warning("half-open: %d", 3, extra={"peer": "10.0.0.1:9"})
    fields = json.loads(stream.getvalue())
    assert fields.pop("time").endswith("+00:00")
    assert fields == {
        "level": "warning",
        "logger": "quicbus_broker.edge",
        "node": "77ab",
        "peer": "10.0.0.1:9",
        "message": "half-open: 3",
    }


def test_json_line_stays_one_line_with_a_traceback() -> None:
    stream = logged(LoggingSettings(log_format="json"))
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("quicbus").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: two\nlines" in json.loads(line)["exception"]


def test_set_up_again_replaces_the_handler() -> None:
    first = logged(LoggingSettings())
    second = logged(LoggingSettings())
    logging.getLogger("quicbus").warning("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_level_and_format_may_be_given_in_the_settings() -> None:
    stream = logged(LoggingSettings(log_level="error"), default_level="debug")
    logging.getLogger("quicbus").warning("not this")
    assert stream.getvalue() == ""


def test_what_a_peer_said_forges_no_line_and_moves_no_cursor() -> None:
    stream = logged(LoggingSettings(log_level="info"))
    logging.getLogger("quicbus.edge").info("closed: %s", "bye\n2026-01-01 WARNING all is well\x1b[2J\u2028\x9b1A")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r"closed: bye\n2026-01-01 WARNING all is well\x1b[2J\u2028\x9b1A")


def test_a_traceback_keeps_its_lines_and_moves_no_cursor() -> None:
    stream = logged(LoggingSettings())
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logging.getLogger("quicbus.edge").exception("failed")
    text = stream.getvalue()
    assert len(text.splitlines()) > 2
    assert "\x1b" not in text


def test_printable_text_of_any_script_stays_as_it_is() -> None:
    assert harmless("Zürich 東京 🙂") == "Zürich 東京 🙂"
    assert harmless("two\nlines", keep="\n") == "two\nlines"
