"""What all `quicbus` commands share, whichever package they live in: common options, settings, logging.

A command is a click command behind an entry point of the group `quicbus.commands`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from quicbus.logs import LoggingSettings, set_up_logging
from quicbus.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["common_options", "is_debug", "settings_of"]

F = TypeVar("F", bound="Callable[..., Any]")
S = TypeVar("S")

_META = "quicbus.common"


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    context.meta.setdefault(_META, {})[parameter.name] = value


_COMMON = (
    click.option("--config", metavar="FILE", help="Settings file, in place of ./quicbus.toml or the data folder's."),
    click.option("--log-level", metavar="LEVEL", help="debug, info, warning, error or critical."),
    click.option("--log-format", metavar="FORMAT", help="text or json."),
    click.option("--qlog", "qlog_dir", metavar="DIR", help="Write a QUIC event log per connection into this folder."),
    click.option("--debug", is_flag=True, help="Show the traceback of a failure."),
)


def common_options(function: F) -> F:
    """Add --config, --log-level, --log-format, --qlog and --debug; the function gets no arguments for them."""
    for option in _COMMON:
        function = _hidden_from_function(option)(function)
    return function


def _hidden_from_function(option: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        function = option(function)
        added: click.Option = function.__click_params__[-1]  # type: ignore[attr-defined]  # click keeps them there
        added.callback = _remember
        added.expose_value = False
        return function

    return decorate


def settings_of(kind: type[S], options: Mapping[str, Any], *, default_level: str = "critical") -> S:
    """Load the settings of the command that runs, and set up logging on the way.

    Raises `InvalidSetting` for what is not allowed, with the place where it was read.
    """
    common = _common()
    config = common.get("config")
    everything = {**{key: value for key, value in common.items() if key not in ("config", "debug")}, **options}
    logging_names = LoggingSettings.__dataclass_fields__
    named = {name: everything.pop(name) for name in list(everything) if name in logging_names}
    data_dir = {"data_dir": everything.get("data_dir")}
    logging_settings = load_settings(LoggingSettings, {**named, **data_dir}, config=config, refuse_unknown=False)
    set_up_logging(logging_settings, default_level=default_level)
    return load_settings(kind, everything, config=config)


def is_debug() -> bool:
    """Whether --debug was given to the command that runs."""
    return bool(_common().get("debug"))


def _common() -> dict[str, Any]:
    context = click.get_current_context(silent=True)
    return context.meta.get(_META, {}) if context is not None else {}
