"""`quicbus cert`: issue credentials for clients and data folders for nodes, and show what a file or folder holds."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quicbus.commands import common_options
from quicbus.exceptions import CredentialError
from quicbus_cli.cert_by_hand import authority, install, request, sign
from quicbus_cli.cert_enroll import enroll
from quicbus_cli.cert_folder import authority_of, credential_facts, data_dir_option, folder_of
from quicbus_cli.cert_log import list_issued, revoke, rotate

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cert"]


@click.group(short_help="Issue, show, renew and revoke credentials and node certificates.")
def cert() -> None:
    """Issue credentials for clients, data folders for further nodes, and show, sign and revoke what was issued.

    Certificates are issued in the data folder that holds the authority: that of the first `quicbus broker`. Brokers and
    clients renew theirs by themselves as long as a broker with that folder runs somewhere in the mesh.
    """


@cert.command(short_help="Write a client's credential or a node's data folder.")
@click.option("--client", metavar="NAME", help="Name of the client; publishers are shown by it.")
@click.option("--node", metavar="NAME", help="Name of a further node.")
@click.option("--out", metavar="PATH", help="Credential file (default NAME.pem), or folder for a node (default NAME).")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Days until it expires; 30 unless given.")
@data_dir_option
@click.option("--force", is_flag=True, help="Replace a credential file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as a JSON object.")
@common_options
def issue(
    client: str | None,
    node: str | None,
    out: str | None,
    days: float | None,
    data_dir: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a credential, also beside a running broker. What is written is a secret.

    \b
    quicbus cert issue --client alice --out alice.pem
    quicbus cert issue --node tokyo --out tokyo
    """
    context = click.get_current_context()
    if (client is None) == (node is None):
        raise click.UsageError("give one of --client NAME and --node NAME", context)
    from quicbus.identity import IssuedLog, prepare_node_folder  # cryptography takes a while to load
    from quicbus.identity.authority import CERTIFICATE_DAYS

    folder = folder_of(data_dir)
    issuer = authority_of(folder)
    if node is not None:
        target = Path(out or node)
        credential = prepare_node_folder(issuer, node, target, days=days or CERTIFICATE_DAYS, issued_by=folder)
        use = f"quicbus broker --data-dir {target} --seed HOST:PORT  (of a broker that runs)"
    else:
        assert client is not None
        target = Path(out or f"{client}.pem")
        if target.exists() and not force:
            raise CredentialError(f"{target} exists; --force replaces it")
        credential = issuer.issue_client(client, days=days or CERTIFICATE_DAYS)
        IssuedLog(folder).add(issuer, credential.chain_der[0])
        credential.save(target)
        use = f"quicbus sub --credentials {target} 'sensors/#'"
    if as_json:
        click.echo(json.dumps({"path": str(target), **credential_facts(credential)}))
        return
    click.echo(f"{target}: {credential.role} {credential.name}, valid until {credential.not_after:%Y-%m-%d}")
    click.echo(f"use it: {use}")


@cert.command(short_help="Show a credential, certificate or data folder.")
@click.argument("path", required=False, metavar="[FILE]")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@common_options
def show(path: str | None, data_dir: str | None, as_json: bool) -> None:
    """Show who FILE is for, its mesh and its validity; without FILE what the data folder holds."""
    if path is None or Path(path).is_dir():
        folder = Path(path) if path else folder_of(data_dir)
        files = [folder / name for name in ("authority.pem", "node.pem", "credential.pem") if (folder / name).exists()]
        if not files:
            raise CredentialError(f"{folder} holds no certificates; the first `quicbus broker` makes them")
    else:
        files = [Path(path)]
    found = [{"path": str(file), **facts} for file in files for facts in _descriptions(file)]
    if as_json:
        click.echo(json.dumps(found))
        return
    for facts in found:
        click.echo(_text(facts))


for command in (authority, enroll, install, list_issued, request, revoke, rotate, sign):
    cert.add_command(command)


def _descriptions(file: Path) -> Iterator[dict[str, str | int | bool]]:
    from quicbus.identity.describe import describe_certificates  # cryptography takes a while to load

    for one in describe_certificates(file.read_bytes(), source=str(file)):
        yield one.as_dict()


def _text(facts: dict[str, Any]) -> str:
    state = f"{facts['days_left']} days left" if facts["is_valid_now"] else "NOT VALID NOW"
    rows = {
        "for": f"{facts['role']} {facts['name']}".strip(),
        "mesh": facts["mesh"],
        "id": facts["id"],
        "valid": f"{_when(facts['valid_from'])} to {_when(facts['valid_to'])} UTC, {state}",
        "fingerprint": facts["fingerprint"],
        "private key": "in this file: keep it secret" if facts["has_private_key"] else "not in this file",
    }
    return "\n".join([facts["path"], *(f"  {key:<13}{value}" for key, value in rows.items())])


def _when(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M}"
