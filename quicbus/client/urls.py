"""Broker URLs: `quic://host[:port]`."""

from __future__ import annotations

import re

import msgspec

from quicbus.exceptions import InvalidSetting

__all__ = ["DEFAULT_PORT", "DEFAULT_URL", "BrokerUrl", "parse_url", "parse_urls"]

DEFAULT_PORT = 4433
DEFAULT_URL = "quic://localhost:4433"
_URL = re.compile(
    r"quic://(?:\[(?P<v6>[0-9a-fA-F:.]+(?:%[\w.-]+)?)\]|(?P<host>[^\s/:@?#\[\]]+))(?::(?P<port>\d{1,5}))?/?"
)


class BrokerUrl(msgspec.Struct, frozen=True):
    """Where a broker is; `str()` gives the URL back."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"quic://{host}:{self.port}"


def parse_url(text: str, where: str = "") -> BrokerUrl:
    """Return what stands in a URL; raises `InvalidSetting` that shows what is allowed."""
    match = _URL.fullmatch(text.strip())
    if match is None:
        raise InvalidSetting("url", f"{text!r} is not quic://HOST[:PORT] (an IPv6 address in brackets)", where)
    port = int(match["port"]) if match["port"] else DEFAULT_PORT
    if not 0 < port < 65536:
        raise InvalidSetting("url", f"{text!r}: a port is a number from 1 to 65535", where)
    return BrokerUrl(match["v6"] or match["host"], port)


def parse_urls(urls: tuple[str, ...], environment: str | None) -> list[BrokerUrl]:
    """Return the brokers to try: those given, else those in `QUICBUS_URL` (by commas or spaces), else the local one."""
    if urls:
        return list(dict.fromkeys(parse_url(url) for url in urls))
    if environment and (named := re.split(r"[,\s]+", environment.strip(" ,"))):
        return list(dict.fromkeys(parse_url(url, "QUICBUS_URL") for url in named))
    return [parse_url(DEFAULT_URL)]
