"""Before workers start: each gets a data folder with a node's certificate, made here or joined for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from quicbus.exceptions import CredentialError, DataFolderError
from quicbus.identity.data_folder import DataFolder, prepare_node_folder
from quicbus.identity.folder_content import read_node
from quicbus.identity.folder_files import NODE_FILE, exists, one_error, undo
from quicbus.identity.names import MAX_NAME_SIZE
from quicbus.identity.peer import ISSUE_NODE
from quicbus.transport.engines import engine_named
from quicbus_broker.enrolment import enter_mesh
from quicbus_broker.workers.seat import folder_of

if TYPE_CHECKING:
    from quicbus_broker.settings import BrokerSettings

__all__ = ["Prepared", "prepare_workers"]


class Prepared(msgspec.Struct, frozen=True):
    """Who the workers are."""

    nodes: tuple[bytes, ...]
    """Node ids, in the order of the workers."""
    seed: tuple[str, ...]
    """The settings' seeds, with those of a token."""
    entered: str
    """How this start became a node of its mesh, where a token is named."""


def prepare_workers(settings: BrokerSettings) -> Prepared:
    """Make what is missing in the data folders. Runs an event loop where there is a mesh to join.

    Raises `DataFolderError`, `CredentialError`, and what joining raises; what was made until then stays.
    """
    seed, entered = settings.seed, ""
    if settings.join or not settings.makes_authority:
        seed, entered = asyncio.run(_enter(settings))
    with DataFolder.open(
        settings.folder,
        may_create_authority=settings.makes_authority and not seed,
        node_name=settings.name or None,
        may_be_expired=True,
    ) as first:
        others = (_further(first, number) for number in range(2, settings.workers + 1))
        return Prepared(nodes=(first.node_id, *others), seed=seed, entered=entered)


async def _enter(settings: BrokerSettings) -> tuple[tuple[str, ...], str]:
    engine = engine_named(settings.engine)
    seed, entered = settings.seed, ""
    for number in range(1, settings.workers + 1):
        try:
            entering, said = await enter_mesh(replace(settings, data_dir=folder_of(settings.folder, number)), engine)
        except CredentialError as error:
            if number == 1:
                raise
            raise CredentialError(
                f"{error} (worker {number}: each of the {settings.workers} workers uses the token once; make one with "
                f"`quicbus token create --uses {settings.workers}`, those that have joined need none)"
            ) from None
        if number == 1:
            seed, entered = entering.seed, said
    return seed, entered


def _further(first: DataFolder, number: int) -> bytes:
    """Return the node id of a worker after the first."""
    path = folder_of(first.path, number)
    with one_error(path):
        is_there = exists(path / NODE_FILE)
    name = f"{first.node.name[: MAX_NAME_SIZE - 4]}-{number}"
    if not is_there:
        if first.authority is None:
            raise DataFolderError(
                str(path),
                f"no node certificate in it, and each worker is a node of its own; write one on the machine with the "
                f"authority with {ISSUE_NODE.replace('NAME', name)} and bring DIR here as {path}, or join with "
                f"`--join` and a token of `quicbus token create --uses N`",
            )
        undo(path, keep=(), remove_folder=True)  # what an earlier start did not finish
        prepare_node_folder(first.authority, name, path, issued_by=first.path)
    with one_error(path):
        node = read_node(path)
    if node.mesh != first.mesh:
        raise DataFolderError(
            str(path), f"it is of mesh {node.mesh}, and worker 1 of mesh {first.mesh}; remove it, a new one is made"
        )
    return node.node_id
