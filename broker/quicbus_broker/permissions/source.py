"""Where a broker's table of permissions stands, and how it comes from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quicbus.settings import CONFIG_NAME
from quicbus_broker.permissions.read_table import TABLE_NAME, read_table
from quicbus_broker.permissions.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quicbus_broker.settings import BrokerSettings

__all__ = ["PermissionsSource", "permissions_path"]


def permissions_path(settings: BrokerSettings, folder: Path | None = None) -> Path:
    """Return the file: the one that is named, or that the settings were read from, else `folder`'s or the data
    folder's."""
    return settings.permissions_file or (folder or settings.folder) / CONFIG_NAME


class PermissionsSource:
    """What can be read again while the broker runs. `use` is called with each new table."""

    def __init__(self, settings: BrokerSettings, use: Callable[[Table], None], folder: Path | None = None) -> None:
        self._path = permissions_path(settings, folder)
        self._must_be_there = settings.permissions_file is not None
        self._use = use

    def read(self) -> Callable[[], str]:
        """Read the table, and return what puts it in force and says so. Raises `InvalidSetting`; reads a file.

        A file that was there once and is gone is an error: without its table everyone might do everything.
        """
        is_there = self._must_be_there or _may_exist(self._path)
        table = read_table(self._path) if is_there else Table()

        def apply() -> str:
            self._must_be_there = is_there
            self._use(table)
            return f"{TABLE_NAME}: {table}" + ("" if is_there else f" (there is no {self._path})")

        return apply


def _may_exist(path: Path) -> bool:
    """Whether there is such a file, or nobody can tell: reading it says why."""
    try:
        return path.exists()
    except OSError:
        return True
