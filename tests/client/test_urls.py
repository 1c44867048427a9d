"""Broker URLs."""

from __future__ import annotations

import pytest

import quicbus
from quicbus.client.urls import BrokerUrl, parse_url, parse_urls
from quicbus.exceptions import InvalidSetting


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("quic://localhost", "localhost", 4433, "quic://localhost:4433"),
        ("quic://broker.example:5000/", "broker.example", 5000, "quic://broker.example:5000"),
        ("quic://127.0.0.1:1", "127.0.0.1", 1, "quic://127.0.0.1:1"),
        ("quic://[::1]", "::1", 4433, "quic://[::1]:4433"),
        ("quic://[fe80::1%eth0]:7", "fe80::1%eth0", 7, "quic://[fe80::1%eth0]:7"),
    ],
)
def test_a_url_is_host_and_port(text: str, host: str, port: int, shown: str) -> None:
    url = parse_url(text)
    assert (url.host, url.port, str(url)) == (host, port, shown)


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "http://localhost", "quic://", "quic://:4433", "quic://a:0", "quic://a:65536", "quic://a:b",
     "quic://::1", "quic://a/path", "quic://user@a", "quic://a?x=1"],
)  # fmt: skip
def test_nonsense_is_refused_and_shown(text: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        parse_url(text)
    assert repr(text) in str(caught.value)


def test_urls_come_from_the_call_then_the_environment_then_the_default() -> None:
    assert parse_urls(("quic://a", "quic://a:4433", "quic://b"), "quic://c") == [
        BrokerUrl("a", 4433),
        BrokerUrl("b", 4433),
    ]
    assert parse_urls((), "quic://a, quic://b") == [BrokerUrl("a", 4433), BrokerUrl("b", 4433)]
    assert parse_urls((), None) == parse_urls((), "") == [BrokerUrl("localhost", 4433)]
    with pytest.raises(InvalidSetting, match="QUICBUS_URL"):
        parse_urls((), "nonsense")


@pytest.mark.parametrize(
    "options",
    [{"engine": "none"}, {"connect_timeout_s": 0}, {"stall_timeout_s": -1.0}, {"offline_buffer_size": -1}],
)
def test_connect_refuses_nonsense_before_it_is_awaited(options: dict[str, object]) -> None:
    with pytest.raises(InvalidSetting, match=next(iter(options))):
        quicbus.connect("quic://localhost", **options)  # type: ignore[arg-type]
