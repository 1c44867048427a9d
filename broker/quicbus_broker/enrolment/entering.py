"""What comes before a broker opens its data folder: becoming a node of a mesh by a token, or asking for a certificate.

Afterwards the folder is that of any other node. With a certificate of the token's mesh in it nothing is asked for,
unless that has expired too long ago to be renewed: then the token is for another one, for the same key.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

from quicbus.client.enrolment import CertificateOffice, read_token
from quicbus.exceptions import CredentialError, CredentialRefused, DataFolderError
from quicbus.identity import PreparedFolder, Role
from quicbus.identity.folder_content import read_node
from quicbus.identity.folder_files import AUTHORITY_KEY_FILE, NODE_FILE, one_error
from quicbus.identity.proof import RENEW_GRACE_DAYS
from quicbus.logs import logger_for

if TYPE_CHECKING:
    from pathlib import Path

    from quicbus.identity import Credential, JoinToken
    from quicbus.transport.engine import Engine
    from quicbus_broker.settings import BrokerSettings

__all__ = ["enter_mesh"]

_EVER = dt.datetime.fromtimestamp(0, dt.UTC)
"""Until when a token is taken for good: one that is not needed any more may have expired."""
_log = logger_for("quicbus_broker.enrolment")


async def enter_mesh(settings: BrokerSettings, engine: Engine) -> tuple[BrokerSettings, str]:
    """Join where the settings say so; return settings with the token's seeds, and a sentence about what was done.

    Raises `CredentialError` for a token that is none or is refused, `AuthorityUnavailable` where it may work later,
    `ConnectFailed`, and `DataFolderError` for a folder that is of another mesh or has no certificate yet.
    """
    if settings.join:
        token = read_token(settings.join, _EVER)
        done = await _join(settings.folder, settings.join, token, engine)
        return replace(settings, seed=(*settings.seed, *token.seeds), join=""), done
    if not settings.makes_authority and not (settings.folder / NODE_FILE).exists() and settings.certificate is None:
        await asyncio.to_thread(_write_request, settings.folder)
    return settings, ""


async def _join(folder: Path, given: str, token: JoinToken, engine: Engine) -> str:
    if token.role is not Role.NODE:
        raise CredentialError(
            f"this token is for a {token.role}, not for a node: use it with `quicbus cert enroll`, or make another one "
            "with `quicbus token create --role node`"
        )
    node = await asyncio.to_thread(_node_in, folder)
    if node is not None:
        _check_mesh(folder, node, token)
    if node is not None and _lives(folder, node):
        done = f"the data folder is that of node {node.name} of this mesh already: no token is needed"
        _log.info("= %s", done)
        return done
    read_token(given)
    prepared = await asyncio.to_thread(PreparedFolder.open, folder, again=node is not None)
    try:
        answer = await CertificateOffice(engine).join(token, prepared.request, prepared.local_request)
        node = await asyncio.to_thread(prepared.install, answer.issued, token.authorities)
    except CredentialRefused:
        # After any other failure the key stays: it may have used up the token, and can be certified by it again.
        await asyncio.to_thread(prepared.undo)
        raise
    finally:
        prepared.close()
    done = f"joined mesh {token.mesh} as node {node.name}, through {answer.brokers[0]}"
    _log.info("= %s", done, extra={"node": node.node_id.hex()})
    return done


def _node_in(folder: Path) -> Credential | None:
    if not (folder / NODE_FILE).exists():
        return None
    with one_error(folder):
        return read_node(folder)


def _lives(folder: Path, node: Credential) -> bool:
    """Whether the node can start with its certificate, renewed if need be; otherwise a token gives its key another."""
    until = node.not_after + dt.timedelta(days=RENEW_GRACE_DAYS)
    return dt.datetime.now(dt.UTC) <= until or (folder / AUTHORITY_KEY_FILE).exists()


def _check_mesh(folder: Path, node: Credential, token: JoinToken) -> None:
    if node.mesh != token.mesh:
        raise DataFolderError(
            str(folder),
            f"it is that of node {node.name} of mesh {node.mesh}, and the token is of mesh {token.mesh}; name another "
            "folder with --data-dir, or start without --join to stay in the old mesh",
        )


def _write_request(folder: Path) -> None:
    with contextlib.closing(PreparedFolder.open(folder)) as prepared:
        path = prepared.write_request()
    raise DataFolderError(
        str(folder),
        f"no node certificate in it, and this node makes no authority (--authority none): {path} is its signing "
        "request; have it signed with `quicbus cert sign` where the authority's key is, bring the answer here with "
        "`quicbus cert install`, then start again",
    )
