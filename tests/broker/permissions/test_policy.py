"""What a table grants: roles by name, allows that add up, denies that win, and what is remembered of it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from quicbus import limits
from quicbus.topics import matches
from quicbus_broker.permissions import Action, Grant, Policy, Role, Rule, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


def role(
    *match: str,
    publish: Sequence[str] = (),
    subscribe: Sequence[str] = (),
    deny_publish: Sequence[str] = (),
    deny_subscribe: Sequence[str] = (),
) -> Role:
    lists = (publish, subscribe, deny_publish, deny_subscribe)
    return Role("role", 1, match, *(tuple(Rule(filter, 1) for filter in filters) for filters in lists))


def may_publish(policy: Policy, name: str, topic: str) -> bool:
    return policy.may_publish(policy.grant(name), topic.encode())


def may_subscribe(policy: Policy, name: str, filter: str) -> bool:
    return policy.grant(name).decide(Action.SUBSCRIBE, filter).allowed


def test_without_a_table_everyone_may_do_everything() -> None:
    policy = Policy()
    assert not policy.table.restricts
    assert policy.grant("alice").is_unrestricted
    assert may_publish(policy, "alice", "a/b")
    assert may_subscribe(policy, "alice", "#")


def test_the_default_is_for_names_that_no_role_matches() -> None:
    roles = (role("sensor-*", publish=["a"]),)
    for allows in (True, False):
        policy = Policy(Table(roles, allows_unmatched=allows))
        assert may_publish(policy, "alice", "x") is allows
        assert may_subscribe(policy, "alice", "x/#") is allows
        assert not may_publish(policy, "sensor-1", "x")
        assert not may_subscribe(policy, "sensor-1", "a")
        assert may_publish(policy, "sensor-1", "a")


def test_patterns_are_those_of_fnmatch_and_tell_case_apart() -> None:
    each = role("sensor-?", "[ab]*", "exact.name")
    matched = [
        name for name in ("sensor-1", "sensor-12", "Sensor-1", "bob", "exact.name", "exactXname") if each.matches(name)
    ]
    assert matched == ["sensor-1", "bob", "exact.name"]


def test_the_place_of_the_name_holds_the_own_name_only() -> None:
    policy = Policy(Table((role("*", publish=["s/${name}/#"], subscribe=["c/${name}-x"]),)))
    assert may_publish(policy, "s.1", "s/s.1/t")
    assert not may_publish(policy, "s.1", "s/s.2/t")
    assert not may_publish(policy, "s.1", "s/sx1/t")
    assert may_subscribe(policy, "s.1", "c/s.1-x")
    assert not may_subscribe(policy, "s.1", "c/+")


def test_allows_of_several_roles_add_up_and_any_deny_wins() -> None:
    roles = (role("*", publish=["a/#"]), role("ali*", publish=["b"], deny_publish=["a/secret/#"]))
    policy = Policy(Table(roles, allows_unmatched=False))
    topics = ("a", "a/x", "b", "a/secret", "a/secret/x", "c")
    assert [may_publish(policy, "alice", topic) for topic in topics] == [True, True, True, False, False, False]
    assert [may_publish(policy, "bob", topic) for topic in topics] == [True, True, False, True, True, False]


def test_a_subscribe_needs_one_filter_that_covers_it_and_none_denied_that_overlaps_it() -> None:
    policy = Policy(Table((role("*", subscribe=["a/+", "a/b/#", "c/#"], deny_subscribe=["c/+/secret"]),)))
    expected = {"a/+": True, "a/b/c": True, "a/#": False, "c/#": False, "c/x": True, "c/+/+": False, "c/d/open": True}
    assert {filter: may_subscribe(policy, "alice", filter) for filter in expected} == expected


def test_everything_leaves_out_topics_with_a_dollar() -> None:
    policy = Policy(Table((role("*", publish=["#"], subscribe=["#"]),)))
    assert may_publish(policy, "alice", "a")
    assert not may_publish(policy, "alice", "$sys/a")
    assert not may_subscribe(policy, "alice", "$sys/#")


def test_the_decision_names_the_rule() -> None:
    first = role("*", publish=["a/#"], deny_publish=["a/b"])
    grant = Policy(Table((first,))).grant("alice")
    denied = grant.decide(Action.PUBLISH, "a/b")
    assert (denied.allowed, denied.role, denied.rule) == (False, first, first.deny_publish[0])
    allowed = grant.decide(Action.PUBLISH, "a/c")
    assert (allowed.allowed, allowed.rule) == (True, first.publish[0])
    neither = grant.decide(Action.PUBLISH, "c")
    assert (neither.allowed, neither.role, neither.rule) == (False, None, None)


LEVELS = ("a", "b", "$s", "z")
TOPICS = ["/".join(levels) for count in (1, 2, 3) for levels in itertools.product(LEVELS, repeat=count)]
FILTERS = st.builds(
    lambda levels, end: "/".join([*levels, *end]),
    st.lists(st.sampled_from(["a", "b", "$s", "+"]), max_size=2),
    st.sampled_from([[], ["#"]]),
).filter(bool)
LISTS = st.lists(FILTERS, max_size=3)


@given(LISTS, LISTS, FILTERS)
def test_decisions_are_those_of_every_topic(allowed: list[str], denied: list[str], filter: str) -> None:
    grant = Grant(
        Table((role("*", publish=allowed, subscribe=allowed, deny_publish=denied, deny_subscribe=denied),)), "n"
    )

    def is_matched(filters: list[str], topic: str) -> bool:
        return any(matches(each, topic) for each in filters)

    for topic in TOPICS:
        expected = is_matched(allowed, topic) and not is_matched(denied, topic)
        assert grant.decide(Action.PUBLISH, topic).allowed == expected
    topics = [topic for topic in TOPICS if matches(filter, topic)]
    one_covers = any(all(matches(each, topic) for topic in topics) for each in allowed)
    assert grant.decide(Action.SUBSCRIBE, filter).allowed == (
        one_covers and not any(is_matched(denied, topic) for topic in topics)
    )


def test_another_table_forgets_what_was_decided() -> None:
    policy = Policy(Table((role("*", publish=["a"]),)))
    before = policy.grant("alice")
    assert not policy.may_publish(before, b"b")
    policy.replace(Table((role("*", publish=["b"]),)))
    assert not before.decided
    assert may_publish(policy, "alice", "b")
    assert policy.grant("alice") is not before


def test_decisions_are_remembered_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CACHED_DECISIONS", 10)
    monkeypatch.setattr(limits, "CACHED_GRANTS", 3)
    policy = Policy(Table((role("*", publish=["t/#"]),)))
    grants = {}
    for index in range(200):
        name = f"n{index % 7}"
        grants[id(policy.grant(name))] = policy.grant(name)
        assert may_publish(policy, name, f"t/{index}")
        assert not may_publish(policy, name, f"u/{index}")
        assert sum(len(grant.decided) for grant in grants.values()) <= 10
        assert len(policy._grants) <= 3


def test_rules_are_remembered_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CACHED_RULES", 10)
    policy = Policy(Table((role("*", publish=["a", "b/${name}"], deny_subscribe=["c"]),)))
    for index in range(30):
        assert may_publish(policy, f"n{index}", f"b/n{index}")
        assert sum(grant.rules for grant in policy._grants.values()) <= 10


def test_long_topics_are_remembered_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CACHED_DECISIONS_SIZE", 1000)
    policy = Policy(Table(allows_unmatched=False))
    grant = policy.grant("alice")
    for index in range(50):
        assert not policy.may_publish(grant, b"%d" % index + b"x" * 300)
        assert sum(map(len, grant.decided)) <= 1000


def test_batches_of_other_nodes_are_judged_by_name_and_replies_always_pass() -> None:
    policy = Policy(Table((role("ann", publish=["a/#"]),), allows_unmatched=False))
    reply = b"$quicbus/reply/" + b"0" * 32 + b"/" + b"1" * 32 + b"/1"
    assert policy.may_relay("ann", b"a/b", b"")
    assert policy.may_relay("ann", b"a/b", reply)
    assert not policy.may_relay("ann", b"a/b", b"c")
    assert not policy.may_relay("ann", b"a/b", b"\xff")
    assert not policy.may_relay("ann", b"b", b"")
    assert not policy.may_relay("bob", b"a/b", b"")
    assert policy.may_relay("bob", reply, b"")
    assert Policy().may_relay("bob", b"anything", b"")


def test_a_name_that_no_certificate_can_have_gets_nothing_of_a_table() -> None:
    policy = Policy(Table((role("*", publish=["s/${name}/#"]),)))
    assert not policy.may_relay("+", b"s/a/b", b"")
    assert not policy.may_relay("a/b", b"s/a/b/c", b"")
