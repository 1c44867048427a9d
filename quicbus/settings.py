"""Settings in layers: defaults < quicbus.toml < environment `QUICBUS_*` < options.

A settings class is a frozen dataclass whose fields are flat keys; client and broker share one name space and one file.
`load_settings` fills any such class; what is wrong raises `InvalidSetting` with the place where it was read.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import msgspec
import platformdirs

from quicbus import limits
from quicbus.exceptions import InvalidSetting
from quicbus.setting_values import convert_value, holds_paths

__all__ = [
    "CONFIG_NAME",
    "ENVIRONMENT_PREFIX",
    "TABLES",
    "ClientSettings",
    "default_data_dir",
    "find_config",
    "load_settings",
]

CONFIG_NAME = "quicbus.toml"
ENVIRONMENT_PREFIX = "QUICBUS_"
TABLES = frozenset({"permissions"})
"""Of the file. They are the broker's, which reads them by itself: what they hold may change while it runs."""
_FILE_OF_TABLES = "permissions_file"
"""A setting of this name is, unless it is given, the file of the other settings."""
_SETTINGS_GROUP = "quicbus.settings"

S = TypeVar("S")


def default_data_dir(environment: Mapping[str, str] | None = None) -> Path:
    """Return the data folder that is used when none is named: `QUICBUS_DATA_DIR`, else the user's data folder."""
    named = (os.environ if environment is None else environment).get("QUICBUS_DATA_DIR")
    return Path(named).expanduser() if named else platformdirs.user_data_path("quicbus", appauthor=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What a client needs. Times in seconds, sizes in bytes."""

    url: tuple[str, ...] = ("quic://localhost:4433",)
    """Brokers, tried in turn."""
    credentials: Path | None = None
    """Credential file (PEM: key, certificate, authority); without it `<data_dir>/credential.pem`."""
    data_dir: Path | None = None
    """Folder of keys and certificates; without it the user's data folder."""
    name: str = ""
    """A label for the broker's log; the name that counts is the one in the certificate."""
    engine: Literal["auto", "aioquic", "qh3"] = "auto"
    """QUIC implementation; `auto` takes qh3 where it is installed."""
    connect_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=limits.MAX_TIME_S)] = 10.0
    """How long the first connect may take, over all URLs."""
    stall_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=limits.MAX_TIME_S)] = 10.0
    """A connection without a sign of life for this long is given up and dialed anew."""
    offline_buffer_size: Annotated[int, msgspec.Meta(ge=0)] = limits.OFFLINE_BUFFER_SIZE
    """What is published while disconnected is buffered up to this; then publishing waits."""
    qlog_dir: Path | None = None
    """Folder for QUIC event logs, one file a connection."""

    @property
    def credentials_path(self) -> Path:
        """The credential file that is used: the named one, else the local user's."""
        return self.credentials or (self.data_dir or default_data_dir()) / "credential.pem"


def find_config(
    config: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Path | None:
    """Return the file of settings: `config`, else ./quicbus.toml, else the data folder's, else `None`.

    A `config` that is named and not there raises `InvalidSetting`.
    """
    if config is not None:
        path = Path(config).expanduser()
        if not path.is_file():
            raise InvalidSetting("config", f"{path} is not a file", "option --config")
        return path
    folder = Path(data_dir).expanduser() if data_dir else default_data_dir(environment)
    return next((path for path in (Path(CONFIG_NAME), folder / CONFIG_NAME) if path.is_file()), None)


def load_settings(
    kind: type[S],
    options: Mapping[str, Any] | None = None,
    *,
    config: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    refuse_unknown: bool = True,
) -> S:
    """Return a `kind` filled from all layers. `options` that are `None` were not given.

    Keys of the file and the environment that belong to other settings classes (entry-point group `quicbus.settings`)
    are left alone; keys that no class knows raise `InvalidSetting`, unless `refuse_unknown` is false.
    """
    environment = os.environ if environment is None else environment
    given = {name: value for name, value in (options or {}).items() if value is not None}
    types = get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # any dataclass will do
    path = find_config(config, data_dir=given.get("data_dir"), environment=environment)

    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    unknown: list[tuple[str, str]] = []
    for layer in (_file_layer(path), _environment_layer(environment), _option_layer(given)):
        for name, value, where in layer:
            if name not in names:
                unknown.append((name, where))
                continue
            if path is not None and where == str(path) and holds_paths(types[name]) and isinstance(value, str):
                value = str(path.parent / Path(value).expanduser())
            values[name] = convert_value(name, value, types[name], where)
            origins[name] = where
    if refuse_unknown:
        _refuse_unknown(unknown, names)
    if _FILE_OF_TABLES in names and path is not None:
        values.setdefault(_FILE_OF_TABLES, path)
    return _build(kind, values, origins)


def _build(kind: type[S], values: Mapping[str, Any], origins: Mapping[str, str]) -> S:
    try:
        return kind(**values)
    except InvalidSetting as error:
        raise InvalidSetting(error.name, error.why, error.where or origins.get(error.name, "")) from None


Layer = Iterable[tuple[str, Any, str]]
"""Name, value and where it was read."""


def _file_layer(path: Path | None) -> Layer:
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting("config", f"not readable as TOML: {error}", str(path)) from None
    except OSError as error:
        raise InvalidSetting("config", f"not readable: {error.strerror}", str(path)) from None
    for name, value in content.items():
        if name in TABLES and isinstance(value, dict):
            continue
        if isinstance(value, dict):
            tables = ", ".join(f"[{table}]" for table in sorted(TABLES))
            raise InvalidSetting(name, f"settings are flat keys; the only table is {tables}", str(path))
        yield name, value, str(path)


_NOT_SETTINGS = frozenset({"config"})


def _environment_layer(environment: Mapping[str, str]) -> Layer:
    for variable in sorted(environment):
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if variable.startswith(ENVIRONMENT_PREFIX) and environment[variable] and name not in _NOT_SETTINGS:
            yield name, environment[variable], f"environment variable {variable}"


def _option_layer(given: Mapping[str, Any]) -> Layer:
    for name, value in given.items():
        yield name, value, f"option --{name.replace('_', '-')}"


def _refuse_unknown(unknown: Sequence[tuple[str, str]], names: Sequence[str]) -> None:
    if not unknown:
        return
    known = {*names, *_names_of_others()}
    for name, where in unknown:
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
            hint = f"did you mean {close[0]}?" if close else "docs/configuration.md lists all settings"
            raise InvalidSetting(name, f"unknown setting; {hint}", where)


def _names_of_others() -> set[str]:
    return {field.name for point in entry_points(group=_SETTINGS_GROUP) for field in dataclasses.fields(point.load())}
