"""Text that comes from elsewhere: URLs, addresses, topics and filters, the file of remembered members."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, cast

from quicbus import limits
from quicbus.client.urls import parse_url, parse_urls
from quicbus.exceptions import InvalidSetting, InvalidTopic
from quicbus.topics import TopicTrie, check_filter, check_group, check_topic, matches, parse_filter
from quicbus_broker.host_port import parse_advertised, parse_host_port, parse_seed
from quicbus_broker.permissions.explain import explain
from quicbus_broker.permissions.grants import Grant
from quicbus_broker.permissions.read_table import parse_table
from quicbus_broker.permissions.table import Action
from quicbus_broker.remembered import RememberedMembers
from tests.fuzz import samples
from tests.fuzz.target import Target, join, parts

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TARGETS"]


def urls(data: bytes) -> None:
    text = data.decode(errors="replace")
    for parse in (parse_seed, parse_advertised, parse_host_port):
        try:
            parse(text)
        except (InvalidSetting, ValueError):
            pass
    try:
        parse_urls((), text)
    except InvalidSetting:
        pass
    url = parse_url(text)
    assert parse_url(str(url)) == url


def topics(data: bytes) -> None:
    """A topic, then filters: what the trie finds is what the rule says."""
    topic, *filters = [piece.decode(errors="surrogatepass") for piece in _decodable(data)] or [""]
    trie: TopicTrie[str] = TopicTrie()
    added: list[str] = []
    for text in filters:
        try:
            assert check_filter(text).decode() == text
        except InvalidTopic:
            continue
        if text not in added:
            trie.add(text, text)
            added.append(text)
    for text in filters:
        try:
            _, group = parse_filter(text)
            if group is not None:
                check_group(group)
        except InvalidTopic:
            pass
    assert len(check_topic(topic)) <= limits.MAX_TOPIC_SIZE
    assert sorted(trie.match(topic)) == sorted(text for text in added if matches(text, topic))
    for text in added:
        trie.discard(text, text)
    assert list(trie.match(topic)) == []


def _decodable(data: bytes) -> Iterable[bytes]:
    for piece in parts(data):
        try:
            piece.decode(errors="surrogatepass")
        except UnicodeDecodeError:
            continue
        yield piece


class _File:
    """A path with one file behind it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def open(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._content)


def members_json(data: bytes) -> None:
    members = RememberedMembers(cast("Any", _File(data)), me=samples.ME, mesh="0f" * 16, clock=lambda: 1e9)
    for node, address in members.load():
        assert len(node) == len(samples.ME)
        parse_host_port(address)
    members.learn(())


def _member_seeds() -> Iterable[bytes]:
    entry = {"node": samples.OTHER.hex(), "addresses": ["192.0.2.1:4433", "[::1]:1"], "seen": 1e9, "name": "oslo"}
    yield json.dumps({"mesh": "0f" * 16, "members": [entry, entry]}).encode()
    yield b'{"mesh":"","members":[]}'
    yield b"[" * 200


def permissions(data: bytes) -> None:
    """The table of a quicbus.toml, and what it decides."""
    table = parse_table(data.decode(errors="replace"), "quicbus.toml")
    for name in ("alice", "site-1.robot", "a@b"):
        for action in Action:
            grant = Grant(table, name)
            for subject in ("a/b", "alice/x", "$SYS/x"):
                assert explain(table, name, action, subject).allowed == grant.decide(action, subject).allowed


def _permission_seeds() -> Iterable[bytes]:
    yield b"""# who may do what
default_port = 1
[permissions]
default = "deny"
[[permissions.role]]
name = "robots"
match = ["site-*.robot", "a?b"]
publish = ["a/#", "${name}/+"]
deny_publish = ["a/b"]
subscribe = [
  "#",  # all
]
"""
    yield b"[permissions]\nrole = [{name = 'x', match = ['*'], deny_subscribe = ['+/#']}]\n"


TARGETS = (
    Target("permissions", permissions, _permission_seeds, (InvalidSetting,)),
    Target(
        "urls",
        urls,
        lambda: [b"quic://broker.example:4433", b"quic://[fe80::1%eth0]:1/", b"192.0.2.1:4433", b"a, quic://b ,c:0"],
        (InvalidSetting,),
        max_size=300,
    ),
    Target(
        "topics",
        topics,
        lambda: [
            join(b"sport/tennis", b"sport/#", b"+/tennis", b"sport/+", b"#", b"sport"),
            join(b"$quicbus/reply/a", b"#", b"$quicbus/#", b"+/reply/a"),
            join("a//\u00e9".encode(), b"$share/g/a/#", b"a//+", b"a/+/+", b"/+"),
            join(b"a\x00", b"\xed\xa0\x80", b"a/#/b"),
        ],
        (InvalidTopic,),
    ),
    Target("members_json", members_json, _member_seeds),
)
