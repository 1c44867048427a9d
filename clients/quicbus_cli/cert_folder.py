"""What the `cert` and `token` commands share: the data folder they work in, and its authority."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import click

from quicbus.commands import settings_of
from quicbus.settings import ClientSettings, default_data_dir

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.identity import Authority, Credential

__all__ = ["authority_of", "credential_facts", "data_dir_option", "folder_of", "moment", "tell_how_it_spreads"]

data_dir_option = click.option(
    "--data-dir", metavar="DIR", help="Data folder with the authority (or QUICBUS_DATA_DIR)."
)


def folder_of(named: str | None) -> Path:
    """Return the data folder that the command works in."""
    settings = settings_of(ClientSettings, {"data_dir": named})
    return settings.data_dir or default_data_dir()


def authority_of(folder: Path) -> Authority:
    """Return the authority that issues now; raises `DataFolderError` with the remedy where its key is not here."""
    from quicbus.identity import load_authority  # cryptography takes a while to load
    from quicbus.identity.rotation import advance_rotation

    load_authority(folder)
    # A broker does this too, but the folder of an authority that is kept offline has none.
    advance_rotation(folder, dt.datetime.now(dt.UTC))
    return load_authority(folder)


def tell_how_it_spreads(folder: Path) -> None:
    """Say how the trust list of this folder gets to the mesh."""
    if (folder / "node.pem").exists():
        click.echo("a broker that runs with this data folder tells the mesh; otherwise it does when it starts")
    else:
        click.echo(f"copy {folder / 'trust.bin'} into the data folder of any broker: it tells the mesh")


def credential_facts(credential: Credential) -> dict[str, Any]:
    return {
        "role": str(credential.role),
        "name": credential.name,
        "mesh": credential.mesh,
        "id": credential.node_id.hex(),
        "not_after": credential.not_after.isoformat(),
    }


def moment(seconds: float) -> dt.datetime:
    """Return a time that the folder's files keep in seconds since 1970."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
