"""What comes before a broker opens its data folder: becoming a node of a mesh by a token, or asking for a certificate.

Afterwards the folder is that of any other node. With a certificate of the token's mesh in it nothing is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quicbus.client.enrolment import CertificateOffice
from quicbus.exceptions import CredentialError, DataFolderError
from quicbus.identity import JoinToken, PreparedFolder, Role
from quicbus.identity.folder_content import read_node
from quicbus.identity.folder_files import NODE_FILE, one_error
from quicbus.logs import logger_for

if TYPE_CHECKING:
    from quicbus.identity import Credential
    from quicbus.transport.engine import Engine
    from quicbus_broker.settings import BrokerSettings

__all__ = ["enter_mesh", "read_token"]

_EVER = dt.datetime.fromtimestamp(0, dt.UTC)
_MAX_FILE_SIZE = 64 * 1024
_log = logger_for("quicbus_broker.enrolment")


async def enter_mesh(settings: BrokerSettings, engine: Engine) -> tuple[BrokerSettings, str]:
    """Join where the settings say so; return settings with the token's seeds, and a sentence about what was done.

    Raises `CredentialError` for a token that is none or is refused, `AuthorityUnavailable` where it may work later,
    `ConnectFailed`, and `DataFolderError` for a folder that is of another mesh or has no certificate yet.
    """
    if settings.join:
        token = read_token(settings.join)
        done = await _join(settings.folder, settings.join, token, engine)
        return replace(settings, seed=(*settings.seed, *token.seeds), join=""), done
    if not settings.makes_authority and not (settings.folder / NODE_FILE).exists() and settings.certificate is None:
        await asyncio.to_thread(_write_request, settings.folder)
    return settings, ""


def read_token(given: str, now: dt.datetime = _EVER) -> JoinToken:
    """Return the token that a text or a file holds; raises `CredentialError`.

    `now` decides about expiry; unless given an expired one is returned, too.
    """
    if not given.strip().startswith("qbt"):
        path = Path(given).expanduser()
        try:
            with path.open(encoding="ascii", errors="replace") as file:
                given = file.read(_MAX_FILE_SIZE)
        except OSError as error:
            raise CredentialError(
                f"join: neither a token (one begins with qbt1-) nor a file that can be read: {given[:80]!r} "
                f"({error.strerror or error}); make a token with `quicbus token create`"
            ) from None
    return JoinToken.parse(given, now)


async def _join(folder: Path, given: str, token: JoinToken, engine: Engine) -> str:
    if token.role is not Role.NODE:
        raise CredentialError(
            f"this token is for a {token.role}, not for a node: use it with `quicbus cert enroll`, or make another one "
            "with `quicbus token create --role node`"
        )
    node = await asyncio.to_thread(_node_in, folder)
    if node is not None:
        _check_mesh(folder, node, token)
        done = f"the data folder is that of node {node.name} of this mesh already: no token is needed"
        _log.info("= %s", done)
        return done
    read_token(given, dt.datetime.now(dt.UTC))
    prepared = await asyncio.to_thread(PreparedFolder.open, folder)
    try:
        answer = await CertificateOffice(engine).join(token, prepared.request, prepared.local_request)
        node = await asyncio.to_thread(prepared.install, answer.issued, token.authorities)
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
        "request; have it signed with `quicbus cert sign` where the authority's key is, then start again",
    )
