"""`quicbus reload`: have the broker on this machine read its permissions again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from quicbus.commands import common_options, settings_of
from quicbus.exceptions import InvalidSetting
from quicbus.identity.folder_files import LOCK_FILE
from quicbus.identity.folder_lock import lock_holder
from quicbus.settings import default_data_dir
from quicbus_broker.reload_files import ReloadFailed, ask
from quicbus_broker.settings import BrokerSettings
from quicbus_broker.workers.seat import WORKERS_FOLDER

__all__ = ["reload"]


@click.command(short_help="Have the broker here read its permissions again.")
@click.option("--data-dir", metavar="PATH", help="Data folder of the broker; without it the user's.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=15.0, show_default=True, metavar="S")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@common_options
def reload(data_dir: str | None, timeout: float, as_json: bool, **options: Any) -> int:
    """Have the broker on this machine read the table [permissions] again, without dropping a connection.

    All or nothing: where the file is wrong nothing changes, the reason is printed, and the exit code is 1.
    Subscriptions that are no longer permitted end. SIGHUP does the same.
    """
    try:
        lines = tuple(line for folder in _brokers_in(_folder(data_dir, options)) for line in ask(folder, timeout))
    except ReloadFailed as error:
        if not as_json:
            raise
        click.echo(json.dumps({"reloaded": False, "error": str(error)}))
        return 1
    if as_json:
        click.echo(json.dumps({"reloaded": True, "lines": lines}))
    else:
        click.echo("\n".join(f"reloaded {line}" for line in lines))
    return 0


def _brokers_in(folder: Path) -> list[Path]:
    """Return the data folder, and those of further workers that run."""
    further = (path.parent for path in sorted(folder.glob(f"{WORKERS_FOLDER}/*/{LOCK_FILE}")))
    return [folder, *(each for each in further if lock_holder(each / LOCK_FILE) is not None)]


def _folder(data_dir: str | None, options: dict[str, Any]) -> Path:
    """Return the data folder. A broken file of settings is what the broker is to tell about, where it can be asked."""
    try:
        return settings_of(BrokerSettings, {"data_dir": data_dir, **options}).folder
    except InvalidSetting as error:
        if data_dir:
            return Path(data_dir).expanduser()
        folder = default_data_dir()
        if not folder.exists():
            raise ReloadFailed(f"not reloaded: {error}") from None
        return folder
