"""Layers, checks and sentences of the settings loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quicbus.exceptions import InvalidSetting
from quicbus.settings import ClientSettings, default_data_dir, find_config, load_settings


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(
    options: dict[str, Any] | None = None, environment: dict[str, str] | None = None, **more: Any
) -> ClientSettings:
    nowhere = {"QUICBUS_DATA_DIR": "nowhere"}
    return load_settings(ClientSettings, options, environment={**nowhere, **(environment or {})}, **more)


def test_without_anything_said_defaults_apply() -> None:
    settings = load_settings(ClientSettings, environment={})
    assert settings == ClientSettings()
    assert settings.url == ("quic://localhost:4433",)
    assert settings.connect_timeout_s == 10.0


def test_environment_beats_file_and_options_beat_environment() -> None:
    Path("quicbus.toml").write_text('engine = "aioquic"\nname = "file"\nconnect_timeout_s = 1\n')
    settings = load({"name": "option"}, {"QUICBUS_NAME": "environment", "QUICBUS_CONNECT_TIMEOUT_S": "2"})
    assert (settings.engine, settings.connect_timeout_s, settings.name) == ("aioquic", 2.0, "option")


def test_option_none_was_not_given() -> None:
    assert load({"name": None}, {"QUICBUS_NAME": "environment"}).name == "environment"


def test_file_is_looked_for_by_name_then_here_then_in_the_data_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "quicbus.toml").write_text('name = "data folder"')
    assert load(environment={"QUICBUS_DATA_DIR": str(folder)}).name == "data folder"
    assert load({"data_dir": str(folder)}).name == "data folder"
    Path("quicbus.toml").write_text('name = "here"')
    assert load({"data_dir": str(folder)}).name == "here"
    Path("other.toml").write_text('name = "named"')
    assert load({"data_dir": str(folder)}, config="other.toml").name == "named"
    assert find_config(environment={"QUICBUS_DATA_DIR": str(folder)}) == Path("quicbus.toml")


def test_named_file_must_be_there() -> None:
    with pytest.raises(InvalidSetting, match=r"missing\.toml is not a file") as caught:
        load(config="missing.toml")
    assert caught.value.where == "option --config"


def test_unknown_key_is_refused_by_name_with_the_nearest_known_one() -> None:
    Path("quicbus.toml").write_text("conect_timeout_s = 3")
    with pytest.raises(InvalidSetting) as caught:
        load()
    assert str(caught.value) == "conect_timeout_s (from quicbus.toml): unknown setting; did you mean connect_timeout_s?"


def test_unknown_environment_variable_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"environment variable QUICBUS_CREDENTIAL.*did you mean credentials"):
        load(environment={"QUICBUS_CREDENTIAL": "alice.pem"})


def test_settings_of_the_broker_may_stand_in_the_same_file() -> None:
    Path("quicbus.toml").write_text('listen = "[::]:4433"\nlog_level = "info"\nname = "mine"')
    assert load().name == "mine"


def test_unknown_keys_may_be_left_alone() -> None:
    assert load(environment={"QUICBUS_UNHEARD_OF": "1"}, refuse_unknown=False) == ClientSettings(
        data_dir=Path("nowhere")
    )


def test_table_in_the_file_is_refused() -> None:
    Path("quicbus.toml").write_text('[broker]\nlisten = "x"')
    with pytest.raises(InvalidSetting, match=r"broker .*flat keys; the only table is \[permissions\]"):
        load()


def test_the_table_of_permissions_is_left_to_the_broker() -> None:
    Path("quicbus.toml").write_text('name = "mine"\n[permissions]\nno_such_key = 1\n')
    assert load().name == "mine"


def test_file_that_is_not_toml_is_refused_with_its_place() -> None:
    Path("quicbus.toml").write_text("engine = \n")
    with pytest.raises(InvalidSetting, match=r"from quicbus\.toml.*not readable as TOML.*line 1"):
        load()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("engine", "qh4", "'qh4' is not allowed; allowed: one of auto, aioquic, qh3 (did you mean qh3?)"),
        ("connect_timeout_s", "0", "'0' is not allowed; allowed: a number, more than 0, at most 31536000"),
        ("stall_timeout_s", "inf", "'inf' is not allowed; allowed: a number, more than 0, at most 31536000"),
        ("connect_timeout_s", "soon", "'soon' is not allowed; allowed: a number, more than 0, at most 31536000"),
        ("offline_buffer_size", "-1", "'-1' is not allowed; allowed: a whole number, at least 0"),
        ("offline_buffer_size", "4 bananas", "'4 bananas' is not allowed; allowed: a whole number, at least 0"),
    ],
)
def test_wrong_value_tells_which_where_and_what_is_allowed(name: str, value: str, sentence: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load({name: value})
    assert str(caught.value) == f"{name} (from option --{name.replace('_', '-')}): {sentence}"


def test_types_of_the_file_are_taken_strictly() -> None:
    Path("quicbus.toml").write_text("name = 7")
    with pytest.raises(InvalidSetting, match="7 is not allowed; allowed: a text"):
        load()


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("4KiB", 4096), ("2 MiB", 2 * 1024**2), ("1kB", 1000)])
def test_sizes_may_have_units(text: str, size: int) -> None:
    assert load(environment={"QUICBUS_OFFLINE_BUFFER_SIZE": text}).offline_buffer_size == size


def test_several_urls_are_separated_by_commas_or_spaces() -> None:
    assert load(environment={"QUICBUS_URL": "quic://a:1, quic://b:2"}).url == ("quic://a:1", "quic://b:2")


def test_paths_in_a_file_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "q.toml").write_text('credentials = "alice.pem"')
    assert load(config=tmp_path / "etc" / "q.toml").credentials == tmp_path / "etc" / "alice.pem"
    assert load({"credentials": "alice.pem"}).credentials == Path("alice.pem")


def test_credential_is_the_named_one_or_that_of_the_data_folder(tmp_path: Path) -> None:
    assert ClientSettings(credentials=Path("a.pem"), data_dir=tmp_path).credentials_path == Path("a.pem")
    assert ClientSettings(data_dir=tmp_path).credentials_path == tmp_path / "credential.pem"


def test_default_data_folder_is_the_environments_or_the_users() -> None:
    assert default_data_dir({"QUICBUS_DATA_DIR": "/somewhere"}) == Path("/somewhere")
    assert default_data_dir({}).name == "quicbus"
