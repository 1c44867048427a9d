"""`HOST:PORT` as people write it for seeds and advertised addresses: read, with what is wrong said."""

from __future__ import annotations

import ipaddress
import re

from quicbus.exceptions import InvalidSetting
from quicbus.transport.connection import shown_address

__all__ = ["DEFAULT_PORT", "parse_advertised", "parse_host_port", "parse_seed"]

DEFAULT_PORT = 4433
_SCHEME = "quic://"
_BRACKETED = re.compile(r"\[(?P<host>[^\[\]]+)\](?::(?P<port>\d{1,5}))?")
_PLAIN = re.compile(r"(?P<host>[^\s:/@?#\[\]]+)(?::(?P<port>\d{1,5}))?")


def parse_seed(text: str) -> str:
    """Return `HOST:PORT` of a node to join; without a port it is 4433. Raises `InvalidSetting` that tells what is."""
    example = "write it as --seed broker.example:4433 (an IPv6 address in brackets)"
    return shown_address(_parse("seed", text, DEFAULT_PORT, example))


def parse_advertised(text: str) -> str:
    """Return `HOST:PORT` under which others reach this node; raises `InvalidSetting`."""
    example = "write it as --advertise broker.example:4433, the address and UDP port that others dial"
    host, port = _parse("advertise", text, None, example)
    try:
        is_wildcard = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        is_wildcard = False
    if is_wildcard:
        raise InvalidSetting("advertise", f"{text!r} is no address that others can dial; {example}")
    return shown_address((host, port))


def parse_host_port(text: str) -> tuple[str, int]:
    """Return host (IPv6 without brackets) and port of what these functions gave; raises `ValueError` for the rest."""
    return _parse("address", text, None, "")


def _parse(name: str, text: str, default_port: int | None, example: str) -> tuple[str, int]:
    given = text.strip().removeprefix(_SCHEME).removesuffix("/")
    match = _BRACKETED.fullmatch(given) or _PLAIN.fullmatch(given)
    if match is None or (match["port"] is None and default_port is None):
        raise InvalidSetting(name, f"{text!r} is not HOST:PORT; {example}")
    host, port = match["host"], int(match["port"] or default_port or 0)
    if not 0 < port < 65_536:
        raise InvalidSetting(name, f"{text!r}: a port is a number from 1 to 65535; {example}")
    if given.startswith("["):
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise InvalidSetting(name, f"{host!r} is not an IPv6 address; {example}") from None
    return host, port
