"""Settings of a broker: what is allowed, and how the rest is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicbus.exceptions import InvalidSetting
from quicbus.setting_docs import describe_settings
from quicbus.settings import load_settings
from quicbus_broker.settings import BrokerSettings, parse_listen


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("[::]:4433", ("::", 4433)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost:65535", ("localhost", 65_535)),
        (":4433", ("::", 4433)),
        ("[2001:db8::1]:1", ("2001:db8::1", 1)),
    ],
)
def test_what_to_listen_on_is_host_and_port(listen: str, expected: tuple[str, int]) -> None:
    assert parse_listen(listen) == expected


@pytest.mark.parametrize("listen", ["", "4433", "localhost", "::1:4433", "[nonsense]:1", "a:65536", "a:-1", "a:b"])
def test_anything_else_is_refused(listen: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        BrokerSettings(listen=listen)
    assert caught.value.name == "listen"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("retry", "sometimes", "one of always, never, auto"),
        ("engine", "quiche", "one of auto, aioquic, qh3"),
        ("max_message_size", 0, "at least 1"),
        ("max_message_size", 1 << 40, "at most 67108864"),
        ("max_connections", 0, "at least 1"),
        ("max_publish_rate", -1, "at least 0"),
        ("handshake_timeout_s", 0, "more than 0"),
        ("block_timeout_s", -1, "more than 0"),
        ("idle_timeout_s", float("inf"), "at most 31536000"),
        ("drain_timeout_s", float("inf"), "at most 31536000"),
        ("max_datagram_size", 1199, "at least 1200"),
        ("keep_alive_s", 31, "below idle_timeout_s"),
        ("name", "no spaces", "A-Z"),
        ("mode", "both", "one of hybrid, server, client"),
        ("max_hops", 0, "at least 1"),
        ("max_hops", 256, "at most 255"),
        ("seed", ["host:x"], "--seed broker.example:4433"),
        ("seed", ["host:0"], "from 1 to 65535"),
        ("seed", ["::1"], "in brackets"),
        ("seed", ["[nonsense]:1"], "not an IPv6 address"),
        ("seed", ["tcp://host:1"], "not HOST:PORT"),
        ("seed", ["user@host:1"], "not HOST:PORT"),
        ("advertise", ["host"], "--advertise broker.example:4433"),
        ("advertise", ["0.0.0.0:4433"], "no address that others can dial"),
        ("advertise", ["[::]:4433"], "no address that others can dial"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_what_is_allowed(name: str, value: object, allowed: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        BrokerSettings(**{name: value})  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.name == name
    assert allowed in caught.value.why


def test_certificate_files_are_given_together() -> None:
    with pytest.raises(InvalidSetting, match="private_key: certificate, private_key and authority"):
        BrokerSettings(certificate=Path("node.pem"))


def test_text_is_taken_where_code_gives_it() -> None:
    made = BrokerSettings(data_dir="somewhere", max_message_size="2MiB")  # type: ignore[arg-type]  # as a file would

    assert made.data_dir == Path("somewhere")
    assert made.max_message_size == 2 * 1024 * 1024
    assert made.edge_limits.max_message_size == made.max_message_size


@pytest.mark.parametrize(
    ("seed", "read"),
    [
        ("host", "host:4433"),
        ("host:1", "host:1"),
        ("quic://host:1/", "host:1"),
        ("192.0.2.1:9", "192.0.2.1:9"),
        ("[2001:db8::1]", "[2001:db8::1]:4433"),
        ("quic://[::1]:9", "[::1]:9"),
        ("[fe80::1%eth0]:9", "[fe80::1%eth0]:9"),
    ],
)
def test_a_seed_is_read_as_people_write_it(seed: str, read: str) -> None:
    assert BrokerSettings(seed=(seed,)).seed == (read,)


def test_seeds_come_as_a_list_in_the_file_with_commas_in_the_environment_and_repeated_as_options(
    tmp_path: Path,
) -> None:
    config = tmp_path / "quicbus.toml"
    config.write_text('seed = ["a", "b:1", "a:4433"]\ndiscover = true\n')
    assert load_settings(BrokerSettings, config=config, environment={}).seed == ("a:4433", "b:1")
    assert load_settings(BrokerSettings, config=config, environment={}).discover
    environment = {"QUICBUS_SEED": "c, quic://d:2", "QUICBUS_DISCOVER": "false"}
    read = load_settings(BrokerSettings, config=config, environment=environment)
    assert (read.seed, read.discover) == (("c:4433", "d:2"), False)
    assert load_settings(BrokerSettings, {"seed": ("e",)}, config=config, environment=environment).seed == ("e:4433",)


def test_a_node_that_only_dials_advertises_nothing() -> None:
    with pytest.raises(InvalidSetting, match="advertise: mode client accepts no nodes"):
        BrokerSettings(mode="client", advertise=("host:1",))


def test_seeds_of_a_node_that_dials_nobody_are_doubted() -> None:
    (doubt,) = BrokerSettings(mode="server", seed=("host",)).doubts
    assert "dials nobody" in doubt
    assert BrokerSettings(mode="client", seed=("host",)).doubts == ()


def test_every_setting_says_what_it_is() -> None:
    assert [setting.name for setting in describe_settings(BrokerSettings) if not setting.text] == []


def test_a_join_token_is_not_shown() -> None:
    assert "secret" not in repr(BrokerSettings(join="qbt1-secret"))


def test_authority_none_makes_no_authority_and_wants_no_further_files() -> None:
    assert not BrokerSettings(authority=Path("none")).makes_authority
    assert not BrokerSettings(authority=Path("/etc/quicbus/none")).makes_authority, "as the file of settings has it"
    assert BrokerSettings().makes_authority
    with pytest.raises(InvalidSetting, match="private_key"):
        BrokerSettings(authority=Path("none"), certificate=Path("node.pem"))
