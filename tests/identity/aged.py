"""Data folders whose certificates were issued long ago: what is due, or has expired, without waiting for it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from quicbus.identity import Credential, prepare_node_folder

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.identity import Authority

__all__ = ["aged_folder"]


def aged_folder(authority: Authority, folder: Path, name: str, age_days: float) -> Path:
    """Prepare the folder of a node whose certificates were issued for 30 days so long ago; the authority is older."""
    node = prepare_node_folder(authority, name, folder)
    local = Credential.load(folder / "credential.pem")
    issued = dt.datetime.now(dt.UTC) - dt.timedelta(days=age_days)
    aged = authority.issue_node(name, days=30, key=node.private_key, now=issued)
    (folder / "node.pem").write_bytes(aged.chain_pem)
    authority.issue_client(name, days=30, key=local.private_key, now=issued).save(folder / "credential.pem")
    return folder
